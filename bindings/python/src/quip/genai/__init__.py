"""The names of MediaPipe's GenAI tasks: a script needs another import only.

from quip.genai import bundler, converter      # was: from mediapipe.tasks.python.genai import …
from quip.genai import LlmInference            # as on Android; MediaPipe has none in Python
"""

from . import bundler, converter
from .llm_inference import (
    Backend,
    ErrorListener,
    GraphOptions,
    LlmInference,
    LlmInferenceOptions,
    LlmInferenceSession,
    LlmInferenceSessionOptions,
    ProgressListener,
    PromptTemplates,
)

__all__ = [
    "Backend",
    "ErrorListener",
    "GraphOptions",
    "LlmInference",
    "LlmInferenceOptions",
    "LlmInferenceSession",
    "LlmInferenceSessionOptions",
    "ProgressListener",
    "PromptTemplates",
    "bundler",
    "converter",
]
