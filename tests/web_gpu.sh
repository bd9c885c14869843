#!/bin/sh
# web_gpu.sh BUILD: test the GPU backend of the npm package in Chromium. web_package.sh builds it.
exec "$(dirname "$0")/tools/web_tests" "$1" gpu
