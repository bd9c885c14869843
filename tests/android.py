#!/usr/bin/env python3
"""android.py BUILD: the native library for Android is what its loader accepts, imports only what
bionic has, and gives the answers of the native library, under an emulator.

It needs `scripts/setup android`. With ANDROID_NDK_HOME set, the libraries are those of the NDK.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
NATIVE = ROOT / "bindings/android/native"
ABIS = {"arm64-v8a": "AArch64", "x86_64": "X86-64"}
ARCHS = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
PAGE = 0x4000  # the largest of Android's devices
MOST_BYTES = (640 if "ANDROID_NDK_HOME" in os.environ else 600) * 1024  # the NDK adds stack protectors
MACHINES = [(page, cpu) for page in (4096, PAGE) for cpu in ("max", "cortex-a53")]
PROMPT = "Why is the sky blue?"


def skip(why):
    print(f"android: {why}; scripts/setup android installs it")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"android: {command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def check(library, what, condition):
    if not condition:
        sys.exit(f"android: {library}: {what}")


def bionic_names():
    lines = (NATIVE / "bionic.txt").read_text().splitlines()
    return {line.split()[1]: int(line.split()[2]) for line in lines if line and line[0] != "#"}


def declared_functions():
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "include/quip.h").read_text(), flags=re.S)
    return set(re.findall(r"^QUIP_API[^;(]*?(quip_\w+)\(", header, flags=re.M))


def check_library(path, machine):
    """What Android's loader and its store require of a library."""
    name = f"{path.parent.name}/{path.name}"
    check(name, "is too large", path.stat().st_size < MOST_BYTES)
    head = run("readelf", "-hWl", path)
    check(name, f"is not for {machine}", machine in head)
    loads = re.findall(r"^ *LOAD .* (0x[0-9a-f]+)$", head, flags=re.M)
    check(name, "has LOAD segments of other alignment", loads and all(int(a, 16) == PAGE for a in loads))
    check(name, "has no RELRO segment", "GNU_RELRO" in head)
    check(name, "has an executable stack", re.search(r"GNU_STACK .* RW ", head))
    check(name, "has thread-local storage, which API 26 cannot load", not re.search(r"^ *TLS ", head, re.M))
    dynamic = run("readelf", "-dW", path)
    check(name, "has text relocations", "TEXTREL" not in dynamic)
    check(name, "has no GNU hash table", "GNU_HASH" in dynamic)
    check(name, "is bound lazily", "BIND_NOW" in dynamic)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    check(name, f"needs {needed}", needed <= {"libc.so", "libm.so", "libdl.so"})
    check(name, "has another soname", "soname: [libquip_jni.so]" in dynamic)
    symbols = [line.split() for line in run("readelf", "--dyn-syms", "-W", path).splitlines()]
    symbols = [s for s in symbols if len(s) > 7 and s[4] in ("GLOBAL", "WEAK")]
    imports = {s[7].split("@")[0] for s in symbols if s[6] == "UND"}
    levels = bionic_names()
    check(name, f"imports {imports - set(levels)}, not in bionic.txt", imports <= set(levels))
    check(name, "imports what API 26 lacks", all(levels[i] <= 26 for i in imports))
    exports = {s[7].split("@")[0] for s in symbols if s[6] != "UND"}
    expected = declared_functions() | {"JNI_OnLoad"}
    check(name, f"exports {exports ^ expected}, unlike quip.h", exports == expected)
    print(f"android: {name}: {path.stat().st_size} bytes, {len(imports)} imports, {len(exports)} exports")


def link_with_musl(jni, abi, work):
    """tests/android/answer.c with the library for Android, and musl instead of bionic."""
    triple = f"{ARCHS[abi]}-linux-musl"
    musl = pathlib.Path("/usr/lib", triple)
    run(
        *["clang-19", f"--target={triple}", "-O1", "-nostdlibinc", "-nostdlib", "-fuse-ld=lld"],
        *["-isystem", f"/usr/include/{triple}", f"-I{ROOT / 'include'}", ROOT / "tests/android/answer.c"],
        *[musl / "crt1.o", f"-L{jni / abi}", "-lquip_jni", f"-L{musl}", "-lc", "-Wl,--export-dynamic"],
        *[f"-Wl,--dynamic-linker,/lib/ld-musl-{ARCHS[abi]}.so.1", "-Wl,-z,max-page-size=16384"],
        *["-o", work / abi],
    )


def check_answers(build, jni, work):
    """One model, in the middle of a file; the host's library and those for Android."""
    model, package = work / "tiny.bin", work / "app.apk"
    run(build / "tests/tiny_model_file", "gemma3", model)
    size, offset = model.stat().st_size, 20_484
    package.write_bytes(b"P" * offset + model.read_bytes() + b"K" * 99)
    arguments = [package, offset, size, PROMPT]

    source, include = ROOT / "tests/android/answer.c", f"-I{ROOT / 'include'}"
    run("cc", "-O1", include, source, f"-L{build}", "-lquip", f"-Wl,-rpath,{build}", "-o", work / "native")
    expected = run(work / "native", *arguments)
    check("the host's library", "answers nothing", len(expected) > 20)
    for abi in ABIS:
        link_with_musl(jni, abi, work)
        paths = f"LD_LIBRARY_PATH={jni / abi}"
        runs = [["env", paths]]
        if abi == "arm64-v8a":
            runs = [["qemu-aarch64", "-p", page, "-cpu", cpu, "-E", paths] for page, cpu in MACHINES]
        for prefix in runs:
            found = run(*prefix, work / abi, *arguments)
            check(f"{abi}/libquip_jni.so", f"{prefix[1:5]} answers {found!r}, not {expected!r}", found == expected)
    print(f"android: the same {len(expected)} bytes of text from all libraries")


def check_ndk_path(work):
    """The build with an NDK, which is not available: its layout, with Debian's compiler in it."""
    ndk = work / "ndk"
    shutil.rmtree(ndk, ignore_errors=True)
    include, tools = ndk / "sysroot", ndk / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    for folder in (ndk / "build/cmake", include, tools):
        folder.mkdir(parents=True)
    (tools / "llvm-strip").symlink_to(shutil.which("llvm-strip-19"))
    for header in ("jni.h", "linux/jni_md.h"):
        (jdk_header,) = sorted(pathlib.Path("/usr/lib/jvm").glob(f"java-*/include/{header}"))[:1]
        shutil.copy(jdk_header, include)
    run(NATIVE / "bionic", work / "bionic", "aarch64")
    (ndk / "build/cmake/android.toolchain.cmake").write_text(
        f"""if(NOT ANDROID_ABI STREQUAL arm64-v8a OR NOT ANDROID_PLATFORM STREQUAL android-26)
  message(FATAL_ERROR "ANDROID_ABI is ${{ANDROID_ABI}}, ANDROID_PLATFORM is ${{ANDROID_PLATFORM}}")
endif()
set(QUIP_ANDROID_ARCH aarch64)
set(QUIP_ANDROID_LIBS {work}/bionic)
include({ROOT}/cmake/android.cmake)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_ABI ANDROID_PLATFORM)
set(QUIP_ANDROID OFF)
set(ANDROID TRUE)
string(APPEND CMAKE_C_FLAGS_INIT " -isystem {include} -fstack-protector-strong")
"""
    )
    environment = {**os.environ, "ANDROID_NDK_HOME": str(ndk)}
    print(run(NATIVE / "build", work / "jni-ndk", "arm64-v8a", env=environment), end="")
    check_library(work / "jni-ndk/arm64-v8a/libquip_jni.so", "AArch64")


def main(build):
    for tool in ("clang-19", "ld.lld-19", "llvm-strip-19", "qemu-aarch64"):
        if not shutil.which(tool):
            skip(f"{tool} is missing")
    for arch in ("aarch64", "x86_64"):
        if not pathlib.Path(f"/usr/include/{arch}-linux-musl/stdio.h").exists():
            skip(f"a C library's headers for {arch} are missing")
    jni = build / "android/jni"
    print(run(NATIVE / "build", jni), end="")
    for abi, machine in ABIS.items():
        check_library(jni / abi / "libquip_jni.so", machine)
    with tempfile.TemporaryDirectory() as work:
        check_answers(build, jni, pathlib.Path(work))
    if "ANDROID_NDK_HOME" not in os.environ:
        check_ndk_path(build / "android")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
