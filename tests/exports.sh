#!/bin/sh
# exports.sh BUILD: the shared library exports all functions of quip.h and nothing else, and calls
# nothing that ends the process: no assert, no abort, no exit.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
# names in the header's declarations: QUIP_API type quip_name(
sed -n '/^QUIP_API/{:a;/;/!{N;ba};s/\n/ /g;s/.*[ *]\(quip_[a-z0-9_]*\)(.*/\1/p;}' \
    "$root/include/quip.h" | sort >exports.declared
nm -D --defined-only libquip.so | awk '{ print $3 }' | sort >exports.found
test -s exports.declared
diff exports.declared exports.found
if nm -D --undefined-only libquip.so | grep -wE '__assert_fail|abort|_?exit'; then
    echo "exports: the library can end the process"
    exit 1
fi
echo "exports: $(wc -l <exports.found) functions"
