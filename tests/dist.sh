#!/bin/sh
# dist.sh BUILD: the library joined into one file compiles by itself, silently, with every compiler
# there is, never fuses a multiply and an add, shows the functions of quip.h and no other name, and
# answers as the library does.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dist=$1/dist
"$root/tools/amalgamate" "$dist"
cd "$dist"
for compiler in cc gcc clang clang-19; do
    command -v "$compiler" >/dev/null || continue
    "$compiler" -O2 -Wall -Werror -c quip.c -o quip.o
    "$compiler" -O2 -I. "$root/examples/hello.c" quip.o -lm -pthread -o hello
    if objdump -d quip.o | grep -E '[[:space:]]vfn?m(add|sub)'; then
        echo "dist: $compiler fused a multiply and an add"
        exit 1
    fi
    if nm -g --defined-only quip.o | grep -v ' quip_'; then
        echo "dist: $compiler shows names that are not of quip.h"
        exit 1
    fi
    if ./hello absent.bin hi 2>error.txt; then exit 1; fi
    grep -q absent.bin error.txt
    echo "dist: fine with $compiler"
done
