#!/bin/sh
# web_native.sh BUILD: the WebAssembly modules compile, their kernels have the bits of the scalar ones, and
# the modules those of the native program. Needs `scripts/setup web` and Node 20 or later; QUIP_NODE names
# another one. Relaxed SIMD is tested where Node has it (22 on).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$1/web
node=${QUIP_NODE:-node}
skip() {
    echo "web_native: $1"
    [ "${CI-}" = true ] && exit 1
    exit 77
}
command -v clang-19 >/dev/null && command -v wasm-ld-19 >/dev/null &&
    test -f /usr/include/wasm32-wasi/stdio.h || skip 'no compiler for WebAssembly: scripts/setup web'
command -v "$node" >/dev/null || skip 'no Node'

mkdir -p "$work"
"$root/bindings/web/native/build" "$work"

# The native tests of kernels, as command-line programs.
builtins=$(clang-19 --target=wasm32-wasi -print-libgcc-file-name)
for level in simd relaxed; do
    more=
    if [ $level = relaxed ]; then
        more=-mrelaxed-simd
    fi
    for test in kernels kernels_vector; do
        clang-19 --target=wasm32-wasi -std=gnu11 -O2 -ffp-contract=off -msimd128 -mbulk-memory $more \
            -I"$root/tests/web/shim" -I"$root/include" -I"$root/src" \
            -c "$root/tests/$test.c" -o "$work/$test.o"
        wasm-ld-19 --gc-sections -z stack-size=1048576 --max-memory=1073741824 \
            /usr/lib/wasm32-wasi/crt1-command.o "$work/$test.o" "$root/build-web/$level"/src_*.o \
            -L/usr/lib/wasm32-wasi -lc "$builtins" -o "$work/$test-$level.wasm"
        "$node" --no-warnings "$root/tests/web/wasi.mjs" "$work/$test-$level.wasm"
        echo
    done
done

QUIP=$1/quip QUIP_WASM=$work "$node" --test "$root/tests/web/native.test.mjs"
