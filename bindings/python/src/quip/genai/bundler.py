"""Writes a .task file with a model, its tokenizer and its prompt settings, with the names of
mediapipe.tasks.python.genai.bundler. The native `quip bundle` does the work."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from .. import _program
from .._library import StrPath

__all__ = ["BundleConfig", "create_bundle"]


@dataclass(frozen=True)
class BundleConfig:
    """The contents of a bundle: the fields of MediaPipe, including those of older versions."""

    tflite_model: StrPath  # a model file of `quip convert` or of MediaPipe's converter
    tokenizer_model: StrPath  # SentencePiece
    start_token: str
    stop_tokens: List[str]
    output_filename: StrPath  # ".task" is appended if it is missing
    enable_bytes_to_unicode_mapping: bool = False
    system_prompt: Optional[str] = None
    prompt_prefix_user: Optional[str] = None
    prompt_suffix_user: Optional[str] = None
    prompt_prefix_model: Optional[str] = None
    prompt_suffix_model: Optional[str] = None
    prompt_prefix_system: Optional[str] = None
    prompt_suffix_system: Optional[str] = None
    user_role_token: Optional[str] = None
    system_role_token: Optional[str] = None
    model_role_token: Optional[str] = None
    end_role_token: Optional[str] = None
    tflite_embedder: Optional[StrPath] = None
    tflite_per_layer_embedder: Optional[StrPath] = None
    tflite_vision_encoder: Optional[StrPath] = None
    tflite_vision_adapter: Optional[StrPath] = None
    # Up to 0.10.21: the text before and after the user's. Roles had no texts of their own.
    prompt_prefix: Optional[str] = None
    prompt_suffix: Optional[str] = None

    def __post_init__(self) -> None:
        tokens = self.stop_tokens
        if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
            raise ValueError("stop_tokens must be a list of strings.")
        if not tokens:
            raise ValueError("stop_tokens must be non-empty.")
        if self.system_prompt and (self.prompt_prefix_system or self.prompt_suffix_system):
            raise ValueError("system_prompt and prompt_*_system are mutually exclusive.")
        if (self.prompt_prefix or self.prompt_suffix) and any(
            getattr(self, f"prompt_{place}_{role}")
            for place in ("prefix", "suffix")
            for role in ("user", "model")
        ):
            raise ValueError("prompt_prefix and prompt_suffix exclude those of roles.")


def create_bundle(config: BundleConfig) -> None:
    """Write the bundle. The file appears when it is complete."""
    if config.prompt_prefix or config.prompt_suffix:
        user_suffix, model_prefix = _split(config.prompt_suffix or "")
        config = dataclasses.replace(
            config,
            prompt_prefix=None,
            prompt_suffix=None,
            prompt_prefix_user=config.prompt_prefix,
            prompt_suffix_user=user_suffix,
            prompt_prefix_model=model_prefix,
        )
    options: Dict[str, Any] = {
        "tokenizer": config.tokenizer_model,
        "start-token": config.start_token,
        "stop-token": config.stop_tokens,
        "bytes-to-unicode": config.enable_bytes_to_unicode_mapping,
        "system-prompt": config.system_prompt or None,
        "embedder": config.tflite_embedder,
        "per-layer-embedder": config.tflite_per_layer_embedder,
        "vision-encoder": config.tflite_vision_encoder,
        "vision-adapter": config.tflite_vision_adapter,
    }
    for role in ("user", "model", "system"):
        for place in ("prefix", "suffix"):
            text = getattr(config, f"prompt_{place}_{role}")
            options[f"prompt-{place}-{role}"] = text or None
    for role in ("user", "system", "model", "end"):
        options[f"{role}-role-token"] = getattr(config, f"{role}_role_token") or None
    out = os.fspath(config.output_filename)
    if not out.endswith(".task"):
        out += ".task"
    _program.run("bundle", options, [config.tflite_model, out])


def _split(suffix: str) -> tuple[str, str]:
    """Split an old prompt_suffix into the end of the user's turn and the begin of the model's, after
    its first line break, as MediaPipe does."""
    line, newline, rest = suffix.partition("\n")
    return (line + newline, rest) if newline else ("", suffix)
