#!/bin/sh
# dist.sh BUILD: the library as one file compiles without warnings with every installed compiler,
# never fuses a multiply and an add, exports only the functions of quip.h, and works like the library.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dist=$1/dist
"$root/tools/amalgamate" "$dist"
cd "$dist"
seen=
for compiler in cc gcc clang clang-19; do
    command -v "$compiler" >/dev/null || continue
    version=$("$compiler" --version | sed '1s/^[^ ]* //;q')
    case $seen in *"[$version]"*) continue ;; esac # two names of one compiler
    seen="$seen[$version]"
    "$compiler" -O2 -Wall -Werror -c quip.c -o quip.o
    "$compiler" -O2 -I. "$root/examples/hello.c" quip.o -lm -pthread -o hello
    if objdump -d quip.o | grep -E '[[:space:]]vfn?m(add|sub)'; then
        echo "dist: $compiler fused a multiply and an add"
        exit 1
    fi
    if nm -g --defined-only quip.o | grep -v ' quip_'; then
        echo "dist: $compiler exports names that are not in quip.h"
        exit 1
    fi
    if ./hello absent.bin hi 2>error.txt; then exit 1; fi
    grep -q absent.bin error.txt
    echo "dist: no problem with $compiler"
done
