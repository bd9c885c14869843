#!/bin/sh
# android_java.sh BUILD: the classes for Android on the host's JVM, over the host's build of the native
# library, with the JVM's checks of native code, and with sanitizers in the C code between Java and
# the library; then the AAR and the Maven repository folder.
# Needs `scripts/setup android`, and Maven's packages from the network or from an earlier run.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
package=$root/bindings/android
work=$build/android
skip() {
    echo "android_java: $1"
    [ "${CI-}" = true ] && exit 1
    exit 77
}
for tool in javac mvn aapt; do
    command -v $tool >/dev/null || skip "$tool is missing; scripts/setup android installs it"
done
test -f /usr/share/android-framework-res/framework-res.apk || skip "aapt's resources are missing; scripts/setup android installs them"
test -f "$build/libquip_jni.so" || skip 'libquip_jni.so was not built: jni.h was missing when cmake ran'

"$package/tools/abi.py" "$build/Abi.java"
diff "$package/src/main/java/com/quip/Abi.java" "$build/Abi.java" || {
    echo 'android_java: Abi.java is not up to date; run bindings/android/tools/abi.py'
    exit 1
}

models=$build/android-models
mkdir -p "$models/adapter" "$work"
"$build/tests/tiny_model_file" llama "$models/tiny.bin"
"$build/tests/tiny_model_file" gemma3 "$models/gemma3.bin"
"$build/tests/tiny_model_file" slow "$models/slow.bin"
"$build/tests/tiny_model_file" adapter "$models/tiny.bin" "$models/adapter"
answer=$("$build/quip" run "$models/tiny.bin" 'Why is the sky blue?' --greedy -n 40 -c 512)
printf '%s' "$answer" >"$models/answer.txt"

maven() { mvn -B -f "$package/pom.xml" "-Dquip.build=$work/maven" "-Dquip.native=$build" "-Dquip.models=$models" "$@"; }
if ! maven -o package >"$work/test.log" 2>&1 && grep -q 'Could not resolve\|could not be resolved\|offline mode' "$work/test.log"; then
    maven package >"$work/test.log" 2>&1 || true # packages are missing
fi
grep 'Tests run:.*Time' "$work/test.log" || true
if ! grep -q 'BUILD SUCCESS' "$work/test.log"; then
    grep -q 'could not be resolved\|Could not transfer' "$work/test.log" && skip "Maven's packages are not available"
    grep -A 12 'ERROR' "$work/test.log" | head -n 150
    exit 1
fi
# -Xcheck:jni reports references that are left, and calls with a pending exception. The output of
# native code is in Surefire's dump files. Other native libraries have findings, too.
if cat "$work/test.log" "$work"/maven/surefire-reports/*.dumpstream 2>/dev/null | grep 'com\.quip\.Native\|in native method.*quip'; then
    echo 'android_java: the JVM reports an error of native code'
    exit 1
fi

# Again with AddressSanitizer and UndefinedBehaviorSanitizer, which the JVM must load before itself.
sanitizer=$(clang-19 --print-resource-dir)/lib/linux/libclang_rt.asan-x86_64.so
if [ -f "$sanitizer" ]; then
    jdk=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
    mkdir -p "$work/asan"
    clang-19 -g -O1 -std=gnu11 -fsanitize=address,undefined -fno-sanitize-recover=all -shared-libasan \
        -fPIC -shared -I"$root/include" -isystem "$jdk/include" -isystem "$jdk/include/linux" \
        "$package"/native/*.c -L"$build" -lquip -Wl,-rpath,"$build" -o "$work/asan/libquip_jni.so"
    # the JVM handles SIGSEGV itself, and keeps memory until the process ends
    LD_PRELOAD=$sanitizer ASAN_OPTIONS=handle_segv=0:detect_leaks=0 java -Xmx1g -Xcheck:jni \
        -XX:TieredStopAtLevel=1 --add-opens=java.base/java.io=ALL-UNNAMED \
        "-Djava.library.path=$work/asan" "-Dquip.models=$models" \
        "-Dquip.cases=$root/tests/conformance.txt" \
        -cp "$work/maven/classes:$work/maven/test-classes:$(cat "$work/maven/classpath")" \
        org.junit.runner.JUnitCore com.quip.ModelTest com.quip.SessionTest com.quip.LlmInferenceTest com.quip.ForgottenTest \
        com.quip.ConformanceTest \
        >"$work/asan.log" 2>&1 || { tail -n 100 "$work/asan.log"; exit 1; }
    echo "android_java: with sanitizers: $(grep '^OK' "$work/asan.log")"
fi

repository=$work/repository
rm -rf "$repository"
CLASSES=$work/maven "$package/build" "$repository"
"$root/tests/android/aar.py" "$repository" "$root"
