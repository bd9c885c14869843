# Short commands. CMakeLists.txt is the build description; `make help` lists the commands.
.DEFAULT_GOAL := build
MODEL ?= smollm2-135m
PROMPT ?= Why is the sky blue? Answer in two sentences.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
MAKEFLAGS += --no-print-directory

.PHONY: build configure demo web-demo test check bench lint format dist wheel android install clean help

## make              build the library and the program: build/quip, build/libquip.*
build: configure
	@cmake --build build -j $(JOBS) --target quip_program quip_static quip_shared

configure:
	@scripts/setup
	@test -f build/Makefile -o -f build/build.ninja || cmake --preset release >build.log || \
		{ cat build.log; false; }
	@rm -f build.log

## make demo         download a model, convert it, and answer a prompt
##                   (MODEL=smollm2-135m, qwen2.5-coder-0.5b, or gemma3-270m, which is a base
##                   model and continues the text, PROMPT="…")
demo: build
	@scripts/demo '$(MODEL)' '$(subst ','\'',$(value PROMPT))'

## make web-demo     the web package and its demo page, at http://localhost:8080/ (PORT=8080)
web-demo: build
	@scripts/web-demo $(if $(PORT),--port '$(PORT)')

## make test         run all tests
test: configure
	@cmake --build build -j $(JOBS)
	@cd build && ctest --output-on-failure -j $(JOBS)

## make check        tests under sanitizers, short fuzz runs
check:
	@scripts/setup checks
	@scripts/check

## make bench        measure this machine: quip bench on both demo models
bench: build
	@scripts/bench

## make lint         the rules of tools/lint, formatting, warnings of both compilers
lint:
	@scripts/setup checks
	@scripts/lint

## make format       format every C file
format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

## make dist         join the library into dist/quip.c and dist/quip.h
dist:
	@tools/amalgamate dist

## make wheel        the Python package as a wheel in dist/
wheel:
	@scripts/setup
	@python3 -m pip wheel -q --no-deps -w dist ./bindings/python

## make android      libquip_jni.so for phones (arm64-v8a, x86_64) in build-android/jni
android:
	@test -n "$$ANDROID_NDK_HOME" || scripts/setup android
	@JOBS=$(JOBS) bindings/android/native/build

## make install      install program, library, header and man page (PREFIX=/usr/local)
install: configure
	@cmake --build build -j $(JOBS)
	@cmake --install build --prefix '$(or $(PREFIX),/usr/local)'

## make clean        remove everything that was built
clean:
	@rm -rf build build-* dist bindings/web/build bindings/web/dist

help:
	@sed -n 's/^## //p' Makefile
