import json
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import quip
from conftest import SHARED, need_shared
from quip import _program
from quip.genai import converter

INTEROP = SHARED / "data/interop"


def config(checkpoint, folder, **fields):
    return converter.ConversionConfig(
        input_ckpt=str(checkpoint),
        ckpt_format=fields.pop("ckpt_format", "safetensors"),
        model_type="",
        backend=fields.pop("backend", "cpu"),
        output_dir=str(folder),
        **fields,
    )


def test_defaults(tmp_path):
    c = config("x", tmp_path / "new/folder")
    assert (c.is_quantized, c.is_symmetric, c.combine_file_only) == (False, True, False)
    assert c.attention_quant_bits == c.feedforward_quant_bits == c.embedding_quant_bits == 8
    assert (c.vocab_model_file, c.obfuscate, c.fp16_scale, c.block_size) == ("", False, None, 0)
    assert c.output_tflite_file == tmp_path / "new/folder/model.tflite"
    assert (c.lora_ckpt, c.lora_rank, c.lora_alpha) == (None,) * 3
    assert (c.use_fake_weights, c.use_dynamic_ple, c.use_mse_quant) == (False, True, False)
    assert c.apply_srq is False
    assert (tmp_path / "new/folder").is_dir()


@pytest.mark.parametrize(
    "fields, kind, word",
    [
        ({"backend": "tpu"}, ValueError, "Unsupported backend: tpu"),
        ({"attention_quant_bits": 3}, ValueError, "attention_quant_bits is 3"),
        ({"block_size": 64}, ValueError, "Block size must be one of"),
        ({"use_mse_quant": True, "is_symmetric": False}, ValueError, "is_symmetric"),
        ({"lora_ckpt": "x"}, ValueError, "lora_rank"),
        ({"lora_rank": 4}, ValueError, "lora_ckpt"),
        ({"lora_ckpt": "x", "lora_rank": 0}, ValueError, "lora_rank"),
        ({"lora_alpha": 4}, ValueError, "lora_alpha"),
        ({"merge_lora": True}, ValueError, "merge_lora"),
        ({"fp16_scale": 0.5}, quip.UnsupportedError, "fp16_scale"),
        ({"is_quantized": True}, quip.UnsupportedError, "is_quantized"),
        ({"combine_file_only": True}, quip.UnsupportedError, "combine_file_only"),
        ({"use_fake_weights": True}, quip.UnsupportedError, "make_checkpoint"),
        ({"submodel_type": "x"}, quip.UnsupportedError, "submodel_type"),
        ({"image_encoder_file": "x"}, quip.UnsupportedError, "images"),
        ({"no_such_field": 1}, TypeError, "no_such_field"),
    ],
)
def test_checks(tmp_path, fields, kind, word):
    with pytest.raises(kind, match=word):
        config("x", tmp_path / "out", **fields)
    assert not (tmp_path / "out").exists()


def test_more_checks(tmp_path):
    with pytest.raises(ValueError, match="Unknown checkpoint format: onnx"):
        converter.ConversionConfig("x", "onnx", "GEMMA_2B", "cpu", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must not point to an existing file"):
        config("x", tmp_path / "file")
    with pytest.warns(UserWarning, match="obfuscate"):
        config("x", tmp_path, obfuscate=True)
    with pytest.raises(quip.Error, match="absent"):
        converter.convert_checkpoint(config(tmp_path / "absent", tmp_path))


def test_bits_and_progress(checkpoint, tmp_path):
    seen = []
    for bits, weights in [((8, 8, 8), "int8"), ((4, 4, 4), "int4"), ((8, 4, 8), "mixed")]:
        c = config(
            checkpoint,
            tmp_path,
            attention_quant_bits=bits[0],
            feedforward_quant_bits=bits[1],
            embedding_quant_bits=bits[2],
            output_tflite_file=tmp_path / "a new folder" / weights,
        )
        assert converter.convert_checkpoint(c, lambda *step: seen.append(step)) is None
        with quip.Model(tmp_path / "a new folder" / weights) as model:
            assert model.info.weights == weights
    done, total, tensor = seen[-1]
    assert done == total > 0 and tensor.endswith("weight")
    # the model file alone: no bin files, no layer_info.txt
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["int4", "int8", "mixed"]


def test_bare_file_name(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    converter.convert_checkpoint(config(checkpoint, "out", output_tflite_file="model.bin"))
    assert (tmp_path / "model.bin").stat().st_size > 0


def test_interrupted_conversion_leaves_nothing(checkpoint, tmp_path):
    """Run in a process group, because Ctrl-C in a terminal sends the signal to all processes."""
    script = f"""
import os, signal, sys
from quip import _program
from quip.genai import converter
c = converter.ConversionConfig({str(checkpoint)!r}, "safetensors", "", "cpu", {str(tmp_path)!r})
def stop(done, total, tensor):
    raise KeyboardInterrupt
try:
    converter.convert_checkpoint(c, stop)
except KeyboardInterrupt:
    print(os.listdir({str(tmp_path)!r}))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    left = [] if "model.tflite" not in said.stdout else ["model.tflite"]  # it had finished
    assert said.stdout == f"{left}\n", said


def test_without_a_console(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    converter.convert_checkpoint(config(checkpoint, tmp_path))
    assert (tmp_path / "model.tflite").exists()


def test_program_that_is_killed_is_an_error(checkpoint, tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(_program, "PROGRAM", program)
    with pytest.raises(quip.Error, match="quip convert was ended by signal 9"):
        converter.convert_checkpoint(config(checkpoint, tmp_path))


def test_what_a_conversion_says_is_a_warning(checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    (folder / "generation_config.json").write_text('{"num_beams": 4}')
    with pytest.warns(UserWarning, match="checkpoint: tokens are drawn without its num_beams"):
        converter.convert_checkpoint(config(folder, tmp_path))
    assert (tmp_path / "model.tflite").exists()


def test_program_is_installed(model_path):
    program = pathlib.Path(sys.executable).parent / "quip"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"quip {quip.__version__}\n"
    command = [sys.executable, "-m", "quip", "run", str(model_path), "one", "-n", "8", "--greedy"]
    said = subprocess.run(command, capture_output=True, check=True)
    assert said.stdout.decode().rstrip("\n") == quip.Model(model_path).session(
        max_output_tokens=8, greedy=True
    ).ask("one").rstrip("\n")
    with subprocess.Popen([program, "chat", model_path], stdin=subprocess.PIPE) as chat:
        chat.send_signal(signal.SIGTERM)  # reaches the native program: it is the same process
    assert chat.returncode == -signal.SIGTERM


def originals():
    """Names of configurations, without fp32, which no arguments select."""
    names = (p.parent.name for p in INTEROP.glob("*-[cg]pu-*/config.json"))
    return sorted(name for name in names if not name.endswith("-fp32"))


# config.json of these families, without the sizes.
FAMILIES = {
    "GEMMA_2B": {"model_type": "gemma"},
    "GEMMA2_2B": {"model_type": "gemma2"},
    "PHI_2": {"model_type": "phi", "partial_rotary_factor": 0.4},
    "STABLELM_4E1T_3B": {"model_type": "stablelm", "tie_word_embeddings": False},
    "FALCON_RW_1B": {
        "model_type": "falcon",
        "alibi": True,
        "bias": True,
        "multi_query": False,
        "parallel_attn": False,
        "tie_word_embeddings": False,
    },
}


def small_checkpoint(original, folder):
    """Put the checkpoint into a folder with a config.json, because it is smaller than its type.
    Returns MediaPipe's arguments with these paths."""
    arguments, sizes = original["arguments"], original["dimensions"]
    checkpoint = INTEROP / "sources" / arguments["input_ckpt"]
    (folder / checkpoint.name).symlink_to(checkpoint.resolve())
    config = {
        **FAMILIES[arguments["model_type"]],
        "num_hidden_layers": sizes["num_layers"],
        "num_attention_heads": sizes["num_heads"],
        "num_key_value_heads": sizes["num_kv_heads"],
        "ffn_hidden_size": sizes["intermediate_size"],
        "query_pre_attn_scalar": sizes["head_dim"],
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    arguments["input_ckpt"] = str(folder / checkpoint.name)
    for key in ("vocab_model_file", "lora_ckpt"):
        if key in arguments:
            arguments[key] = str(INTEROP / "sources" / arguments[key])
    for key in ("output_tflite_file", "lora_output_tflite_file"):
        if key in arguments:
            arguments[key] = str(folder / arguments[key])
    return arguments


@pytest.mark.parametrize("name", originals() or ["GEMMA_2B-cpu-q8"])
def test_scripts_of_the_original(name, tmp_path):
    """The arguments of MediaPipe's converter give a model with the logits of its file."""
    folder = need_shared(f"data/interop/{name}")
    original = json.loads((folder / "config.json").read_text())
    arguments = small_checkpoint(original, tmp_path)
    asked = converter.ConversionConfig(output_dir=str(tmp_path), **arguments)
    if name.endswith("asym") and "-cpu-" in name:
        with pytest.raises(quip.UnsupportedError, match="zero point"):
            converter.convert_checkpoint(asked)
        return
    converter.convert_checkpoint(asked)
    theirs, ours = quip.Model(folder / "model.bin"), quip.Model(tmp_path / "model.bin")
    ids = ours.tokenize("the hen and the light of day")
    assert ids == theirs.tokenize("the hen and the light of day")
    logits = [m.session().prefill_logits(ids) for m in (theirs, ours)]
    assert np.array_equal(*logits)
    if "lora_ckpt" not in arguments:
        return
    # their LoRA file is scrambled, so compare with the adapter itself, which has no alpha
    peft, rank = tmp_path / "peft", arguments["lora_rank"]
    peft.mkdir()
    (peft / "adapter_model.safetensors").symlink_to(arguments["lora_ckpt"])
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (peft / "adapter_config.json").write_text(json.dumps(settings))
    adapters = [ours.adapter(path) for path in (peft, arguments["lora_output_tflite_file"])]
    tuned = [ours.session(adapter=adapter).prefill_logits(ids) for adapter in adapters]
    effect, error = (np.square(x - tuned[0]).mean() for x in (logits[0], tuned[1]))
    assert error < effect / 100  # from binary16 in the file and from int8 activations


def test_rank_and_alpha_of_an_adapter(tmp_path):
    """The arguments are used; one that contradicts the adapter is an error."""
    source = need_shared("data/interop/GEMMA_2B-gpu-lora")
    original = json.loads((source / "config.json").read_text())
    arguments = {**small_checkpoint(original, tmp_path), "output_dir": str(tmp_path)}
    lora = tmp_path / "lora"
    lora.mkdir()
    weights = lora / "adapter_model.safetensors"
    weights.symlink_to(pathlib.Path(arguments["lora_ckpt"]).resolve())
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')

    def logits(**fields):
        asked = converter.ConversionConfig(**{**arguments, **fields})
        converter.convert_checkpoint(asked)
        with quip.Model(asked.output_tflite_file) as model:
            adapter = model.adapter(asked.lora_output_tflite_file)
            return model.session(adapter=adapter).prefill_logits(range(5, 20))

    own = logits(lora_ckpt=lora)
    assert np.array_equal(own, logits(lora_ckpt=weights))
    assert np.array_equal(own, logits(lora_alpha=8))
    assert not np.array_equal(own, logits())
    with pytest.raises(ValueError, match="lora_rank is 8, expected 4"):
        logits(lora_ckpt=lora, lora_rank=8)
    with pytest.raises(quip.Error, match="8"):
        logits(lora_rank=8)


def test_adapter_that_is_not_there_shows_first(checkpoint, tmp_path):
    for lora_ckpt in (tmp_path, tmp_path / "absent"):
        asked = config(checkpoint, tmp_path, lora_ckpt=lora_ckpt, lora_rank=4)
        with pytest.raises(FileNotFoundError, match="safetensors"):
            converter.convert_checkpoint(asked)
    assert list(tmp_path.iterdir()) == []


def test_merged_adapter(checkpoint, adapter_path, tmp_path):
    merged, wanted = tmp_path / "merged.bin", tmp_path / "wanted.bin"
    converter.convert_checkpoint(
        config(
            checkpoint,
            tmp_path,
            lora_ckpt=adapter_path,
            lora_rank=4,
            merge_lora=True,
            output_tflite_file=merged,
        )
    )
    options = {"original": True, "merge-adapter": adapter_path}
    _program.run("convert", options, [checkpoint, wanted])
    assert merged.read_bytes() == wanted.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merged.bin", "wanted.bin"]


def test_ckpt_format(checkpoint, tmp_path):
    asked = config(checkpoint, tmp_path, ckpt_format="pytorch")
    with pytest.raises(quip.IOError, match="no pytorch weights"):
        converter.convert_checkpoint(asked)
    asked = config(checkpoint / "model.safetensors", tmp_path, ckpt_format="pytorch")
    with pytest.raises(quip.ArgumentError, match="expected pytorch"):
        converter.convert_checkpoint(asked)


def test_int4_of_ones_own(checkpoint, tmp_path):
    """Int4 is MediaPipe's, unless original=False selects the more accurate one."""
    files = []
    for original in (True, False):
        out = tmp_path / f"original-{original}"
        fields = {f"{part}_quant_bits": 4 for part in ("attention", "feedforward", "embedding")}
        converter.convert_checkpoint(
            config(checkpoint, tmp_path, output_tflite_file=out, original=original, **fields)
        )
        with quip.Model(out) as model:
            assert model.info.weights == "int4"
        files.append(out.read_bytes())
    assert files[0] != files[1]

