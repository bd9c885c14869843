"""The constants and layouts that bindings have are those that the C compiler finds in quip.h."""

import ctypes
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from quip import _abi

STRUCTS = [s for s in vars(_abi).values() if isinstance(s, type) and s.__module__ == _abi.__name__]
NUMBERS = {
    k: v for k, v in vars(_abi).items() if k.startswith("QUIP_") and not isinstance(v, str)
}
CC = os.environ.get("CC", "cc")
WASM = [shutil.which("clang-19") or "clang", "--target=wasm32-wasi"]
TARGETS = {"64": [CC], "32": [*WASM, "-isystem", "/usr/include/wasm32-wasi"]}


def test_ctypes_layouts(tmp_path):
    lines = []
    for s in STRUCTS:
        lines.append(f'printf("%zu\\n", sizeof({s.__name__}));')
        for name, *_ in s._fields_:
            field = f"(({s.__name__} *)0)->{name}"
            lines.append(f'printf("%zu %zu\\n", offsetof({s.__name__}, {name}), sizeof {field});')
    lines += [f'printf("%d\\n", (int){name});' for name in NUMBERS]
    source = tmp_path / "layouts.c"
    source.write_text(
        "#include <quip.h>\n#include <stdio.h>\nint main(void)\n{\n" + "\n".join(lines) + "\n}\n"
    )
    program = tmp_path / "layouts"
    subprocess.run([CC, f"-I{ROOT}/include", source, "-o", program], check=True)
    found = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()

    expected = []
    for s in STRUCTS:
        expected.append(ctypes.sizeof(s))
        for name, *_ in s._fields_:
            expected += [getattr(s, name).offset, getattr(s, name).size]
    expected += NUMBERS.values()
    assert list(map(int, found)) == expected
    assert len(STRUCTS) >= 8 and len(NUMBERS) >= 22


@pytest.fixture
def abi(tmp_path):
    out = tmp_path / "abi.json"
    subprocess.run([sys.executable, ROOT / "bindings/python/tools/abi.py", out], check=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize("bits", TARGETS)
def test_json_layouts(abi, bits, tmp_path):
    command = TARGETS[bits]
    if bits == "32" and not (shutil.which(command[0]) and os.path.isdir(command[-1])):
        pytest.skip("no compiler for wasm32")
    lines = ["#include <quip.h>", "#define IS(a, b) _Static_assert((a) == (b), #a)"]
    for name, layouts in abi["structs"].items():
        lines.append(f"IS(sizeof({name}), {layouts[bits]['size']});")
        for field, (offset, size) in layouts[bits]["fields"].items():
            lines.append(f"IS(offsetof({name}, {field}), {offset});")
            lines.append(f"IS(sizeof((({name} *)0)->{field}), {size});")
    for values in abi["enums"].values():
        lines += [f"IS({name}, {value});" for name, value in values.items()]
    source = tmp_path / "layouts.c"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run([*command, f"-I{ROOT}/include", "-fsyntax-only", source], check=True)


def test_texts(abi):
    assert _abi.QUIP_VERSION == abi["texts"]["QUIP_VERSION"]


def test_every_function_is_there():
    class Names:
        def __init__(self):
            self.bound = {}

        def __getattr__(self, name):
            return self.bound.setdefault(name, type("Function", (), {})())

    names = Names()
    _abi.bind(names)
    header = (ROOT / "include/quip.h").read_text()
    assert header.count("\nQUIP_API ") == len(names.bound)
    for name in names.bound:
        assert f"{name}(" in header
