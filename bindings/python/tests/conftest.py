"""What the tests share: a tiny checkpoint of random weights, made by tools/make_checkpoint.c, and
its model; paths of the reference data beside the checkout."""

import os
import pathlib
import subprocess

import pytest

import quip
from quip.genai import converter

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHARED = pathlib.Path(os.environ.get("QUIP_SHARED", ROOT.parent / "shared"))
SIZES = "layers=2 d_model=64 d_ff=96 heads=4 kv_heads=2 head_dim=16 vocab=300 random=1"


def need_shared(name):
    """A path of the reference data; without it the test is skipped, under CI=true it fails."""
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
