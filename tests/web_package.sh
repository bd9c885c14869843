#!/bin/sh
# web_package.sh BUILD: build the npm package bindings/web, which web.sh and web_gpu.sh test. Needs
# `scripts/setup web`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
skip() {
    echo "web_package: $1"
    [ "${CI-}" = true ] && exit 1
    exit 77
}
for tool in node npm clang-19 wasm-ld-19; do
    command -v "$tool" >/dev/null || skip "$tool is missing; scripts/setup web installs it"
done
test -f /usr/include/wasm32-wasi/stdio.h || skip 'the C library for WebAssembly is missing; scripts/setup web installs it'

cd "$root/bindings/web"
rm -rf dist
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || skip 'npm ci failed'
    cp package-lock.json node_modules/.installed
fi
npm run --silent build
