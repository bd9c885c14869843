"""Loads libquip, which the wheel contains, and has what all calls of it share."""

from __future__ import annotations

import ctypes
import operator
import os
import pathlib
import sys
from types import TracebackType
from typing import Any, Callable, Dict, NoReturn, Optional, Type, TypeVar, Union

from . import _abi
from .errors import IOError, kind_of

StrPath = Union[str, "os.PathLike[str]"]

lib = ctypes.CDLL(str(pathlib.Path(__file__).parent / "lib" / "libquip.so"))
_abi.bind(lib)


def call(function: Any, *arguments: Any) -> None:
    """Call a function that returns a quip_status and whose last parameter is a quip_error. Raise its
    error."""
    error = _abi.quip_error()
    status = function(*arguments, ctypes.byref(error))
    if status != _abi.QUIP_OK:
        name = lib.quip_status_name(status).decode()
        raise kind_of(name)(error.message.decode("utf-8", "replace"))


class Handle:
    """A pointer to an object of the library, as an argument of its functions. It is closed when the
    last reference is gone. A running call has a reference, so another thread may close the owner
    meanwhile."""

    def __init__(self, close: Callable[[Handle], None]) -> None:
        self._as_parameter_ = ctypes.c_void_p()  # ctypes passes this
        self._close = close
        self._process = os.getpid()

    @property
    def address(self) -> Any:
        """The address to which an open function writes the pointer."""
        return ctypes.byref(self._as_parameter_)

    @property
    def is_inherited(self) -> bool:
        """True if this process is a fork of the one that opened it."""
        return self._process != os.getpid()

    def __del__(self, is_ending: Callable[[], bool] = sys.is_finalizing) -> None:
        # When the program ends, closing could wait for a daemon thread that has stopped for good,
        # and modules may be gone already. A fork does not have the threads of its parent.
        if self._as_parameter_ and not is_ending() and not self.is_inherited:
            self._close(self)


Self = TypeVar("Self", bound="Closeable")


class Closeable:
    """Closed at the end of a `with` block."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


class Owner(Closeable):
    """Owns an object of the library until it is closed. It cannot be copied."""

    _handle: Optional[Handle] = None

    @property
    def handle(self) -> Handle:
        """The object, for calls of the library."""
        if self._handle is None:
            raise ValueError(f"the {type(self).__name__.lower()} is closed")
        return self._handle

    def close(self) -> None:
        self._handle = None

    def __reduce__(self) -> NoReturn:  # of copy and pickle, which would double the pointer
        raise TypeError(f"a quip.{type(self).__name__} cannot be copied or sent to a process")


def path_bytes(path: StrPath) -> bytes:
    """A path as the library expects it."""
    data = os.fsencode(path)
    if b"\0" in data:
        raise ValueError("the path contains a NUL character")
    if data.startswith(b"~") and not os.path.exists(data):
        raise IOError(f"{os.fsdecode(data)}: No such file or directory; use os.path.expanduser for ~")
    return data


def text_bytes(name: str, text: str) -> bytes:
    """UTF-8 of a text."""
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}; must be a str")
    return text.encode()


def c_text(name: str, text: str) -> bytes:
    """UTF-8 of a text that ends with a NUL in C, and so must not contain one."""
    data = text_bytes(name, text)
    if b"\0" in data:
        raise ValueError(f"{name} contains a NUL character")
    return data


Struct = TypeVar("Struct", bound=ctypes.Structure)


def sized(kind: Type[Struct]) -> Struct:
    """A new struct for the library to fill, with its struct_size."""
    struct = kind()
    setattr(struct, "struct_size", ctypes.sizeof(kind))
    return struct


def fields_of(struct: ctypes.Structure) -> Dict[str, Any]:
    """The fields of a struct that the library filled, by name."""
    values = {field[0]: getattr(struct, field[0]) for field in struct._fields_}
    del values["struct_size"]
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


# Fields that are not options by themselves.
_HIDDEN = {"reserved", "n_stop", "n_logit_bias", "has_seed", "no_weights", "name", "struct_size"}


def _flag(value: Any) -> bool:
    if value not in (False, True):
        raise TypeError
    return bool(value)


def _address(value: Any) -> Any:
    """Accept bytes, arrays and handles. A number would be used as an address and crash."""
    if isinstance(value, (int, float, str)):
        raise TypeError
    return value._as_parameter_ if isinstance(value, Handle) else value


# ctypes does not check these types when a field is set.
_CHECKS = {
    ctypes.c_bool: _flag,
    ctypes.c_char_p: _address,
    ctypes.c_void_p: _address,
    ctypes.c_int: operator.index,
    ctypes.c_int32: operator.index,
    ctypes.c_uint64: operator.index,
}


def fill(struct: ctypes.Structure, **values: Any) -> None:
    """Set fields of an option struct. An unknown field, or a value that does not fit, is an error
    that names it. ctypes alone would add a new attribute, or truncate the value."""
    kinds = {field[0]: field[1] for field in struct._fields_}
    for name, value in values.items():
        if name not in kinds or name == "reserved":
            known = ", ".join(sorted(kinds.keys() - _HIDDEN))
            raise TypeError(f"unknown option {name}; must be one of {known}")
        kind = kinds[name]
        try:
            c_value = _CHECKS[kind](value) if kind in _CHECKS else value
            setattr(struct, name, c_value)
        except TypeError:
            raise TypeError(f"{name} cannot be {value!r}") from None
        if kind in (ctypes.c_int, ctypes.c_uint64) and getattr(struct, name) != c_value:
            raise OverflowError(f"{name} is {value}, which does not fit")
    struct.held = values  # keeps alive what the struct points to
