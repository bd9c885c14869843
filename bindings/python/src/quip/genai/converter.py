"""Converts a checkpoint to a model file, with the names of mediapipe.tasks.python.genai.converter.

The native `quip convert` does the work. It streams tensors from one file to the other in a few
megabytes of memory and writes no other files. The model file appears when it is complete.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import warnings
from typing import Any, Callable, Dict, Optional

from .. import _program
from .._library import StrPath
from ..errors import UnsupportedError

__all__ = ["ConversionConfig", "convert_checkpoint"]


class ConversionConfig:
    """What to convert, and how: the fields of MediaPipe with its defaults. A field that MediaPipe
    ignores either works here or is refused with a message."""

    def __init__(
        self,
        input_ckpt: StrPath,  # a file, a folder, or a pattern of files
        ckpt_format: str,  # safetensors, pytorch or gguf
        model_type: Optional[str],  # GEMMA_2B, …; None or "": as config.json says
        backend: str,  # cpu or gpu
        output_dir: StrPath,
        *,  # the order of the other fields differs between versions of MediaPipe
        is_quantized: bool = False,
        is_symmetric: bool = True,
        attention_quant_bits: int = 8,
        feedforward_quant_bits: int = 8,
        embedding_quant_bits: int = 8,
        combine_file_only: bool = False,
        vocab_model_file: StrPath = "",
        obfuscate: bool = False,
        output_tflite_file: Optional[StrPath] = None,
        fp16_scale: Optional[float] = None,
        block_size: int = 0,
        lora_ckpt: Optional[StrPath] = None,
        lora_rank: Optional[int] = None,
        lora_alpha: Optional[float] = None,
        lora_output_tflite_file: Optional[StrPath] = None,
        lora_main_model_type: Optional[str] = None,
        submodel_type: Optional[str] = None,
        image_encoder_file: Optional[StrPath] = None,
        image_adapter_file: Optional[StrPath] = None,
        use_fake_weights: bool = False,
        use_dynamic_ple: bool = True,  # for Gemma 3n only
        use_mse_quant: bool = False,
        apply_srq: Optional[bool] = None,
        original: bool = True,  # False: more accurate int4, which only Quip reads
        merge_lora: bool = False,  # add all modules of lora_ckpt to the weights; write no LoRA file
    ) -> None:
        self.input_ckpt = input_ckpt
        self.ckpt_format = ckpt_format
        self.model_type = model_type
        self.backend = backend
        self.output_dir = output_dir
        self.is_quantized = is_quantized
        self.is_symmetric = is_symmetric
        self.attention_quant_bits = attention_quant_bits
        self.feedforward_quant_bits = feedforward_quant_bits
        self.embedding_quant_bits = embedding_quant_bits
        self.combine_file_only = combine_file_only
        self.vocab_model_file = vocab_model_file
        self.obfuscate = obfuscate
        self.output_tflite_file: StrPath = (
            output_tflite_file or pathlib.Path(output_dir) / "model.tflite"
        )
        self.fp16_scale = fp16_scale
        self.block_size = block_size
        self.lora_ckpt = lora_ckpt
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_output_tflite_file: StrPath = (
            lora_output_tflite_file or pathlib.Path(output_dir) / "lora.tflite"
        )
        self.lora_main_model_type = lora_main_model_type
        self.submodel_type = submodel_type
        self.image_encoder_file = image_encoder_file
        self.image_adapter_file = image_adapter_file
        self.use_fake_weights = use_fake_weights
        self.use_dynamic_ple = use_dynamic_ple
        self.use_mse_quant = use_mse_quant
        self.original = original
        self.merge_lora = merge_lora
        self.apply_srq = is_quantized if apply_srq is None else apply_srq
        self._check()
        self._refuse()
        os.makedirs(output_dir, exist_ok=True)
        for path in (self.output_tflite_file, self.lora_output_tflite_file):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)

    def _check(self) -> None:
        """Check what MediaPipe checks, some of it only after hours."""
        if self.ckpt_format not in ("safetensors", "pytorch", "gguf"):
            raise ValueError(f"Unknown checkpoint format: {self.ckpt_format}")
        if self.backend not in ("cpu", "gpu"):
            raise ValueError(f"Unsupported backend: {self.backend}")
        if os.path.isfile(self.output_dir):
            raise ValueError("Output directory must not point to an existing file.")
        for name in ("attention", "feedforward", "embedding"):
            bits = getattr(self, f"{name}_quant_bits")
            if bits not in (8, 4):
                raise ValueError(f"{name}_quant_bits is {bits!r}; must be 8 or 4")
        if self.block_size not in (0, 32, 128):
            raise ValueError("Block size must be one of (0 (off), 32, 128)")
        if self.use_mse_quant and not self.is_symmetric:
            raise ValueError("use_mse_quant needs is_symmetric=True")
        if (self.lora_ckpt is None) != (self.lora_rank is None):
            raise ValueError("expected both lora_ckpt and lora_rank, or neither")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise ValueError(f"lora_rank is {self.lora_rank}; must be at least 1")
        for name in ("lora_alpha", "merge_lora"):
            if self.lora_ckpt is None and getattr(self, name) not in (None, False):
                raise ValueError(f"{name} needs lora_ckpt")

    def _refuse(self) -> None:
        """Refuse what is not supported, and say what to do instead."""
        if self.fp16_scale not in (None, 1):
            raise UnsupportedError(
                f"fp16_scale is {self.fp16_scale}; must be None or 1: activations are float32 and "
                "do not overflow, so weights are not scaled"
            )
        if self.is_quantized or self.apply_srq:
            raise UnsupportedError(
                "is_quantized and apply_srq need a checkpoint of integers, which is not supported; "
                "use the checkpoint that it was made from"
            )
        if self.combine_file_only:
            raise UnsupportedError(
                "combine_file_only is not supported: conversion is one step and writes no bin files"
            )
        if self.use_fake_weights:
            raise UnsupportedError(
                "use_fake_weights is not supported; use tools/make_checkpoint.c"
            )
        for name in ("lora_main_model_type", "submodel_type"):
            if getattr(self, name):
                raise UnsupportedError(f"{name}: models inside models are not supported")
        for name in ("image_encoder_file", "image_adapter_file"):
            if getattr(self, name):
                raise UnsupportedError(f"{name}: images are not supported")
        if self.obfuscate:
            warnings.warn("obfuscate has no effect, as in MediaPipe", stacklevel=3)


def convert_checkpoint(
    config: ConversionConfig, on_progress: Optional[Callable[[int, int, str], None]] = None
) -> None:
    """Convert the model, and then its adapter if there is one. Progress is shown as a bar in a
    terminal, or reported to on_progress(bytes done, bytes in total, tensor)."""
    bits = [config.attention_quant_bits, config.feedforward_quant_bits, config.embedding_quant_bits]
    options: Dict[str, Any] = {
        "json": True,
        "original": config.original and not config.block_size and 4 in bits,
        "format": config.ckpt_format,
        "model-type": config.model_type or None,
        "backend": config.backend,
        "attention-bits": config.attention_quant_bits,
        "feedforward-bits": config.feedforward_quant_bits,
        "embedding-bits": config.embedding_quant_bits,
        "asymmetric": not config.is_symmetric,
        "mse": config.use_mse_quant,
        "block-size": config.block_size or None,
        "tokenizer": config.vocab_model_file or None,
    }
    model = config.output_tflite_file
    if config.lora_ckpt is None:
        return _run_with_bar(options, [config.input_ckpt, model], on_progress)
    with tempfile.TemporaryDirectory() as folder:
        adapter = _adapter_folder(config, config.lora_ckpt, pathlib.Path(folder))
        if config.merge_lora:
            options["merge-adapter"] = adapter
        _run_with_bar(options, [config.input_ckpt, model], on_progress)
        if not config.merge_lora:
            options = {"json": True, "adapter-of": model}
            _run_with_bar(options, [adapter, config.lora_output_tflite_file], on_progress)


def _adapter_folder(
    config: ConversionConfig, lora_ckpt: StrPath, folder: pathlib.Path
) -> pathlib.Path:
    """Write the adapter as a PEFT folder: a link to its weights, and its rank and alpha. These are
    read from adapter_config.json. Without that file the config has them, and the default of alpha
    is the rank, so that nothing is scaled, as in MediaPipe."""
    path = pathlib.Path(lora_ckpt).absolute()
    weights = path / "adapter_model.safetensors" if path.is_dir() else path
    settings: Dict[str, Any] = {"peft_type": "LORA", "r": config.lora_rank}
    settings["lora_alpha"] = config.lora_rank
    if (weights.parent / "adapter_config.json").exists():
        settings = json.loads((weights.parent / "adapter_config.json").read_text())
        if settings.get("r") != config.lora_rank:
            raise ValueError(f"lora_rank is {config.lora_rank}, expected {settings.get('r')}")
    if config.lora_alpha is not None:
        settings["lora_alpha"] = config.lora_alpha
    if not weights.exists():
        raise FileNotFoundError(f"{weights}: expected a PEFT folder or its safetensors file")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").symlink_to(weights)
    return folder


def _run_with_bar(
    options: Dict[str, Any],
    words: list[StrPath],
    on_progress: Optional[Callable[[int, int, str], None]],
) -> None:
    from tqdm import tqdm

    is_hidden = bool(on_progress) or sys.stderr is None  # as in programs without a console
    with tqdm(
        total=None,
        unit="B",
        unit_scale=True,
        desc=os.path.basename(words[-1]),
        disable=is_hidden or None,  # None: unless stderr is a terminal
        leave=False,
    ) as bar:

        def on_line(line: Dict[str, Any]) -> None:
            if line.get("event") != "progress":
                return
            if on_progress:
                on_progress(int(line["done"]), int(line["total"]), line["tensor"])
            bar.total = line["total"]
            bar.update(line["done"] - bar.n)

        _program.run("convert", options, words, on_line)
