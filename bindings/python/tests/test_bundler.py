import dataclasses
import json
import os
import subprocess
import zipfile

import pytest

import quip
from conftest import need_shared
from quip._program import PROGRAM
from quip.genai import bundler


def config(model_path, tokenizer, out, **fields):
    fields = {"start_token": "<s>", "stop_tokens": ["</s>"], **fields}
    return bundler.BundleConfig(
        tflite_model=str(model_path),
        tokenizer_model=str(tokenizer),
        output_filename=str(out),
        **fields,
    )


@pytest.fixture
def tokenizer(checkpoint):
    return checkpoint / "tokenizer.model"


def test_bundle_is_a_model(model_path, tokenizer, tmp_path):
    assert bundler.create_bundle(config(model_path, tokenizer, tmp_path / "a")) is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.task"]
    with zipfile.ZipFile(tmp_path / "a.task") as archive:
        assert {"TF_LITE_PREFILL_DECODE", "TOKENIZER_MODEL", "METADATA"} <= set(archive.namelist())
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert archive.read("TOKENIZER_MODEL") == tokenizer.read_bytes()
    with quip.Model(tmp_path / "a.task") as bundle, quip.Model(model_path) as model:
        assert bundle.info.n_parameters == model.info.n_parameters
        ids = model.tokenize("one")
        assert (bundle.session().prefill_logits(ids) == model.session().prefill_logits(ids)).all()


def test_prompts_and_stops(model_path, tokenizer, tmp_path):
    out = tmp_path / "b.task"
    fields = {f"prompt_{p}_{r}": f"<{p}-{r}>" for p in ("prefix", "suffix") for r in ("user", "model")}
    bundler.create_bundle(
        config(model_path, tokenizer, out, stop_tokens=["-x-", "=y="], end_role_token="--e", **fields)
    )
    said = subprocess.run([PROGRAM, "inspect", out], capture_output=True, text=True, check=True)
    for text in [*fields.values(), "-x-", "=y=", "--e"]:
        assert text in said.stdout
    with quip.Model(out) as bundle, quip.Model(model_path) as model:
        assert bundle.info.has_template
        session, raw = bundle.session(), model.session()
        session.append(quip.Role.USER, "one")
        raw.append(quip.Role.NONE, "<prefix-user>one")
        assert session.position == raw.position


def test_old_prompt_fields(model_path, tokenizer, tmp_path):
    old, new = tmp_path / "old.task", tmp_path / "new.task"
    bundler.create_bundle(
        config(model_path, tokenizer, old, prompt_prefix="<u>", prompt_suffix="</u>\n<m>")
    )
    bundler.create_bundle(
        config(
            model_path,
            tokenizer,
            new,
            prompt_prefix_user="<u>",
            prompt_suffix_user="</u>\n",
            prompt_prefix_model="<m>",
        )
    )
    assert old.read_bytes() == new.read_bytes()


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"stop_tokens": "</s>"}, "stop_tokens must be a list of strings."),
        ({"stop_tokens": [1]}, "stop_tokens must be a list of strings."),
        ({"stop_tokens": []}, "stop_tokens must be non-empty."),
        ({"system_prompt": "x", "prompt_prefix_system": "y"}, "mutually exclusive"),
        ({"prompt_prefix": "x", "prompt_prefix_user": "y"}, "exclude those of roles"),
    ],
)
def test_checks(fields, word):
    with pytest.raises(ValueError, match=word):
        config("m", "t", "o", **fields)


def test_config_is_frozen(tokenizer):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config("m", tokenizer, "o").start_token = "x"


def test_failures_leave_nothing(model_path, tokenizer, tmp_path):
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk" * 500)
    for wrong in [config(junk, tokenizer, tmp_path / "o"), config(model_path, junk, tmp_path / "o")]:
        with pytest.raises(quip.Error, match="junk"):
            bundler.create_bundle(wrong)
    assert os.listdir(tmp_path) == ["junk"]


@pytest.mark.parametrize("version", ["v0.10.21", "v0.10.35"])
def test_scripts_of_the_original(version, tmp_path):
    """The arguments of MediaPipe's bundler give a bundle with the same entries."""
    folder = need_shared(f"data/interop/GEMMA_2B-task-{version}")
    arguments = json.loads((folder / "config.json").read_text())["arguments"]
    for name in ("tflite_model", "tokenizer_model"):
        arguments[name] = folder / arguments[name]
    arguments["output_filename"] = tmp_path / "model.task"
    bundler.create_bundle(bundler.BundleConfig(**arguments))
    names = ["TF_LITE_PREFILL_DECODE", "TOKENIZER_MODEL"]
    if version == "v0.10.35":  # in older versions, roles had no templates
        names.append("METADATA")
    with zipfile.ZipFile(tmp_path / "model.task") as ours:
        with zipfile.ZipFile(folder / "model.task") as theirs:
            for name in names:
                assert ours.read(name) == theirs.read(name), name
    ours, theirs = quip.Model(tmp_path / "model.task"), quip.Model(folder / "model.task")
    texts = [m.session(max_output_tokens=8, greedy=True).ask("the hen") for m in (ours, theirs)]
    assert texts[0] == texts[1]
