"""The list of tests/conformance.txt, which every binding runs."""

import os
import pathlib
import re
import subprocess

import pytest

import quip

from conftest import ROOT

BUILD = pathlib.Path(os.environ.get("QUIP_BUILD", ROOT / "build"))
LIST = ROOT / "tests/conformance.txt"
FLOATS = {"temperature", "top_p", "min_p", "repeat_penalty"}
TEXTS = {"system", "chat_template", "stop"}


def unescape(text):
    return re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text)


def session_options(text):
    options = {}
    for option in text.split():
        name, value = unescape(option).split("=", 1)
        if name in TEXTS:
            options[name] = [value] if name == "stop" else value
        else:
            options[name] = float(value) if name in FLOATS else int(value)
    return {name: bool(v) if name == "greedy" or name == "no_template" else v for name, v in options.items()}


def read_list():
    lines = LIST.read_text(encoding="utf-8").split("\n")
    return [line.split("\t") for line in lines if line and line[0] != "#"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    for kind in ("llama", "gemma3"):
        subprocess.run([BUILD / "tests/tiny_model_file", kind, folder / kind], check=True)
    return folder


@pytest.mark.parametrize("kind,model,options,text,result", read_list())
def test_case(models, kind, model, options, text, result):
    text = unescape(text)
    with quip.Model(models / model) as opened:
        if kind == "tokens":
            assert " ".join(map(str, opened.tokenize(text))) == result
            return
        try:
            with opened.session(**session_options(options)) as chat:
                answer = "".join(chat.say(text))
                r = chat.result
                found = f"{r.finish_reason.name.lower()} {r.n_prompt_tokens} {r.n_output_tokens} {answer}"
        except quip.Error as error:
            found = str(error)
    assert found == unescape(result)
