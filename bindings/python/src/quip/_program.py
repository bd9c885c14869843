"""Runs the native `quip` program, which the wheel contains: as a command, and to convert files."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import warnings
from typing import Any, Callable, Dict, List, NoReturn, Optional

from ._library import StrPath
from .errors import ArgumentError, Error, kind_of

PROGRAM = pathlib.Path(__file__).parent / "bin" / "quip"


def main() -> NoReturn:
    """Replace this process by the native program, which then handles signals and the terminal."""
    os.execv(PROGRAM, ["quip", *sys.argv[1:]])


def run(
    command: str,
    options: Dict[str, Any],
    words: List[StrPath],
    on_line: Optional[Callable[[Dict[str, Any]], None]] = None,
) -> None:
    """Run a command of the program. An option that is None or False is left out, True is a flag, and
    a list is one option for each item. `on_line` receives the JSON objects that the command prints.
    If this is interrupted, the command removes its incomplete files before this returns."""
    arguments = [str(PROGRAM), command]
    for name, value in options.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is True:
                arguments.append(f"--{name}")
            elif item is not None and item is not False:
                arguments.append(f"--{name}={item}")
    arguments += ["--", *(os.fspath(word) for word in words)]
    error: Optional[Error] = None
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        try:
            for text in process.stdout:
                line = json.loads(text)
                if line.get("event") == "error":
                    error = kind_of(line["status"])(line["message"])
                elif on_line:
                    on_line(line)
            said = process.stderr.read().decode("utf-8", "replace").strip()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if error:
        raise error
    if process.returncode:
        kind = ArgumentError if process.returncode == 2 else Error
        if process.returncode < 0:  # -9: by a system without memory
            said = said or f"quip {command} was ended by signal {-process.returncode}"
        raise kind(said[len("quip: ") :] if said.startswith("quip: ") else said)
    for line in said.splitlines():
        if line.startswith("quip: "):  # what a conversion that succeeds cannot keep
            warnings.warn(line[len("quip: ") :], stacklevel=3)
