#!/bin/sh
# web.sh BUILD: build the npm package bindings/web and test it in Node and in Chromium. Needs
# `scripts/setup web`. CHROMIUM names another browser.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
skip() {
    echo "web: $1"
    [ "${CI-}" = true ] && exit 1
    exit 77
}
for tool in node npm clang-19 wasm-ld-19 "${CHROMIUM:-chromium}"; do
    command -v "$tool" >/dev/null || skip "$tool is missing; scripts/setup web installs it"
done
test -f /usr/include/wasm32-wasi/stdio.h || skip 'the C library for WebAssembly is missing; scripts/setup web installs it'

cd "$root/bindings/web"
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || skip 'npm ci failed'
    cp package-lock.json node_modules/.installed
fi
npm run --silent build
QUIP_BUILD=$1 CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
export QUIP_BUILD CHROMIUM
failed=
for file in test/*.test.mjs; do
    node --test "$file" || failed=yes
done
test -z "$failed"
