"""Session: one conversation with a model. Answer: the pieces of its answer.

The model runs only while a piece of an answer is requested. So leaving the loop ends the work, and
the text so far stays in the conversation. All calls release the GIL. Ctrl-C interrupts a running
call.
"""

from __future__ import annotations

import ctypes
import enum
import json
import operator
import sys
import threading
import time
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    TypedDict,
    TypeVar,
    cast,
)

from . import _abi
from ._library import Handle, Owner, c_text, call, fields_of, fill, lib, sized, text_bytes
from .errors import CancelledError
from .model import Adapter, Model, backend_name, token_array

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Unpack

T = TypeVar("T")


class SessionOptions(TypedDict, total=False):
    """Options of a session: the fields of quip_session_options in quip.h. What is left out means the
    default. Zero does, too, except from `temperature` to `no_repeat_ngram`: there 0 means what the
    comment says, and what is left out is as the model file says, or else as the library does;
    ModelInfo has the values."""

    n_context: int  # tokens of prompts and answers; 0: 4096 or the model's maximum
    n_threads: int  # at most this many of the model's threads; 0: all
    max_output_tokens: int  # of one answer; 0: no limit but n_context
    seed: Optional[int]  # None: the library draws one, which Result.seed reports
    greedy: bool  # always the most likely token; without the penalties that are defaults
    temperature: float  # 1: the model's probabilities; 0: greedy
    top_k: int  # draw from the k most likely tokens; 0: no limit; 1: greedy
    top_p: float  # then from the fewest whose probabilities add up to p; 0: no limit
    min_p: float  # then from those at least p times as likely as the best; 0: no limit
    # Penalties for tokens that came before, in the order of the C header.
    logit_bias: Mapping[int, float]  # added to the logit of a token; -inf: never
    penalty_window: int  # how many of the last tokens count; 0: default; -1: all
    repeat_penalty: float  # 0 or 1: none
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float  # 0: none; 0.8 is usual
    dry_base: float  # 0: 1.75
    dry_allowed_length: int  # 0: 2
    no_repeat_ngram: int  # no n tokens in a row come twice in the window; 0: they may
    stop: Sequence[str]  # texts that end an answer, in addition to the model's own
    system: Optional[str]  # system prompt
    no_template: bool  # pass text on as it is, even if the model has a template
    no_speculation: bool
    draft: Optional[Model]  # a smaller model with the same vocabulary, which guesses tokens ahead
    chat_template: Optional[str]  # how turns are marked, by name; None: as the file says
    template_variables: Optional[Mapping[str, Any]]  # what the model's own template reads, such as
    # {"enable_thinking": False, "tools": [...]}


class Role(enum.IntEnum):
    """Whose text it is."""

    NONE = _abi.QUIP_ROLE_NONE  # no role, no template
    USER = _abi.QUIP_ROLE_USER
    MODEL = _abi.QUIP_ROLE_MODEL
    SYSTEM = _abi.QUIP_ROLE_SYSTEM


class FinishReason(enum.IntEnum):
    """Why an answer ended."""

    NONE = _abi.QUIP_FINISH_NONE  # it has not
    STOP = _abi.QUIP_FINISH_STOP  # the model ended its turn, or produced a stop text
    LENGTH = _abi.QUIP_FINISH_LENGTH  # max_output_tokens was reached
    CONTEXT = _abi.QUIP_FINISH_CONTEXT  # n_context was reached
    CANCELLED = _abi.QUIP_FINISH_CANCELLED
    CALLBACK = _abi.QUIP_FINISH_CALLBACK

    def __str__(self) -> str:
        return self.name

    @classmethod
    def _missing_(cls, value: object) -> FinishReason:
        return cls.STOP  # a reason of a later version of the library


@dataclass(frozen=True)
class Result:
    """What an answer took; see quip_result in quip.h."""

    finish_reason: FinishReason
    n_prompt_tokens: int
    n_output_tokens: int
    prefill_ns: int
    decode_ns: int
    first_token_ns: int
    seed: int
    backend: str  # that ran it: "cpu" or "gpu"
    n_draft_tokens: int  # guesses of tokens that the model ran
    n_draft_right: int  # of these, those that were right


# What 0 says of how tokens are drawn, in the words of the C header, where 0 is the default.
_NONE: Dict[str, Any] = {"top_k": -1, "top_p": 1.0, "min_p": -1.0, "repeat_penalty": 1.0, "no_repeat_ngram": -1}


def fill_options(to: _abi.quip_session_options, options: SessionOptions) -> None:
    """Copy options to a C struct, which keeps alive what it points to."""
    values: Dict[str, Any] = dict(options)
    stop = values.pop("stop", None) or ()
    if isinstance(stop, str):
        raise TypeError("stop is one text; must be a list of texts")
    if values.get("seed") is None:
        values.pop("seed", None)
    else:
        values["has_seed"] = True
    for name in _NONE.keys() & values.keys():
        if values[name] == 0:
            values[name] = _NONE[name]
    if "temperature" in values and values["temperature"] == 0:
        values["greedy"] = True
    draft = values.pop("draft", None)
    if draft is not None:
        if not isinstance(draft, Model):
            raise TypeError(f"draft must be a quip.Model, not {draft!r}")
        values["draft"] = draft.handle
    if values.get("template_variables") is not None:
        values["template_variables"] = json.dumps(values["template_variables"])
    for name in ("system", "chat_template", "template_variables"):
        if values.get(name) is not None:
            values[name] = c_text(name, values[name])
    bias = values.pop("logit_bias", None) or {}
    if bias:
        entries = [_abi.quip_logit_bias(operator.index(t), float(x)) for t, x in bias.items()]
        values["logit_bias"] = (_abi.quip_logit_bias * len(entries))(*entries)
        values["n_logit_bias"] = len(entries)
    if stop:
        texts = [c_text("a stop text", text) for text in stop]
        values["stop"], values["n_stop"] = (ctypes.c_char_p * len(texts))(*texts), len(texts)
    fill(to, **values)


def _changeable(options: Mapping[str, Any]) -> Dict[str, Any]:
    """What `set_options` sets again. The draft model stays, also if its Model is closed."""
    return {name: value for name, value in options.items() if name != "draft"}


class Session(Owner):
    """A conversation. One thread at a time may use it. Any thread may call `cancel`, at any time.

    with quip.Model("gemma.bin") as model, model.session(temperature=0.8) as chat:
        for piece in chat.say("Why is the sky blue?"):
            print(piece, end="", flush=True)
    """

    def __init__(
        self,
        model: Model,
        *,
        adapter: Optional[Adapter] = None,
        adapter_scale: float = 1.0,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._options = _changeable(options)
        c_options = _abi.quip_session_options()
        fill_options(c_options, options)
        self._begin(model, lib.quip_session_open, model.handle, c_options)
        if adapter is not None:
            self.set_adapter(adapter, adapter_scale)

    def _begin(self, model: Model, function: Any, *arguments: Any) -> None:
        handle = Handle(lib.quip_session_close)
        call(function, handle.address, *arguments)
        self.model = model
        self._handle = handle
        self._turn = threading.Lock()  # protects _user
        self._user: Optional[int] = None  # the thread whose call is running
        self._answer: Optional[Answer] = None  # the answer that may continue

    # ---- close and clone ----

    def close(self) -> None:
        """End a call that is running on another thread, and close the session."""
        handle, self._handle = self._handle, None
        if handle is not None and not handle.is_inherited:
            self._end_call(handle)

    def clone(self) -> Session:
        """Open a second session that continues from the same point."""
        copy = Session.__new__(Session)
        copy._options = dict(self._options)
        self._use(lambda h: copy._begin(self.model, lib.quip_session_clone, h))
        return copy

    # ---- turns ----

    def say(self, prompt: str) -> Answer:
        """Append the user's turn and begin the model's. Iterate over the answer."""
        self.append(Role.USER, prompt)
        return self.answer()

    def ask(self, prompt: str) -> str:
        """Like `say`, but return the whole answer."""
        return self.say(prompt).text()

    def say_async(self, prompt: str) -> AsyncAnswer:
        """`say` for asyncio: `async for piece in session.say_async(prompt)`. Other tasks continue to
        run. Cancelling the task ends the work."""
        return AsyncAnswer(self, prompt)

    async def ask_async(self, prompt: str) -> str:
        """`ask` for asyncio."""
        return "".join([piece async for piece in self.say_async(prompt)])

    def append(self, role: Role, text: str) -> None:
        """Append text to the conversation and run the model over it; see quip_session_append."""
        who, data = Role(role), text_bytes("text", text)
        self._use_patiently(lambda h: call(lib.quip_session_append, h, who, data, len(data)))
        self._answer = None

    def answer(self) -> Answer:
        """The model's turn, after `append`. It continues an unfinished answer."""
        answer = Answer(self)
        self._answer = answer
        return answer

    def cancel(self) -> None:
        """End the call that is running on this session. Any thread may call this at any time."""
        lib.quip_session_cancel(self._handle)

    @property
    def result(self) -> Result:
        """What the answer has taken so far."""
        result = sized(_abi.quip_result)
        self._use(lambda h: call(lib.quip_session_get_result, h, result))
        values = fields_of(result)
        values["finish_reason"] = FinishReason(result.finish_reason)
        values["backend"] = backend_name(result.backend)
        return Result(**values)

    # ---- tokens ----

    @property
    def position(self) -> int:
        """Tokens in the context."""
        return self._use(lambda h: int(lib.quip_session_position(h)))

    @property
    def n_context(self) -> int:
        """Tokens that the context can hold."""
        return self._use(lambda h: int(lib.quip_session_n_context(h)))

    @property
    def n_threads(self) -> int:
        """Threads that the session uses."""
        return self._use(lambda h: int(lib.quip_session_n_threads(h)))

    def rewind(self, position: int) -> None:
        """Remove everything from this token on."""
        index = operator.index(position)
        self._use(lambda h: call(lib.quip_session_rewind, h, index))
        self._answer = None

    def undo(self) -> None:
        """Return to the state before the last text or tokens were appended, and remove what
        followed, such as the answer."""
        self._use(lambda h: call(lib.quip_session_undo, h))
        self._answer = None

    def set_options(self, **options: Unpack[SessionOptions]) -> None:
        """Change options between turns; those that are not named stay.
        See quip_session_set_options for those that cannot change."""
        changed = {**self._options, **options}
        c_options = _abi.quip_session_options()
        fill_options(c_options, cast(SessionOptions, {"seed": None, **changed}))
        c_options.has_seed = options.get("seed") is not None
        self._use(lambda h: call(lib.quip_session_set_options, h, c_options))
        self._options = _changeable(changed)

    def set_adapter(self, adapter: Optional[Adapter], scale: float = 1.0) -> None:
        """Use another adapter, or None; a scale of 0 has no effect. The text in the context stays:
        the next call runs it again with the new weights."""
        if not isinstance(adapter, (Adapter, type(None))):
            raise TypeError(f"adapter must be a quip.Adapter, not {adapter!r}")
        handle = adapter.handle if adapter else None
        self._use(lambda h: call(lib.quip_session_set_adapter, h, handle, scale))
        self._answer = None

    def prefill(self, tokens: Sequence[int]) -> None:
        """Run the model over token ids, which follow those already in the context."""
        ids = token_array(tokens)
        self._use_patiently(lambda h: call(lib.quip_session_prefill, h, ids, len(ids)))
        self._answer = None

    def prefill_logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """`prefill` that returns the logits after every token, [n, vocab_size]."""
        import numpy as np

        ids = token_array(tokens)
        logits = np.empty((len(ids), self.model.info.vocab_size), np.float32)
        row_bytes, rows = logits.strides[0], iter(range(len(ids)))

        def on_logits(_user: Any, _position: int, row: Any) -> bool:
            ctypes.memmove(logits.ctypes.data + next(rows) * row_bytes, row, row_bytes)
            return True

        callback = _abi.quip_on_logits(on_logits)
        self._use_patiently(
            lambda h: call(lib.quip_session_prefill_logits, h, ids, len(ids), callback, None)
        )
        self._answer = None
        return logits

    def logits(self) -> Optional[npt.NDArray[np.float32]]:
        """A copy of the logits after the last token, [vocab_size]. None if the model has not run
        that token: see quip_session_logits."""
        import numpy as np

        def copy(h: Handle) -> Optional[npt.NDArray[np.float32]]:
            row = lib.quip_session_logits(h)
            n = self.model.info.vocab_size
            return np.ctypeslib.as_array(row, shape=(n,)).copy() if row else None

        return self._use(copy)

    # ---- one thread at a time ----

    def _use(self, work: Callable[[Handle], T]) -> T:
        """Call `work` with the handle. Fails if the session is busy: waiting could take forever.
        Ctrl-C may interrupt between any two lines; _user is reset in any case."""
        me, handle = threading.get_ident(), self.handle
        if handle.is_inherited:
            raise RuntimeError("the session belongs to the parent process; open one in this process")
        try:
            with self._turn:
                if self._user not in (None, me):
                    raise RuntimeError("the session is in use by another thread")
                self._user = me
            return work(handle)
        finally:
            if self._user == me:
                self._user = None

    def _end_call(self, handle: Handle) -> None:
        """Cancel the call of another thread, until it ends: a cancel before its begin has no effect.
        When the program ends, daemon threads have stopped for good."""
        while self._user not in (None, threading.get_ident()) and not sys.is_finalizing():
            lib.quip_session_cancel(handle)
            time.sleep(0.005)

    def _use_patiently(self, work: Callable[[Handle], T]) -> T:
        """Like _use, for calls that may take seconds. Python handles Ctrl-C between instructions of
        its main thread, not during a C call. So the call runs on another thread, and this one
        waits."""
        if threading.current_thread() is not threading.main_thread():
            return self._use(work)
        from ._job import do_on_thread  # slow to import, so only if it is used

        handle = self.handle
        return do_on_thread(lambda: self._use(work), lambda: lib.quip_session_cancel(handle))

    def _next(self, answer: Answer) -> Optional[str]:
        """The next piece of this answer; None at its end."""
        if self._answer is not answer:
            raise RuntimeError("the conversation has continued; this answer cannot")
        piece = sized(_abi.quip_piece)

        def pull(h: Handle) -> Optional[str]:
            call(lib.quip_session_next, h, piece)
            answer.tokens += piece.tokens[: piece.n_tokens]
            if piece.finish_reason == _abi.QUIP_FINISH_NONE:
                return ctypes.string_at(piece.text, piece.n_text).decode()
            if piece.finish_reason == _abi.QUIP_FINISH_CANCELLED and self._handle is None:
                raise CancelledError("the session was closed before the answer ended")
            return None

        # The first piece may wait until the prompt has run, every other piece for a few tokens.
        return self._use(pull) if answer.has_begun else self._use_patiently(pull)


class Answer(Iterator[str]):
    """The pieces of an answer while it is generated. Each consists of whole characters."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.is_done = False
        self.tokens: List[int] = []  # sampled so far; their text may still be held back
        self._pieces: List[str] = []

    def __next__(self) -> str:
        piece = None if self.is_done else self.session._next(self)
        if piece is None:
            self.is_done = True
            raise StopIteration
        self._pieces.append(piece)
        return piece

    @property
    def has_begun(self) -> bool:
        """True after the first piece."""
        return bool(self._pieces)

    def text(self) -> str:
        """The whole answer, including the pieces so far."""
        for _ in self:
            pass
        return "".join(self._pieces)

    @property
    def result(self) -> Result:
        """Why the answer ended and what it took so far."""
        return self.session.result


class AsyncAnswer(AsyncIterator[str]):
    """The pieces of an answer for asyncio. The prompt runs when the first one is requested."""

    def __init__(self, session: Session, prompt: str) -> None:
        self.session = session
        self._prompt = prompt
        self._answer: Optional[Answer] = None

    async def __anext__(self) -> str:
        if self._answer is None:
            self._answer = await self._in_thread(lambda: self.session.say(self._prompt))
        piece = await self._in_thread(lambda: next(self._answer or iter(()), None))
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread. If the task is cancelled, end the work and wait for its end."""
        import asyncio  # slow to import, so only if it is used

        from ._job import Job

        job = Job(work)
        try:
            future = asyncio.get_running_loop().run_in_executor(None, job.run)
        except RuntimeError:  # the program ends, and Python starts no more threads
            return work()
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            while not (job.cancel() or job.done()):
                self.session.cancel()
                await asyncio.wait([future], timeout=0.02)
            raise
        try:
            return job.result()
        finally:
            del job  # an error refers to this frame, and the job to the error

    @property
    def result(self) -> Result:
        """Why the answer ended and what it took so far."""
        return self.session.result
