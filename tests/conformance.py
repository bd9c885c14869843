#!/usr/bin/env python3
"""conformance.py BUILD [--write]: the program gives the results of tests/conformance.txt. The tests of
every binding run the same list. --write replaces the results by those of the program."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

LIST = pathlib.Path(__file__).with_name("conformance.txt")
FLAGS = {"greedy": "--greedy", "no_template": "--raw"}
NAMES = {"n_context": "--context"}
REMEDY = "; --context N makes it larger"  # the program's own words


def unescape(text):
    return re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text)


def escape(text):
    return re.sub(r"[\x00-\x1f\\]", lambda m: f"\\u{ord(m[0]):04x}", text)


def arguments(options):
    """The program's arguments for options of quip_session_options."""
    found = []
    for option in options.split():
        name, value = unescape(option).split("=", 1)
        found += [FLAGS[name]] if name in FLAGS else [NAMES.get(name, "--" + name.replace("_", "-")), value]
    return found


def result(build, models, kind, model, options, text):
    def quip(*command):
        return subprocess.run([build / "quip", *command], capture_output=True, text=True)

    path = models / f"{model}.bin"
    if kind == "tokens":
        return " ".join(quip("tokenize", path, "--no-special", text).stdout.split())
    done = quip("run", path, text, "--json", *arguments(options))
    if kind == "error":
        return escape(done.stderr.strip().removeprefix("quip: ").removesuffix(REMEDY)) if done.returncode else "no error"
    found = json.loads(done.stdout)
    figures = [found["finish_reason"], found["prompt_tokens"], found["output_tokens"]]
    return " ".join(map(str, figures)) + " " + escape(found["text"])


def main(build, write):
    lines, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        models = pathlib.Path(folder)
        for model in ("llama", "gemma3"):
            subprocess.run([build / "tests/tiny_model_file", model, models / f"{model}.bin"], check=True)
        for line in LIST.read_text().split("\n"):
            if line and line[0] != "#":
                *case, expected = line.split("\t")
                found = result(build, models, *case[:3], unescape(case[3]))
                if found != expected and not write:
                    print(f"conformance: {case}: {found!r}, expected {expected!r}")
                    wrong += 1
                line = "\t".join([*case, found])
            lines.append(line)
    if write:
        LIST.write_text("\n".join(lines))
    print(f"conformance: {sum(1 for line in lines if line and line[0] != '#')} cases")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), "--write" in sys.argv))
