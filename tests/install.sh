#!/bin/sh
# install.sh BUILD: an installed Quip works with find_package(quip) and with pkg-config, and includes
# the program and its man page.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$1/installed" "$1/consumer"
cmake --install "$1" --prefix "$1/installed" >/dev/null
cd "$1/installed"
bin/quip --version
test -s share/man/man1/quip.1
# the name of the library contains the minor version while the major one is 0
version=$(bin/quip --version | cut -d' ' -f2)
soname=$(objdump -p "$(find . -name 'libquip.so')" | awk '/SONAME/ { print $2 }')
test "$soname" = "libquip.so.${version%.*}"
lib=$(dirname "$(find . -name quip.pc)")/..

cmake -S "$root/examples" -B ../consumer -DCMAKE_PREFIX_PATH="$PWD" >/dev/null
cmake --build ../consumer >/dev/null
if ../consumer/hello absent.bin hi 2>error.txt; then exit 1; fi
grep -q absent.bin error.txt

if command -v pkg-config >/dev/null; then
    flags=$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --cflags --libs quip)
    # shellcheck disable=SC2086 # flags are words
    cc "$root/examples/hello.c" $flags -o hello
    if LD_LIBRARY_PATH=$lib ./hello absent.bin hi 2>error.txt; then exit 1; fi
    grep -q absent.bin error.txt
fi
# a C++ program may include the header
if command -v c++ >/dev/null; then
    echo '#include <quip.h>' | c++ -Iinclude -Wall -Werror -fsyntax-only -x c++ -
fi
echo '#include <quip.h>' | cc -std=c99 -pedantic -Iinclude -Wall -Werror -fsyntax-only -x c -
echo "install: no problem"
