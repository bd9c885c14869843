"""Exceptions: one for each quip_status, with the message of the library.

Each is also the built-in exception that a Python programmer would expect: quip.IOError is an
OSError, quip.ArgumentError a ValueError.
"""

from __future__ import annotations

import builtins
from typing import Type


class Error(Exception):
    """Any failure of the library. `status` is the short name of its kind, as in quip.h."""

    status = "error"


class ArgumentError(Error, ValueError):
    """The caller passed an invalid argument."""

    status = "argument"


class MemoryError(Error, builtins.MemoryError):
    """An allocation failed."""

    status = "memory"


class IOError(Error, OSError):
    """A file could not be read or written."""

    status = "io"


class FormatError(Error, ValueError):
    """A file is damaged, or is not of the expected kind."""

    status = "format"


class UnsupportedError(Error, NotImplementedError):
    """Valid, but this build or this machine cannot do it."""

    status = "unsupported"


class ContextFullError(Error):
    """The tokens do not fit into the session's n_context."""

    status = "context_full"


class CancelledError(Error):
    """Session.cancel was called."""

    status = "cancelled"


class DeviceError(Error):
    """The GPU failed or was removed: open the model again."""

    status = "device"


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
        DeviceError,
    )
}


def kind_of(status_name: str) -> Type[Error]:
    """The exception for a name from quip_status_name."""
    return _KINDS.get(status_name, Error)
