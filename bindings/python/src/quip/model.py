"""Model: a model file that is open, shared by any number of sessions and threads."""

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
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

from . import _abi
from ._library import Handle, Owner, StrPath, c_text, call, fill, lib, path_bytes, text_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from .session import Session, SessionOptions


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a model, as quip_model_info in quip.h has them."""

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
    has_template: bool


@dataclass(frozen=True)
class Plan:
    """What a model and a context will take, in bytes; see quip_plan in quip.h."""

    file_bytes: int
    kv_bytes: int
    scratch_bytes: int
    model_bytes: int
    n_context: int


class Model(Owner):
    """A model file. Opening takes milliseconds: weights are used where they lie in the file.

    with quip.Model("gemma.bin") as model:
        print(model.session().ask("Why is the sky blue?"))
    """

    def __init__(self, path: StrPath, *, no_mmap: bool = False) -> None:
        options = _abi.quip_model_options()
        fill(options, no_mmap=no_mmap)
        self._open(lib.quip_model_open, path_bytes(path), options)

    def _open(self, function: Any, *arguments: Any) -> None:
        handle = Handle(lib.quip_model_close)
        call(function, handle.place, *arguments)
        info = _abi.quip_model_info()
        lib.quip_model_get_info(handle, info)
        values: Dict[str, Any] = {}
        for name, *_ in info._fields_:
            value = getattr(info, name)
            values[name] = value.decode() if isinstance(value, bytes) else value
        self.info = ModelInfo(**values)
        self._handle = handle

    @classmethod
    def from_file(cls, file: BinaryIO, name: str = "model") -> Model:
        """Open what a binary file object holds: an entry of an archive, a BytesIO. The weights
        are read into memory; `file` is not needed afterwards."""
        model = cls.__new__(cls)
        source, raised = source_of(file, name)
        with reraise(raised):
            model._open(lib.quip_model_open_source, source, None)
        return model

    @classmethod
    def from_bytes(cls, data: Buffer) -> Model:
        """Open a model file that is in memory: bytes, a memoryview, an mmap, an array. The weights
        are used where they lie, so `data` must not change until model and sessions are closed."""
        import numpy as np

        view = np.frombuffer(cast(Any, data), np.uint8)
        model = cls.__new__(cls)
        address = view.ctypes.data
        _held.setdefault(address, []).append(view)
        try:
            model._open(
                lib.quip_model_open_memory, address, view.nbytes, _release, address, None
            )
        except BaseException:
            _let_go(address)
            raise
        return model

    def close(self) -> None:
        """Close; sessions that are still open keep what they need of the model."""
        super().close()

    def __repr__(self) -> str:
        info, closed = self.info, ", closed" if self._handle is None else ""
        return f"<quip.Model {info.architecture}, {info.n_parameters} parameters, {info.weights}{closed}>"

    def session(self, **options: Unpack[SessionOptions]) -> Session:
        """A conversation: Session(model, **options)."""
        from .session import Session

        return Session(self, **options)

    def adapter(self, path: StrPath) -> Adapter:
        """LoRA weights for this model: Adapter(model, path)."""
        return Adapter(self, path)

    def encode(self, text: str, *, with_special: bool = False) -> List[int]:
        """Token ids of a text: no template, no beginning-of-sequence token. `with_special`:
        control tokens that the text spells out become their ids."""
        data = text_bytes("text", text)
        capacity, n = len(data) + 8, ctypes.c_int()
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            call(
                lib.quip_encode,
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

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids. Control tokens have none."""
        ids = token_array(tokens)
        capacity, n = 16 * len(ids) + 16, ctypes.c_size_t()
        while True:
            text = ctypes.create_string_buffer(capacity)
            call(
                lib.quip_decode, self.handle, ids, len(ids), text, capacity, ctypes.byref(n)
            )
            if n.value <= capacity:
                return text.raw[: n.value].decode()
            capacity = n.value


class Adapter(Owner):
    """LoRA weights beside a model: a PEFT folder, or a LoRA file of the original. Any number of
    sessions may use it, each with a scale of its own.

    chat = model.session(adapter=model.adapter("haiku/"))
    """

    def __init__(self, model: Model, path: StrPath) -> None:
        handle = Handle(lib.quip_adapter_close)
        call(lib.quip_adapter_open, handle.place, model.handle, path_bytes(path))
        self._handle = handle

    def close(self) -> None:
        """Close; sessions keep what they need of it."""
        super().close()


def token_array(tokens: Sequence[int]) -> ctypes.Array[ctypes.c_int32]:
    """Ids as C has them; one that is no 32-bit number is named."""
    ids = [operator.index(token) for token in tokens]
    for token in ids:
        if not -(2**31) <= token < 2**31:
            raise OverflowError(f"there is no token {token}")
    return (ctypes.c_int32 * len(ids))(*ids)


# What models in memory use, by address, until the library says that it is done with it.
_held: Dict[int, List[Any]] = {}


def _let_go(address: int) -> None:
    views = _held.get(address, [])
    if len(views) > 1:
        views.pop()
    else:
        _held.pop(address, None)


_release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_let_go)


def source_of(file: BinaryIO, name: str) -> Tuple[_abi.quip_source, List[BaseException]]:
    """A binary file object as the library reads it, and the list where what it raises will be."""
    raised: List[BaseException] = []

    def read_at(_user: Any, offset: int, buffer: int, n: int) -> bool:
        try:
            file.seek(offset)
            while n > 0:
                data = file.read(n)
                if not isinstance(data, bytes) or len(data) > n:
                    raise TypeError(f"{name}: read({n}) of the file gives no {n} bytes or less")
                if not data:
                    return False
                ctypes.memmove(buffer, data, len(data))
                buffer, n = buffer + len(data), n - len(data)
            return True
        except BaseException as error:
            raised.append(error)
            return False

    source = _abi.quip_source()
    kinds = dict(cast(Any, _abi.quip_source._fields_))
    fill(source, size=file.seek(0, 2), read_at=kinds["read_at"](read_at), name=c_text("name", name))
    return source, raised


@contextlib.contextmanager
def reraise(raised: List[BaseException]) -> Iterator[None]:
    """Let what a callback raised win over the library's error, which it caused."""
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise


def plan_memory(
    model: Union[StrPath, BinaryIO], *, no_mmap: bool = False, **options: Unpack[SessionOptions]
) -> Plan:
    """What a model file and a session of it will take, before any weight is read. Of a file object
    only the beginning is read: the weights need not be there yet."""
    from .session import fill_options

    model_options, session_options = _abi.quip_model_options(), _abi.quip_session_options()
    fill(model_options, no_mmap=no_mmap)
    fill_options(session_options, options)
    plan = _abi.quip_plan()
    raised: List[BaseException] = []
    of: Any
    if isinstance(model, (str, os.PathLike)):
        function, of = lib.quip_plan_memory, path_bytes(model)
    else:
        source, raised = source_of(model, "model")
        function, of = lib.quip_plan_memory_source, ctypes.byref(source)
    with reraise(raised):
        call(
            function,
            ctypes.byref(plan),
            of,
            ctypes.byref(model_options),
            ctypes.byref(session_options),
        )
    return Plan(**{field[0]: getattr(plan, field[0]) for field in plan._fields_})
