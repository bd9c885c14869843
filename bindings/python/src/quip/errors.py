"""Exceptions: one for each quip_status, named after it, with the library's sentence as text.

Each is also the built-in exception that a Python programmer would expect: quip.IOError is an
OSError, quip.ArgumentError a ValueError.
"""

from __future__ import annotations

import builtins
from typing import Type


class Error(Exception):
    """What every failure of the library is. `status` is quip.h's short name of its kind."""

    status = "error"


class ArgumentError(Error, ValueError):
    """The caller passed something that cannot be."""

    status = "argument"


class MemoryError(Error, builtins.MemoryError):
    """An allocation failed."""

    status = "memory"


class IOError(Error, OSError):
    """A file could not be read or written."""

    status = "io"


class FormatError(Error, ValueError):
    """A file is not what it claims to be."""

    status = "format"


class UnsupportedError(Error, NotImplementedError):
    """Well-formed, but not something that this build can do."""

    status = "unsupported"


class ContextFullError(Error):
    """The tokens do not fit in the session's n_context."""

    status = "context_full"


class CancelledError(Error):
    """Session.cancel was called."""

    status = "cancelled"


_KINDS = {
    kind.status: kind
    for kind in (
        ArgumentError,
        MemoryError,
        IOError,
        FormatError,
        UnsupportedError,
        ContextFullError,
        CancelledError,
    )
}


def kind_of(status_name: str) -> Type[Error]:
    """The exception that quip_status_name's word stands for."""
    return _KINDS.get(status_name, Error)
