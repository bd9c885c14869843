#!/bin/sh
# web.sh BUILD: test the npm package in Node and in Chromium. web_package.sh builds it.
exec "$(dirname "$0")/tools/web_tests" "$1" chromium demo node store
