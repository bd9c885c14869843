#!/usr/bin/env python3
"""aar.py REPOSITORY ROOT: the AAR has what Android's build tools expect, and nothing else; aapt accepts
its manifest, and the manifest and the resources of examples/android. tests/android_java.sh calls it."""

import io
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zipfile

FILES = {
    "AndroidManifest.xml",
    "META-INF/com/android/build/gradle/aar-metadata.properties",
    "R.txt",
    "classes.jar",
    "jni/arm64-v8a/libquip_jni.so",
    "jni/x86_64/libquip_jni.so",
    "proguard.txt",
}
FRAMEWORK = "/usr/share/android-framework-res/framework-res.apk"  # Android 10, the newest in Debian
MOST_BYTES = 900_000  # compressed, both ABIs


def check(what, condition):
    if not condition:
        sys.exit(f"aar: {what}")


def check_classes(jar):
    """Java 8 classes of two packages, with Kotlin metadata that Kotlin 1.9 can read."""
    names = [n for n in jar.namelist() if n.endswith(".class")]
    check("classes of other packages", all(re.match(r"com/quip/(genai/)?\w", n) for n in names))
    for name in names:
        data = jar.read(name)
        magic, _, major = struct.unpack(">IHH", data[:8])
        check(f"{name} is not for Java 8", magic == 0xCAFEBABE and major == 52)
        check(f"{name} uses reflection", b"java/lang/reflect/" not in data and b"forName" not in data)
    with tempfile.TemporaryDirectory() as folder:
        jar.extract("com/quip/Session.class", folder)
        listing = subprocess.run(
            ["javap", "-v", "-cp", folder, "com.quip.Session"], check=True, capture_output=True, text=True
        ).stdout
    check("Kotlin's metadata is not of 1.9", re.search(r"mv=\[1,9,\d\]", listing))
    return len(names)


def aapt(manifest, package, resources):
    """Compile a manifest and resources; returns the constants of R.java."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        text = re.sub(r"<manifest(?! package)", f'<manifest package="{package}"', manifest, count=1)
        (work / "AndroidManifest.xml").write_text(text if " package=" not in manifest else manifest)
        command = ["aapt", "package", "-f", "-m", "-J", work, "-M", work / "AndroidManifest.xml", "-I", FRAMEWORK]
        command += ["--target-sdk-version", "34", "--min-sdk-version", "26", "-F", work / "out.apk"]
        command += ["-S", resources] if resources else []
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        check(f"aapt: {package}: {done.stderr}", done.returncode == 0 and not done.stderr)
        java = next(work.rglob("R.java"), None)
        names, kind = set(), ""
        for line in java.read_text().splitlines() if java else []:
            if found := re.search(r"class (\w+) \{", line):
                kind = found[1]
            elif found := re.search(r"int (\w+)=", line):
                names.add(f"{kind}.{found[1]}")
        return names


def check_sample(root):
    """The resources that the sample's code and manifest name are there, and no others."""
    app = root / "examples/android/app/src/main"
    names = aapt((app / "AndroidManifest.xml").read_text(), "com.quip.chat", app / "res")
    sources = "".join(p.read_text() for p in app.rglob("*.kt"))
    used = set(re.findall(r"\bR\.(\w+\.\w+)", sources))
    check(f"the sample uses {used - names}", used <= names)
    unused = {n for n in names - used if n.startswith("string.")} - {"string.app_name"}
    check(f"the sample does not use {unused}", not unused)
    print(f"aar: the sample's manifest and {len(names)} resources")


def main(repository, root):
    (path,) = repository.glob("com/quip/quip-android/*/quip-android-*.aar")
    for suffix in (".pom", "-sources.jar", "-javadoc.jar", ".aar.sha1"):
        check(f"{suffix} is missing", path.with_name(path.stem + suffix).exists())
    with zipfile.ZipFile(path.with_name(path.stem + "-javadoc.jar")) as pages:
        names = pages.namelist()
        for page in ("com.quip/-session/say.html", "com.quip.genai/-llm-inference/index.html"):
            check(f"the javadoc has no page {page}", any(n.endswith(page) for n in names))
    pom = xml.etree.ElementTree.parse(path.with_suffix(".pom")).getroot()
    spaces = {"m": "http://maven.apache.org/POM/4.0.0"}
    check("the POM's packaging", pom.findtext("m:packaging", namespaces=spaces) == "aar")
    with zipfile.ZipFile(path) as aar:
        check(f"files {FILES ^ set(aar.namelist())}", set(aar.namelist()) == FILES)
        metadata = aar.read("META-INF/com/android/build/gradle/aar-metadata.properties").decode()
        check("aar-metadata has no minCompileSdk", re.search(r"^minCompileSdk=\d+$", metadata, re.M))
        keep = aar.read("proguard.txt").decode()
        check("proguard.txt does not keep com.quip.Native", "-keep class com.quip.Native" in keep)
        manifest = aar.read("AndroidManifest.xml").decode()
        check("the manifest asks for a permission", "uses-permission" not in manifest)
        aapt(manifest, "com.quip", None)
        with zipfile.ZipFile(io.BytesIO(aar.read("classes.jar"))) as jar:
            n = check_classes(jar)
            jar_bytes = len(aar.read("classes.jar"))
    check_sample(root)
    size = path.stat().st_size
    check(f"the AAR has {size} bytes", size < MOST_BYTES)
    print(f"aar: {path.name}: {size} bytes, {n} classes in {jar_bytes} bytes")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
