"""Quip: run language models on your own device.

with quip.Model("gemma.bin") as model, model.session() as chat:
    for piece in chat.say("Why is the sky blue?"):
        print(piece, end="", flush=True)

Model, Session and Error correspond to those of quip.h, which is the manual. quip.genai has the names
of MediaPipe's LLM Inference.
"""

from ._library import lib as _lib
from .errors import (
    ArgumentError,
    CancelledError,
    ContextFullError,
    DeviceError,
    Error,
    FormatError,
    IOError,
    MemoryError,
    UnsupportedError,
)
from .model import Adapter, EmbedOptions, Model, ModelInfo, ModelOptions, Plan, plan_memory
from .session import (
    Answer,
    AsyncAnswer,
    FinishReason,
    Result,
    Role,
    Session,
    SessionOptions,
)

__version__: str = _lib.quip_version().decode()

__all__ = [
    "Adapter",
    "Answer",
    "ArgumentError",
    "AsyncAnswer",
    "CancelledError",
    "ContextFullError",
    "DeviceError",
    "EmbedOptions",
    "Error",
    "FinishReason",
    "FormatError",
    "IOError",
    "MemoryError",
    "Model",
    "ModelInfo",
    "ModelOptions",
    "Plan",
    "Result",
    "Role",
    "Session",
    "SessionOptions",
    "UnsupportedError",
    "plan_memory",
]
