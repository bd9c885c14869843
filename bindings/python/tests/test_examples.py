"""Every script of examples/python runs."""

import subprocess
import sys

import pytest

from conftest import ROOT

EXAMPLES = ROOT / "examples/python"
RUNS = {
    "generate.py": ["{model}", "one"],
    "chat.py": ["{model}"],
    "stream_async.py": ["{model}", "one", "two"],
    "logits.py": ["{model}", "one"],
    "bundle.py": ["{model}", "{checkpoint}/tokenizer.model", "{out}.task"],
    "convert.py": ["{checkpoint}", "", "", "{out}"],
    "lora.py": ["{model}", "{adapter}", "one"],
    "llm_inference.py": ["{model}", "one"],
    "search.py": ["{model}", "one"],
}


def test_all_are_here():
    assert sorted(RUNS) == sorted(p.name for p in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", RUNS)
def test_usage(name):
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, timeout=60)
    assert done.returncode == 1 and f"python {name}".encode() in done.stderr


@pytest.mark.parametrize("name", RUNS)
def test_example(name, model_path, checkpoint, adapter_path, tmp_path):
    places = {
        "model": model_path,
        "checkpoint": checkpoint,
        "adapter": adapter_path,
        "out": tmp_path / "out",
    }
    arguments = [word.format(**places) for word in RUNS[name]]
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(command, input=b"one\n", capture_output=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout or list(tmp_path.iterdir())
