#!/bin/sh
# web_native.sh BUILD: compile the WebAssembly modules, compare their kernels with the scalar ones, and whole
# modules with the native program. Needs `scripts/setup web` and Node 20 or later; QUIP_NODE names another
# one. Relaxed SIMD is tested if Node has it (from 22 on).
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
    test -f /usr/include/wasm32-wasi/stdio.h || skip 'the compiler for WebAssembly is missing; scripts/setup web installs it'
command -v "$node" >/dev/null || skip 'Node is missing; scripts/setup web installs it'

mkdir -p "$work"
"$root/bindings/web/native/build" "$work"

# The native tests of kernels, as command-line programs: linked with the objects of the modules, and with
# relaxed dot products as browsers on other processors compute them.
builtins=$(clang-19 --target=wasm32-wasi -print-libgcc-file-name)
compile() { # compile SOURCE NAME FLAGS...
    source=$1 object=$work/$2.o
    shift 2
    clang-19 --target=wasm32-wasi -std=gnu11 -O2 -ffp-contract=off -msimd128 -mbulk-memory \
        -I"$root/tests/web/shim" -I"$root/include" -I"$root/src" "$@" -c "$root/$source" -o "$object"
}
run() { # run NAME OBJECTS...
    program=$work/$1.wasm
    shift
    wasm-ld-19 --gc-sections -z stack-size=1048576 --max-memory=1073741824 \
        /usr/lib/wasm32-wasi/crt1-command.o "$@" -L/usr/lib/wasm32-wasi -lc "$builtins" -o "$program"
    "$node" --no-warnings "$root/tests/web/wasi.mjs" "$program"
    echo
}
compile tests/support/emulated_amx.c emulated_amx # which does nothing here
for level in simd relaxed; do
    objects=$(grep /src_ "$root/build-web/$level/objects")
    for test in kernels kernels_vector; do
        compile "tests/$test.c" "$test"
        # shellcheck disable=SC2086 # a list of words
        run "$test-$level" "$work/$test.o" "$work/emulated_amx.o" $objects
    done
done
others=$(echo "$objects" | grep -v 'linear_relaxed\|cpu_features')
for engine in 1 2 3; do
    compile src/cpu/wasm/linear_relaxed.c linear_relaxed -include relaxed_dot.h -DENGINE=$engine
    compile src/base/cpu_features.c cpu_features -D__wasm_relaxed_simd__
    # shellcheck disable=SC2086 # a list of words
    run "kernels-engine-$engine" "$work/kernels.o" "$work/emulated_amx.o" "$work/linear_relaxed.o" "$work/cpu_features.o" $others
done

QUIP=$1/quip QUIP_WASM=$work "$node" --test "$root/tests/web/native.test.mjs"
