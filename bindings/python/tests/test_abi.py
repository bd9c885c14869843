"""The types that ctypes has are those that the C compiler sees in quip.h."""

import ctypes
import os
import subprocess

from conftest import ROOT
from quip import _abi

STRUCTS = [s for s in vars(_abi).values() if isinstance(s, type) and s.__module__ == _abi.__name__]
NUMBERS = {k: v for k, v in vars(_abi).items() if k.startswith("QUIP_")}


def test_layouts(tmp_path):
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
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, f"-I{ROOT}/include", source, "-o", program], check=True)
    found = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()

    expected = []
    for s in STRUCTS:
        expected.append(ctypes.sizeof(s))
        for name, *_ in s._fields_:
            expected += [getattr(s, name).offset, getattr(s, name).size]
    expected += NUMBERS.values()
    assert list(map(int, found)) == expected
    assert len(STRUCTS) >= 7 and len(NUMBERS) >= 18


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
