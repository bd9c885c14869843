import pathlib
import signal
import subprocess
import sys

import pytest

import quip
from quip.genai import converter


def config(checkpoint, folder, **fields):
    return converter.ConversionConfig(
        input_ckpt=str(checkpoint),
        ckpt_format="safetensors",
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
    assert (c.lora_ckpt, c.lora_rank, c.lora_alpha, c.lora_output_tflite_file) == (None,) * 4
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
        ({"lora_alpha": 4}, ValueError, "lora_alpha"),
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
    """In a process of its own, as a terminal's Ctrl-C meets it: all processes get the signal."""
    script = f"""
import os, signal, sys
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
    left = [] if "model.tflite" not in said.stdout else ["model.tflite"]  # it was done already
    assert said.stdout == f"{left}\n", said


def test_program_is_installed(model_path):
    program = pathlib.Path(sys.executable).parent / "quip"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"quip {quip.__version__}\n"
    command = [sys.executable, "-m", "quip", "run", str(model_path), "one", "-n", "8"]
    said = subprocess.run(command, capture_output=True, check=True)
    assert said.stdout.decode().rstrip("\n") == quip.Model(model_path).session(
        max_output_tokens=8
    ).ask("one").rstrip("\n")
    with subprocess.Popen([program, "chat", model_path], stdin=subprocess.PIPE) as chat:
        chat.send_signal(signal.SIGTERM)  # reaches the native program: it is the same process
    assert chat.returncode == -signal.SIGTERM
