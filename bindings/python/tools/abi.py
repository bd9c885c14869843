#!/usr/bin/env python3
"""include/quip.h -> the types and functions of the library, for ctypes.

    tools/abi.py OUT.py

The wheel's build runs it, so that the two are never apart. Reads the C of that one header, not C:
comments and preprocessor lines go; what remains are enums, structs, opaque handles, function types
and functions. What it does not know stops it.
"""

import pathlib
import re
import sys

HEADER = pathlib.Path(__file__).resolve().parents[3] / "include/quip.h"

# C type -> ctypes type, and the Python type that reading a struct's field gives
NUMBERS = {
    "bool": ("c_bool", "bool"),
    "int": ("c_int", "int"),
    "int32_t": ("c_int32", "int"),
    "uint32_t": ("c_uint32", "int"),
    "uint64_t": ("c_uint64", "int"),
    "size_t": ("c_size_t", "int"),
    "float": ("c_float", "float"),
    "double": ("c_double", "float"),
}


class Header:
    def __init__(self, text):
        self.enums, self.structs, self.callbacks, self.functions = {}, {}, {}, {}
        self.handles, self.numbers = set(), dict(NUMBERS)
        for statement in self.statements(text):
            self.read(statement)

    @staticmethod
    def statements(text):
        """What stands before each semicolon outside of braces, on one line."""
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
        text = re.sub(r"#define QUIP_VERSION[^\n]*|^#(?:[^\n]*\\\n)*[^\n]*$", " ", text, flags=re.M)
        text = text.replace('extern "C" {', " ")
        depth, begin = 0, 0
        for i, c in enumerate(text):
            depth += {"{": 1, "}": -1}.get(c, 0)
            if c == ";" and depth == 0:
                yield " ".join(text[begin:i].split())
                begin = i + 1

    def read(self, s):
        if m := re.fullmatch(r"typedef enum (\w+) \{(.*)\} \1", s):
            self.enums[m[1]] = self.enumerators(m[2])
            self.numbers[m[1]] = ("c_int", "int")
        elif m := re.fullmatch(r"typedef struct (\w+) \{(.*)\} \1", s):
            self.structs[m[1]] = [f for d in m[2].split(";") if d.strip() for f in self.fields(d)]
        elif m := re.fullmatch(r"typedef struct (\w+) \1", s):
            self.handles.add(m[1])
        elif m := re.fullmatch(r"typedef (\w+) (\w+)", s):
            self.numbers[m[2]] = self.numbers[m[1]]
        elif m := re.fullmatch(r"typedef (\w+) (\w+)\((.*)\)", s):
            self.callbacks[m[2]] = self.function_type(m[1], m[3])
        elif m := re.fullmatch(r"QUIP_API ([\w ]+?[ *]+)(\w+)\((.*)\)", s):
            result = "None" if m[1].strip() == "void" else self.ctype(m[1])
            self.functions[m[2]] = (result, [self.ctype(t) for t in self.parameters(m[3])])
        else:
            raise SystemExit(f"{HEADER}: what is this? {s}")

    @staticmethod
    def enumerators(body):
        values, value = {}, 0
        for item in filter(None, map(str.strip, body.split(","))):
            name, _, number = map(str.strip, item.partition("="))
            value = int(number) if number else value
            values[name] = value
            value += 1
        return values

    @staticmethod
    def parameters(text):
        """Types alone; `void` is none. A name is the last word behind the type."""
        if text.strip() == "void":
            return []
        depth, begin, out = 0, 0, []
        for i, c in enumerate(text + ","):
            depth += {"(": 1, ")": -1}.get(c, 0)
            if c == "," and depth == 0:
                out.append(text[begin:i].strip())
                begin = i + 1
        return [t if "(" in t else re.sub(r"\w+$", "", t) for t in out]

    def function_type(self, result, parameters):
        types = [self.ctype(t, is_callback=True) for t in self.parameters(parameters)]
        result = "None" if result == "void" else self.numbers[result][0]
        return f"CFUNCTYPE({', '.join([result, *types])})"

    def fields(self, declaration):
        """(name, ctypes type, Python type) of `int a, b` or `char message[508]`."""
        declaration = declaration.strip()
        if m := re.fullmatch(r"(\w+) \(\*(\w+)\)\((.*)\)", declaration):
            return [(m[2], self.function_type(m[1], m[3]), "Any")]
        base, rest = re.fullmatch(r"((?:const )?\w+)(.*)", declaration).groups()
        out = []
        for item in rest.split(","):
            stars, name, count = re.fullmatch(
                r"((?: |\*|const\b)*)(\w+)(?:\[(\d+)\])?", item
            ).groups()
            if count and base == "char":
                out.append((name, f"c_char * {count}", "bytes"))
            elif count:
                out.append((name, f"{self.ctype(base)} * {count}", "Any"))
            else:
                out.append((name, *self.types(base + stars)))
        return out

    def types(self, c, is_callback=False):
        base = c.replace("const", "").replace("*", "").strip()
        stars = c.count("*")
        if base == "char" and stars == 1:
            # in a callback it has a length and no NUL: an address
            return ("c_void_p", "Any") if is_callback else ("c_char_p", "Optional[bytes]")
        if base == "char" and stars == 2:  # an array of texts, or where to put the address of one
            return ("POINTER(c_char_p)" if c.count("const") == 2 else "POINTER(c_void_p)", "Any")
        if "(*" in c:  # void (*release)(void *)
            m = re.fullmatch(r"(\w+) \(\*\w*\)\((.*)\)", c)
            return (self.function_type(m[1], m[2]), "Any")
        if base in self.callbacks and stars == 1:
            return (base, "Any")
        if base in self.structs and stars == 1:
            return (f"POINTER({base})", "Any")
        if base in self.handles or base == "void":
            return ("c_void_p" if stars == 1 else "POINTER(c_void_p)", "Any")
        if base in self.numbers:
            kind, python = self.numbers[base]
            return (f"POINTER({kind})", "Any") if stars else (kind, python)
        raise SystemExit(f"{HEADER}: what type is this? {c}")

    def ctype(self, c, is_callback=False):
        return self.types(c, is_callback)[0]


def render(h):
    out = []
    for values in h.enums.values():
        out += [f"{name} = {value}" for name, value in values.items()] + [""]
    for name, kind in h.callbacks.items():
        out.append(f"{name} = {kind}")
    for name, fields in h.structs.items():
        out += ["", "", f"class {name}(Structure):"]
        out += [f"    {field}: {python}" for field, _, python in fields]
        out += ["    _fields_ = ["]
        out += [f'        ("{field}", {kind}),' for field, kind, _ in fields] + ["    ]"]
    out += ["", "", "def bind(library: CDLL) -> None:", '    """Say what each function takes."""']
    for name, (result, parameters) in h.functions.items():
        out.append(f"    library.{name}.restype = {result}")
        types = ", ".join(parameters)
        if len(name) + len(types) > 70:
            types = "\n        " + ",\n        ".join(parameters) + ",\n    "
        out.append(f"    library.{name}.argtypes = [{types}]")
    body = "\n".join(out) + "\n"
    used = sorted(set(re.findall(r"\b(?:CDLL|CFUNCTYPE|POINTER|Structure|c_\w+)\b", body)))
    typing = [name for name in ("Any", "Optional") if re.search(rf"\b{name}\b", body)]
    return HEAD.format(",\n".join(f"    {name}" for name in used), ", ".join(typing), body)


HEAD = '''"""The types and functions of quip.h. Made from it by tools/abi.py."""

from ctypes import (
{},
)
from typing import {}

{}'''


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(render(Header(HEADER.read_text())))
