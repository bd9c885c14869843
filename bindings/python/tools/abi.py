#!/usr/bin/env python3
"""Reads include/quip.h for bindings: constants, structs, callback types and functions.

    tools/abi.py OUT.py       declarations for ctypes; the wheel's build runs this
    tools/abi.py OUT.json     constants, and where each field of a struct is: for bindings that read
                              and write memory, such as the Web binding

It does not parse C in general, only the forms that quip.h uses: enums, structs, opaque handles,
callback types, functions and #define of a text. Anything else stops it.
"""

import json
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


# Sizes of ctypes types; all others are as large as a pointer
SIZES = {
    "c_bool": 1,
    "c_char": 1,
    "c_int": 4,
    "c_int32": 4,
    "c_uint32": 4,
    "c_float": 4,
    "c_uint64": 8,
    "c_double": 8,
}


class Header:
    def __init__(self, text):
        self.enums, self.structs, self.callbacks, self.functions = {}, {}, {}, {}
        self.handles, self.numbers = set(), dict(NUMBERS)
        self.texts = dict(re.findall(r'^#define (QUIP_\w+) ("[^"]*")$', text, flags=re.M))
        for statement in self.statements(text):
            self.read(statement)

    @staticmethod
    def statements(text):
        """The text before each semicolon outside of braces, on one line."""
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
        text = re.sub(r"^#(?:[^\n]*\\\n)*[^\n]*$", " ", text, flags=re.M)
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
            fields = [f for d in m[2].split(";") if d.strip() for f in self.fields(d)]
            names = {name for name, *_ in fields}
            # a text with a length has no NUL
            self.structs[m[1]] = [
                (n, "c_void_p", "Any") if k == "c_char_p" and f"n_{n}" in names else (n, k, p)
                for n, k, p in fields
            ]
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
            raise SystemExit(f"{HEADER}: unknown declaration: {s}")

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
        """The types without the names; none for `void`."""
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
        if base in self.callbacks and stars == 1:
            return (base, "Any")
        if base in self.structs and stars == 1:
            return (f"POINTER({base})", "Any")
        if base in self.handles or base == "void":
            return ("c_void_p" if stars == 1 else "POINTER(c_void_p)", "Any")
        if base in self.numbers:
            kind, python = self.numbers[base]
            return (f"POINTER({kind})", "Any") if stars else (kind, python)
        raise SystemExit(f"{HEADER}: unknown type: {c}")

    def ctype(self, c, is_callback=False):
        return self.types(c, is_callback)[0]


    def layout(self, struct, pointer_size):
        """The size of a struct and {field: [offset, size]}, with natural alignment."""
        at, alignment, fields = 0, 1, {}
        for name, kind, _ in self.structs[struct]:
            kind, _, count = kind.partition(" * ")
            size = SIZES.get(kind, pointer_size)
            at = -(-at // size) * size
            fields[name] = [at, size * int(count or 1)]
            at += fields[name][1]
            alignment = max(alignment, size)
        return {"size": -(-at // alignment) * alignment, "fields": fields}


def render_json(h):
    structs = {
        name: {str(8 * size): h.layout(name, size) for size in (4, 8)} for name in h.structs
    }
    texts = {name: json.loads(text) for name, text in h.texts.items()}
    return json.dumps({"texts": texts, "enums": h.enums, "structs": structs}, indent=1) + "\n"


def render_python(h):
    out = [f"{name} = {text}" for name, text in h.texts.items()] + [""]
    for values in h.enums.values():
        out += [f"{name} = {value}" for name, value in values.items()] + [""]
    for name, kind in h.callbacks.items():
        out.append(f"{name} = {kind}")
    for name, fields in h.structs.items():
        out += ["", "", f"class {name}(Structure):"]
        out += [f"    {field}: {python}" for field, _, python in fields]
        out += ["    _fields_ = ["]
        out += [f'        ("{field}", {kind}),' for field, kind, _ in fields] + ["    ]"]
    out += ["", "", "def bind(library: CDLL) -> None:", '    """Declare each function."""']
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


HEAD = '''"""The constants, types and functions of quip.h. Generated by tools/abi.py."""

from ctypes import (
{},
)
from typing import {}

{}'''


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    render = render_json if target.suffix == ".json" else render_python
    target.write_text(render(Header(HEADER.read_text())))
