"""Model: an open model file. Any number of sessions and threads may share it."""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    TypedDict,
    Union,
    cast,
    overload,
)

from . import _abi
from ._library import (
    Handle,
    Owner,
    StrPath,
    c_text,
    call,
    fields_of,
    fill,
    lib,
    path_bytes,
    sized,
    text_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer, Unpack

    from .session import Session, SessionOptions


@dataclass(frozen=True)
class ModelInfo:
    """Properties of a model; see quip_model_info in quip.h."""

    backend: str
    architecture: str
    weights: str
    n_parameters: int
    file_bytes: int
    n_layers: int
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    n_context_max: int
    bos: int
    n_threads: int
    has_template: bool
    is_embedding: bool  # an embedding model: it has embed(), and no sessions
    n_embedding: int
    n_experts: int
    n_experts_used: int
    n_active_parameters: int
    has_sampling: bool  # the model file says how to draw tokens; False: the library does
    default_temperature: float  # 0: greedy
    default_top_k: int
    default_top_p: float
    default_min_p: float
    default_repeat_penalty: float
    default_penalty_window: int
    default_no_repeat_ngram: int
    backend_reason: Optional[str]  # why "auto" chose this backend; None: it was asked for


@dataclass(frozen=True)
class Plan:
    """The memory that a model and one session need, in bytes; see quip_plan in quip.h."""

    n_context: int
    file_bytes: int
    model_bytes: int
    kv_bytes: int
    scratch_bytes: int
    shared_bytes: int  # the part of scratch_bytes that all sessions of the model share
    lookup_bytes: int  # the part of file_bytes of which each token reads one row


BACKENDS = {
    name[len("QUIP_BACKEND_") :].lower(): value
    for name, value in vars(_abi).items()
    if name.startswith("QUIP_BACKEND_")
}


def backend_name(backend: int) -> str:
    """ "cpu", "gpu", or "unknown" for one of a newer library."""
    return {v: k for k, v in BACKENDS.items()}.get(backend, "unknown")



class ModelOptions(TypedDict, total=False):
    """Options of a model: the fields of quip_model_options in quip.h. What is left out, or zero,
    means the default."""

    backend: str  # "cpu", "gpu" or "auto"; default "auto"
    n_threads: int  # that the model's sessions use; 0: one for each processor
    background: bool  # leave the processor to other programs: half the threads, low priority
    no_mmap: bool  # copy the file into memory instead of mapping it; then it may change


POOLINGS = {
    name[len("QUIP_POOLING_") :].lower(): value
    for name, value in vars(_abi).items()
    if name.startswith("QUIP_POOLING_")
}


class EmbedOptions(TypedDict, total=False):
    """Options of Model.embed: the fields of quip_embed_options in quip.h. What is left out, or zero,
    means the default."""

    prompt: str  # name of a task prompt of the model, such as "query"; see Model.prompts
    prefix: str  # text that is put before each text instead of a prompt
    pooling: str  # "mean", "first" or "last"; default "model", as the model file says
    n_dimensions: int  # keep only the first ones
    n_tokens_max: int  # tokens of a text; longer ones are cut
    n_threads: int  # use at most this many of the model's threads
    no_normalize: bool
    no_truncation: bool  # a longer text is an error


# Texts of one call of the library: between two calls, Ctrl-C is noticed.
EMBED_TEXTS = 256


def model_options(options: ModelOptions) -> _abi.quip_model_options:
    """Options as a C struct."""
    values: Dict[str, Any] = dict(options)
    backend = values.pop("backend", "auto")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; must be one of {', '.join(BACKENDS)}")
    to = _abi.quip_model_options()
    fill(to, backend=BACKENDS[backend], **values)
    return to


class Model(Owner):
    """A model file. Opening takes milliseconds: the weights are used directly from the file.

    with quip.Model("gemma.bin") as model:
        print(model.session().ask("Why is the sky blue?"))
    """

    def __init__(self, path: StrPath, **options: Unpack[ModelOptions]) -> None:
        self._open(lib.quip_model_open, path_bytes(path), model_options(options))

    def _open(self, function: Any, *arguments: Any) -> None:
        handle = Handle(lib.quip_model_close)
        call(function, handle.address, *arguments)
        info = sized(_abi.quip_model_info)
        call(lib.quip_model_get_info, handle, info)
        values = fields_of(info)
        values["backend"] = backend_name(info.backend)
        self.info = ModelInfo(**values)
        self._handle = handle

    @classmethod
    def from_file(
        cls, file: BinaryIO, name: str = "model", **options: Unpack[ModelOptions]
    ) -> Model:
        """Open a binary file object, such as an entry of an archive or a BytesIO. The weights are
        read into memory; `file` is not used afterwards."""
        model = cls.__new__(cls)
        source, raised = source_of(file, name)
        with reraise(raised):
            model._open(lib.quip_model_open_source, source, model_options(options))
        return model

    @classmethod
    def from_bytes(cls, data: Buffer, **options: Unpack[ModelOptions]) -> Model:
        """Open a model file that is in memory: bytes, a memoryview, an mmap, an array. The weights
        are used directly from there, so `data` must not change until the model and its sessions
        are closed."""
        import numpy as np

        view = np.frombuffer(cast(Any, data), np.uint8)
        model = cls.__new__(cls)
        c_options = model_options(options)
        address = view.ctypes.data
        _held.setdefault(address, []).append(view)
        try:
            model._open(
                lib.quip_model_open_memory, address, view.nbytes, _release, address, c_options
            )
        except BaseException:
            _let_go(address)
            raise
        return model

    def close(self) -> None:
        """Close the model. Open sessions keep what they need of it."""
        super().close()

    def __repr__(self) -> str:
        info, closed = self.info, ", closed" if self._handle is None else ""
        return f"<quip.Model {info.architecture}, {info.n_parameters} parameters, {info.weights}{closed}>"

    def session(
        self,
        *,
        adapter: Optional[Adapter] = None,
        adapter_scale: float = 1.0,
        **options: Unpack[SessionOptions],
    ) -> Session:
        """A conversation: Session(model, **options)."""
        from .session import Session

        return Session(self, adapter=adapter, adapter_scale=adapter_scale, **options)

    def plan(self, **options: Unpack[SessionOptions]) -> Plan:
        """The memory that the model and one session with these options need."""
        return _plan(self.handle, options)

    @overload
    def embed(self, texts: str, **options: Unpack[EmbedOptions]) -> NDArray[np.float32]: ...

    @overload
    def embed(
        self, texts: Iterable[Union[str, Sequence[int]]], **options: Unpack[EmbedOptions]
    ) -> NDArray[np.float32]: ...

    def embed(self, texts: Any, **options: Unpack[EmbedOptions]) -> NDArray[np.float32]:
        """Embeddings of texts, [n, n_embedding], or of one text, [n_embedding]. Instead of a text
        there may be token ids, which are used as they are. Embeddings have length 1, so that
        `a @ b` is the cosine of two of them.

        vectors = model.embed(["A cat sits outside", "The new film is great"])
        """
        import numpy as np

        items = [texts] if isinstance(texts, str) else list(texts)
        to, held = embed_options(options), []
        width = to.n_dimensions or self.info.n_embedding
        out = np.zeros((len(items), max(width, 0)), np.float32)
        for begin in range(0, len(items), EMBED_TEXTS):
            part = items[begin : begin + EMBED_TEXTS]
            inputs = (_abi.quip_embed_input * len(part))()
            held = [embed_input(inputs[i], item) for i, item in enumerate(part)]
            rows = out[begin : begin + len(part)]
            address = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            call(lib.quip_embed, self.handle, inputs, len(part), to, address, rows.size)
        del held  # what the inputs point to was necessary until here
        return out[0] if isinstance(texts, str) else out

    @property
    def prompts(self) -> List[str]:
        """Names of the task prompts of an embedding model."""
        names: List[str] = []
        while (name := lib.quip_model_prompt_name(self.handle, len(names))) is not None:
            names.append(name.decode())
        return names

    def adapter(self, path: StrPath) -> Adapter:
        """LoRA weights for this model: Adapter(model, path)."""
        return Adapter(self, path)

    def tokenize(self, text: str, *, with_special: bool = False) -> List[int]:
        """Token ids of a text, without template and beginning-of-sequence token. `with_special`:
        control tokens that the text spells out become their ids."""
        data = text_bytes("text", text)
        capacity, n = len(data) + 8, ctypes.c_int()
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            call(
                lib.quip_tokenize,
                self.handle,
                data,
                len(data),
                with_special,
                tokens,
                capacity,
                ctypes.byref(n),
            )
            if n.value <= capacity:
                return list(tokens[: n.value])
            capacity = n.value

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids. Control tokens have no text."""
        ids = token_array(tokens)
        capacity, n = 16 * len(ids) + 16, ctypes.c_size_t()
        while True:
            text = ctypes.create_string_buffer(capacity)
            call(
                lib.quip_detokenize, self.handle, ids, len(ids), text, capacity, ctypes.byref(n)
            )
            if n.value <= capacity:
                return text.raw[: n.value].decode()
            capacity = n.value


class Adapter(Owner):
    """LoRA weights for a model: a PEFT folder, or a MediaPipe LoRA file. Any number of sessions
    may use it, each with its own scale.

    chat = model.session(adapter=model.adapter("haiku/"))
    """

    def __init__(self, model: Model, path: StrPath) -> None:
        handle = Handle(lib.quip_adapter_close)
        call(lib.quip_adapter_open, handle.address, model.handle, path_bytes(path))
        self._handle = handle

    def close(self) -> None:
        """Close the adapter. Sessions keep what they need of it."""
        super().close()


def embed_options(options: EmbedOptions) -> _abi.quip_embed_options:
    """Options as a C struct."""
    values: Dict[str, Any] = dict(options)
    pooling = values.pop("pooling", "model")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}; must be one of {', '.join(POOLINGS)}")
    for name in ("prompt", "prefix"):
        if name in values:
            values[name] = c_text(name, values[name])
    to = _abi.quip_embed_options()
    fill(to, pooling=POOLINGS[pooling], **values)
    return to


def embed_input(to: _abi.quip_embed_input, item: Union[str, Sequence[int]]) -> Any:
    """Fill an input; what it points to is returned."""
    if isinstance(item, str):
        data = text_bytes("text", item)
        to.text, to.n_text = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data)
        return data
    ids = token_array(item)
    to.tokens, to.n_tokens = ctypes.cast(ids, ctypes.POINTER(ctypes.c_int32)), len(ids)
    return ids


def token_array(tokens: Sequence[int]) -> ctypes.Array[ctypes.c_int32]:
    """Ids as a C array. An id that is not a 32-bit number is an error."""
    ids = [operator.index(token) for token in tokens]
    for token in ids:
        if not -(2**31) <= token < 2**31:
            raise OverflowError(f"a token is {token}; must be a 32-bit number")
    return (ctypes.c_int32 * len(ids))(*ids)


# The memory of models that are in memory, by address, until the library releases it.
_held: Dict[int, List[Any]] = {}


def _let_go(address: int) -> None:
    views = _held.get(address, [])
    if len(views) > 1:
        views.pop()
    else:
        _held.pop(address, None)


_release = _abi.quip_on_release(_let_go)


def source_of(file: BinaryIO, name: str) -> Tuple[_abi.quip_source, List[BaseException]]:
    """A binary file object as a source, and a list that receives the exceptions it raises."""
    raised: List[BaseException] = []

    def read_at(_user: Any, offset: int, buffer: int, n: int) -> bool:
        try:
            file.seek(offset)
            while n > 0:
                data = file.read(n)
                if not isinstance(data, bytes) or len(data) > n:
                    raise TypeError(f"{name}: read({n}) must return at most {n} bytes")
                if not data:
                    return False
                ctypes.memmove(buffer, data, len(data))
                buffer, n = buffer + len(data), n - len(data)
            return True
        except BaseException as error:
            raised.append(error)
            return False

    source = _abi.quip_source()
    callback = _abi.quip_on_read(read_at)
    fill(source, size=file.seek(0, 2), read_at=callback, name=c_text("name", name))
    return source, raised


@contextlib.contextmanager
def reraise(raised: List[BaseException]) -> Iterator[None]:
    """Raise the exception of a callback instead of the library's error that it caused."""
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise


def plan_memory(
    model: Union[StrPath, BinaryIO],
    *,
    no_mmap: bool = False,
    **options: Unpack[SessionOptions],
) -> Plan:
    """The memory that a model file and one session of it need. No weight is read: of a file object
    only the beginning is, and the rest need not be there yet."""
    header = _abi.quip_model_options()
    fill(header, no_mmap=no_mmap, no_weights=True)
    handle = Handle(lib.quip_model_close)
    if isinstance(model, (str, os.PathLike)):
        call(lib.quip_model_open, handle.address, path_bytes(model), header)
    else:
        source, raised = source_of(model, "model")
        with reraise(raised):
            call(lib.quip_model_open_source, handle.address, source, header)
    return _plan(handle, options)


def _plan(handle: Handle, options: SessionOptions) -> Plan:
    from .session import fill_options

    session_options, plan = _abi.quip_session_options(), sized(_abi.quip_plan)
    fill_options(session_options, options)
    call(lib.quip_model_plan, handle, session_options, plan)
    return Plan(**fields_of(plan))
