"""LlmInference: the API of MediaPipe's LLM Inference, for Python.

Names, defaults and meaning are those of MediaPipe's Android API. docs/moving-from-mediapipe.md lists
the differences. quip.Model and quip.Session are shorter.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import enum
import threading
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from .._library import Closeable, StrPath
from ..errors import ArgumentError, UnsupportedError
from ..model import Adapter, Model
from ..session import Answer, Result, Role, Session, SessionOptions

ProgressListener = Callable[[str, bool], None]  # (new text, whether it is the last)
ErrorListener = Callable[[BaseException], None]


class Backend(enum.Enum):
    DEFAULT = 0
    CPU = 1
    GPU = 2


@dataclass(frozen=True)
class LlmInferenceOptions:
    model_path: StrPath
    max_tokens: int = 512  # prompt and answer together
    max_top_k: int = 40  # the largest top_k that a session may have
    max_num_images: int = 0
    supported_lora_ranks: Sequence[int] = ()  # any rank is supported
    preferred_backend: Backend = Backend.DEFAULT
    vision_model_options: Optional[object] = None
    audio_model_options: Optional[object] = None


@dataclass(frozen=True)
class PromptTemplates:
    """The text around each role's text. All empty: text is passed on as it is."""

    user_prefix: str = ""
    user_suffix: str = ""
    model_prefix: str = ""
    model_suffix: str = ""
    system_prefix: str = ""
    system_suffix: str = ""


@dataclass(frozen=True)
class GraphOptions:
    include_token_cost_calculator: bool = True
    enable_vision_modality: bool = False
    enable_audio_modality: bool = False


@dataclass(frozen=True)
class LlmInferenceSessionOptions:
    top_k: int = 40
    top_p: float = 1.0
    temperature: float = 0.8
    random_seed: Optional[int] = 0  # None: the library draws one, which `result.seed` reports
    lora_path: Optional[StrPath] = None
    prompt_templates: Optional[PromptTemplates] = None  # None: those of the model file
    graph_options: GraphOptions = field(default_factory=GraphOptions)


def _open_model(options: LlmInferenceOptions) -> Model:
    """The preferred backend is a wish: what the GPU does not run is for the CPU, with a warning."""
    if options.preferred_backend is Backend.GPU:
        try:
            return Model(options.model_path, backend="gpu")
        except UnsupportedError as error:
            warnings.warn(f"{error}; the CPU is used", stacklevel=4)
    return Model(options.model_path)


class LlmInference(Closeable):
    """A model and how its sessions may use it.

    with LlmInference.create_from_model_path("gemma.bin") as llm:
        print(llm.generate_response("Why is the sky blue?"))
    """

    def __init__(self, options: LlmInferenceOptions) -> None:
        if options.max_tokens < 1:
            raise ArgumentError(f"max_tokens is {options.max_tokens}; must be at least 1")
        if options.max_num_images or options.vision_model_options:
            raise UnsupportedError("images are not supported; max_num_images must be 0")
        if options.audio_model_options:
            raise UnsupportedError("sound is not supported; audio_model_options must be None")
        self.options = options
        self.model = _open_model(options)
        self._implicit: Optional[LlmInferenceSession] = None
        self._adapters: Dict[StrPath, Adapter] = {}

    @classmethod
    def create_from_options(cls, options: LlmInferenceOptions) -> LlmInference:
        return cls(options)

    @classmethod
    def create_from_model_path(cls, model_path: StrPath) -> LlmInference:
        return cls(LlmInferenceOptions(model_path))

    def generate_response(self, input_text: str) -> str:
        """Answer one prompt, in a session of its own."""
        with self._new_session() as session:
            session.add_query_chunk(input_text)
            return session.generate_response()

    def generate_response_async(
        self,
        input_text: str,
        listener: Optional[ProgressListener] = None,
        error_listener: Optional[ErrorListener] = None,
    ) -> concurrent.futures.Future[str]:
        """The same on another thread, which calls the listener with each new text and at the end
        with ("", True). After a failure, that is called too, and before it the error listener. The
        future has the whole text, or the error. Its cancel() does not end the work;
        cancel_generate_response_async() of a session does."""
        if self._implicit is not None and self._implicit.is_busy:
            raise RuntimeError(_BUSY)
        if self._implicit is not None:
            self._implicit.close()
        self._implicit = self._new_session()
        return self._implicit._start(listener, error_listener, input_text)

    def _new_session(self) -> LlmInferenceSession:
        return LlmInferenceSession(self, LlmInferenceSessionOptions(top_k=self._top_k()))

    def _adapter(self, path: StrPath) -> Adapter:
        """One adapter for all sessions that use this file."""
        if path not in self._adapters:
            self._adapters[path] = self.model.adapter(path)
        return self._adapters[path]

    def _top_k(self) -> int:
        return min(LlmInferenceSessionOptions.top_k, self.options.max_top_k)

    def size_in_tokens(self, text: str) -> int:
        """The number of tokens of a text, without template and beginning-of-sequence token."""
        return len(self.model.tokenize(text, with_special=not self.model.info.has_template))

    def close(self) -> None:
        """Close the model. Sessions keep what they need of it."""
        if self._implicit is not None:
            self._implicit.close()
        for adapter in self._adapters.values():
            adapter.close()
        self._adapters.clear()
        self.model.close()


_BUSY = "Previous invocation still processing. Wait for done=true."


class LlmInferenceSession(Closeable):
    """A conversation: chunks of the user's turn, then an answer, then more chunks."""

    def __init__(
        self, llm_inference: LlmInference, options: Optional[LlmInferenceSessionOptions] = None
    ) -> None:
        self._options = options or LlmInferenceSessionOptions(top_k=llm_inference._top_k())
        self._llm = llm_inference
        self._running = threading.Lock()  # held while another thread generates an answer
        self._is_cancelled = False  # before that thread has begun to generate, too
        self._last_role: Optional[str] = None  # used if there are prompt_templates
        self.session = self._open(self._options)

    @classmethod
    def create_from_options(
        cls, llm_inference: LlmInference, options: Optional[LlmInferenceSessionOptions] = None
    ) -> LlmInferenceSession:
        return cls(llm_inference, options)

    def _open(self, options: LlmInferenceSessionOptions) -> Session:
        adapter = self._llm._adapter(options.lora_path) if options.lora_path else None
        return self._llm.model.session(adapter=adapter, **self._c_options(options))

    def _c_options(self, options: LlmInferenceSessionOptions) -> SessionOptions:
        limits = self._llm.options
        if not 1 <= options.top_k <= limits.max_top_k:
            raise ArgumentError(
                f"top_k is {options.top_k}; must be 1 to max_top_k, which is {limits.max_top_k}"
            )
        if options.graph_options.enable_vision_modality:
            raise UnsupportedError("images are not supported; enable_vision_modality must be False")
        if options.graph_options.enable_audio_modality:
            raise UnsupportedError("sound is not supported; enable_audio_modality must be False")
        c_options: SessionOptions = {
            "n_context": limits.max_tokens,
            # in MediaPipe a top_p of 0 leaves only the most likely token; here it means no limit
            "top_k": options.top_k if options.top_p > 0 else 1,
            "top_p": options.top_p,
            "temperature": options.temperature,
            # MediaPipe has nothing more, so the defaults of Quip and of the model file do not count
            "min_p": 0,
            "repeat_penalty": 1,
            "no_repeat_ngram": 0,
            "no_template": options.prompt_templates is not None,
        }
        if options.random_seed is not None:
            c_options["seed"] = options.random_seed
        return c_options

    # ---- the conversation ----

    def add_query_chunk(self, input_text: str) -> None:
        """Append to the user's turn, and run the model over it."""
        self._check_idle()
        self._append(input_text)

    def _append(self, input_text: str) -> None:
        if self._options.prompt_templates is not None:
            self._switch_role("user")
            self.session.append(Role.USER, input_text)
        elif self._llm.model.info.has_template:
            self.session.append(Role.USER, input_text)
        else:  # the caller writes whole prompts, including control tokens
            self.session.append(Role.NONE, input_text)

    def add_image(self, image: object) -> None:
        raise UnsupportedError("images are not supported")

    def add_audio(self, audio: object) -> None:
        raise UnsupportedError("sound is not supported")

    def generate_response(self) -> str:
        """The whole answer."""
        self._check_idle()
        return "".join(_without_leading_blanks(self._begin_answer()))

    def generate_response_async(
        self,
        listener: Optional[ProgressListener] = None,
        error_listener: Optional[ErrorListener] = None,
    ) -> concurrent.futures.Future[str]:
        """Generate the answer on another thread, which calls the listener with each new text and at
        the end with ("", True), after an error too. By then the session can be used again."""
        return self._start(listener, error_listener)

    def _start(
        self,
        listener: Optional[ProgressListener],
        error_listener: Optional[ErrorListener],
        input_text: Optional[str] = None,
    ) -> concurrent.futures.Future[str]:
        """Append the text, if there is one, and answer, on another thread."""
        if not self._running.acquire(blocking=False):
            raise RuntimeError(_BUSY)
        future = _AnswerFuture()
        future.set_running_or_notify_cancel()
        self._is_cancelled = False
        words = (future, listener, error_listener, input_text)
        try:
            threading.Thread(target=self._write, args=words).start()
        except BaseException:
            self._running.release()
            raise
        return future

    def _write(
        self,
        future: _AnswerFuture,
        listener: Optional[ProgressListener],
        error_listener: Optional[ErrorListener],
        input_text: Optional[str],
    ) -> None:
        pieces: List[str] = []
        error = _error_of(lambda: self._generate(pieces, listener, input_text))
        self._running.release()
        if error and error_listener:
            failure = _error_of(partial(error_listener, error))
            future.is_heard = failure is None
            error = failure or error
        if listener:
            failure = _error_of(partial(listener, "", True))
            error = error or failure
        if error:
            future.set_exception(error)
        else:
            future.set_result("".join(pieces))
        del future  # the error refers to this frame

    def _generate(
        self, pieces: List[str], listener: Optional[ProgressListener], input_text: Optional[str]
    ) -> None:
        if input_text is not None:
            self._append(input_text)
        answer = self._begin_answer()
        if self._is_cancelled:  # before the text that begins the answer, which drops a cancel
            self.session.cancel()
        for piece in _without_leading_blanks(answer):
            pieces.append(piece)
            if listener:
                listener(piece, False)

    def _begin_answer(self) -> Answer:
        if self._options.prompt_templates is not None:
            self._switch_role("model")
        return self.session.answer()

    def _switch_role(self, role: str) -> None:
        """Append the suffix of the last role and the prefix of this one."""
        if role == self._last_role:
            return
        templates = dataclasses.asdict(self._options.prompt_templates or PromptTemplates())
        between = templates.get(f"{self._last_role}_suffix", "") + templates[f"{role}_prefix"]
        if between:
            self.session.append(Role.NONE, between)
        self._last_role = role

    def cancel_generate_response_async(self) -> None:
        """End the answer. The future has the text so far."""
        self._is_cancelled = True
        self.session.cancel()

    @property
    def is_busy(self) -> bool:
        """True while another thread generates an answer."""
        return self._running.locked()

    def _check_idle(self) -> None:
        if self.is_busy:
            raise RuntimeError(_BUSY)

    @property
    def result(self) -> Result:
        """Why the last answer ended, what it took, and its seed."""
        return self.session.result

    # ---- other calls ----

    def size_in_tokens(self, text: str) -> int:
        return self._llm.size_in_tokens(text)

    def clone_session(self) -> LlmInferenceSession:
        """Open a second session that continues from the same point."""
        self._check_idle()
        copy = LlmInferenceSession.__new__(LlmInferenceSession)
        copy._options, copy._llm = self._options, self._llm
        copy._running, copy._last_role = threading.Lock(), self._last_role
        copy._is_cancelled = False
        copy.session = self.session.clone()
        return copy

    def get_session_options(self) -> LlmInferenceSessionOptions:
        return self._options

    def update_session_options(self, **changes: Any) -> None:
        """Change options between turns. The LoRA file and the prompt templates cannot change."""
        self._check_idle()
        for name in {"lora_path", "graph_options", "prompt_templates"} & changes.keys():
            raise ArgumentError(f"{name} cannot change; open another session")
        options = dataclasses.replace(self._options, **changes)
        self.session.set_options(**self._c_options(options))
        self._options = options

    def close(self) -> None:
        self.session.close()


def _error_of(work: Callable[[], object]) -> Optional[BaseException]:
    """Do the work; its exception, or None."""
    try:
        work()
    except BaseException as error:
        return error
    return None


class _AnswerFuture(concurrent.futures.Future[str]):
    """Prints an error that neither a listener nor the owner of the future heard of, as Python prints
    the errors of threads."""

    is_heard = False

    def result(self, timeout: Optional[float] = None) -> str:
        self.is_heard = True
        return super().result(timeout)

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        self.is_heard = True
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[str]], object]) -> None:
        self.is_heard = True
        super().add_done_callback(fn)

    def __del__(self) -> None:
        error = None if self.is_heard or not self.done() else self.exception()
        if error:
            what = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(what))


def _without_leading_blanks(pieces: Iterator[str]) -> Iterator[str]:
    """MediaPipe removes white space before an answer."""
    for piece in pieces:
        if piece.lstrip():
            yield piece.lstrip()
            break
    yield from pieces
