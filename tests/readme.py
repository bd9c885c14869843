#!/usr/bin/env python3
"""What README.md shows below `make demo` is what it prints. Skipped if scripts/fetch-model has not fetched the
model: this downloads nothing.

    tests/readme.py BUILD
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(sys.argv[1]).resolve()


def samples():
    """The demos of README.md with their output: (options, prompt, text). An option is MODEL=… or PROMPT=…; the text
    may end with "…"."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks += [textwrap.dedent(b) for b in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE)]
    for block in blocks:
        for demo in re.findall(r"^\$ make demo\b(.*)\n> (.*)\n((?:(?!\$ ).*\n)+)", block, re.MULTILINE):
            options = dict(word.split("=", 1) for word in shlex.split(demo[0]))
            yield options, demo[1], " ".join(demo[2].split())


def fetched(name):
    """The checkpoint in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "quip/models" / f"{name}.gguf"


def demo(name, prompt):
    """What the demo prints, with a cache folder of its own, so that it may convert the model."""
    cache = BUILD / "demo-cache"
    models = cache / "quip/models"
    models.mkdir(parents=True, exist_ok=True)
    checkpoint = models / f"{name}.gguf"
    if not checkpoint.exists():
        checkpoint.symlink_to(fetched(name))
    done = subprocess.run(
        [ROOT / "scripts/demo", name, prompt, BUILD],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return " ".join(done.stdout.split())


def main():
    defaults = dict(re.findall(r"^(MODEL|PROMPT) \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = list(samples())
    if not found:
        sys.exit("readme: README.md has no sample of make demo")
    n_skipped = 0
    for options, prompt, text in found:
        wanted = {**defaults, **options}
        if prompt != wanted["PROMPT"]:
            sys.exit(f"readme: shows the prompt {prompt!r}, but make demo asks {wanted['PROMPT']!r}")
        if not fetched(wanted["MODEL"]).exists():
            print(f"readme: skipped: {fetched(wanted['MODEL'])} is missing")
            n_skipped += 1
            continue
        answer = demo(wanted["MODEL"], prompt)
        is_same = answer.startswith(text[:-1].rstrip()) if text.endswith("…") else answer == text
        if not text or not is_same:
            sys.exit(f"readme: README.md shows\n  {text}\nbut the demo prints\n  {answer}")
        print(f"readme: the sample of {wanted['MODEL']} is what the demo prints")
    sys.exit(77 if n_skipped == len(found) else 0)


main()
