"""Fixtures: a tiny checkpoint with random weights, written by tools/make_checkpoint.c, and its model;
paths of the reference data beside the checkout."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

import quip
from quip.genai import converter

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHARED = pathlib.Path(os.environ.get("QUIP_SHARED", ROOT.parent / "shared"))
SIZES = "layers=2 d_model=64 d_ff=96 heads=4 kv_heads=2 head_dim=16 vocab=300 random=1"


def need_shared(name):
    """A path of the reference data. If it is missing, the test is skipped, or fails if CI=true."""
    path = SHARED / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    program = folder / "make_checkpoint"
    source = ROOT / "tools/make_checkpoint.c"
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-o", program, source], check=True)
    command = [program, folder / "tiny", "family=llama", *SIZES.split()]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "tiny"


@pytest.fixture(scope="session")
def model_path(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    config = converter.ConversionConfig(checkpoint, "safetensors", None, "cpu", folder)
    converter.convert_checkpoint(config)
    return folder / "model.tflite"


@pytest.fixture
def model(model_path):
    with quip.Model(model_path) as model:
        yield model


def write_safetensors(path, tensors):
    """Float32 arrays by name."""
    header, at = {}, 0
    for name, array in tensors.items():
        end = at + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_adapter(folder, n_layers=2, d_model=64, rank=4, seed=1):
    """A PEFT adapter of attention for a model of these sizes."""
    folder.mkdir()
    random, tensors = np.random.default_rng(seed), {}
    for layer in range(n_layers):
        for module in ("q_proj", "o_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for side, shape in (("A", (rank, d_model)), ("B", (d_model, rank))):
                values = random.standard_normal(shape).astype(np.float32)
                tensors[f"{name}.lora_{side}.weight"] = values
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def adapter_path(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("adapters") / "tiny")
