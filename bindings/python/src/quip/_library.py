"""libquip, which the wheel carries beside this file, and what calls to it have in common."""

from __future__ import annotations

import ctypes
import os
import pathlib
from typing import Any, Union

from . import _abi
from .errors import kind_of

StrPath = Union[str, "os.PathLike[str]"]

lib = ctypes.CDLL(str(pathlib.Path(__file__).parent / "lib" / "libquip.so"))
_abi.bind(lib)


def call(function: Any, *arguments: Any) -> None:
    """Call what returns a quip_status and takes a quip_error last; raise what it reports."""
    error = _abi.quip_error()
    status = function(*arguments, ctypes.byref(error))
    if status != _abi.QUIP_OK:
        name = lib.quip_status_name(status).decode()
        raise kind_of(name)(error.message.decode("utf-8", "replace"))


def path_bytes(path: StrPath) -> bytes:
    """A path as the library takes it."""
    data = os.fsencode(path)
    if b"\0" in data:
        raise ValueError("the path has a NUL character in it")
    return data


def text_bytes(name: str, text: str) -> bytes:
    """A text that ends with its NUL in C, and so may not have one."""
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character in it")
    return text.encode()


def fill(struct: ctypes.Structure, **values: Any) -> None:
    """Set fields of an option struct. What it does not have, or cannot hold, is named; ctypes
    alone would take the one for a new attribute, and cut the other to size."""
    kinds = {field[0]: field[1] for field in struct._fields_}
    for name, value in values.items():
        if name not in kinds or name == "reserved":
            known = ", ".join(sorted(kinds.keys() - {"reserved", "n_stop"}))
            raise TypeError(f"there is no option {name}; there are {known}")
        try:
            setattr(struct, name, value)
        except TypeError:
            raise TypeError(f"{name} cannot be {value!r}") from None
        is_number = isinstance(value, int) and kinds[name] is not ctypes.c_float
        if is_number and getattr(struct, name) != value:
            raise OverflowError(f"{name} cannot be {value}: it does not fit")
