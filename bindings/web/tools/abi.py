#!/usr/bin/env python3
"""quip.h and quip_web.h -> the constants, struct layouts and functions that JavaScript uses.

    tools/abi.py OUT.ts    for the package
    tools/abi.py OUT.json  the same, for tests
    tools/abi.py OUT.c     static asserts: the compiler's layouts are these
    tools/abi.py OUT.h     QUIP_WEB_ABI, the fingerprint that the module reports
    tools/abi.py OUT.txt   options of wasm-ld that export the functions

The builds run it, so that JavaScript and C never differ. A layout has two sizes and offsets: with
32-bit and with 64-bit memory.
"""

import json
import pathlib
import re
import sys
import zlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
sys.path.insert(0, str(ROOT / "bindings/python/tools"))

from abi import Header  # noqa: E402  the reader of quip.h, shared with the Python package

HEADERS = [
    ROOT / "include/quip.h",
    PACKAGE / "native/quip_web.h",
    PACKAGE / "sysroot/include/web_threads.h",
]

# ctypes type -> (kind, sizes with 32-bit and 64-bit memory); everything else is a pointer
KINDS = {
    "c_bool": ("bool", 1, 1),
    "c_int": ("i32", 4, 4),
    "c_int32": ("i32", 4, 4),
    "c_uint32": ("u32", 4, 4),
    "c_uint64": ("u64", 8, 8),
    "c_float": ("f32", 4, 4),
    "c_double": ("f64", 8, 8),
    "c_size_t": ("address", 4, 8),
}
POINTER = ("address", 4, 8)

# These need a path, an open file or a function pointer. A page has none of them.
LEFT_OUT = re.compile(r"CFUNCTYPE|quip_on_|quip_source")
PATHS = {"quip_model_open", "quip_model_open_fd", "quip_adapter_open"}


def read_headers():
    text = "".join(path.read_text() for path in HEADERS)
    text = re.sub(r"^#ifdef __cplusplus\n.*?^#endif\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^enum (\w+) (\{[^}]*\});", r"typedef enum \1 \2 \1;", text, flags=re.M)
    return Header(text)


def layout(fields):
    """{size: [with 32 bits, with 64 bits], fields: {name: [kind, offset, offset]}}"""
    ends, widest, out = [0, 0], [1, 1], {}
    for name, ctype, _ in fields:
        base, _, count = ctype.partition(" * ")
        if base == "c_char":
            kind, *sizes = ("text", 1, 1)
        else:
            kind, *sizes = KINDS.get(base, POINTER)
        offsets = [-(-end // size) * size for end, size in zip(ends, sizes)]
        ends = [at + size * int(count or 1) for at, size in zip(offsets, sizes)]
        widest = [max(pair) for pair in zip(widest, sizes)]
        out[name] = [kind, *offsets]
    return {"size": [-(-end // w) * w for end, w in zip(ends, widest)], "fields": out}


def signature(result, parameters):
    """A letter for each argument, and the result after ">" if it is an address: a is an address or
    a size, n another number."""

    def letter(ctype):
        return "n" if ctype in KINDS and KINDS[ctype][0] != "address" else "a"

    arguments = "".join(map(letter, parameters))
    return arguments + (">a" if result != "None" and letter(result) == "a" else "")


def exported(h):
    return {
        name: types
        for name, types in h.functions.items()
        if name not in PATHS and not any(LEFT_OUT.search(t) for t in types[1])
    }


def tables(h):
    found = {
        "enums": h.enums,
        "structs": {name: layout(fields) for name, fields in h.structs.items()},
        "functions": {name: signature(*types) for name, types in exported(h).items()},
    }
    # a positive int in C and in JavaScript
    return {"fingerprint": zlib.crc32(json.dumps(found).encode()) & 0x7FFFFFFF, **found}


def render_c(h):
    includes = [f'#include "{path}"' for path in HEADERS]
    checks = ["#include <stddef.h>", "", "enum { IS_64 = sizeof(void *) == 8 };"]
    for name, struct in tables(h)["structs"].items():
        a, b = struct["size"]
        checks.append(f'_Static_assert(sizeof({name}) == (IS_64 ? {b} : {a}), "{name}");')
        for field, (_, a, b) in struct["fields"].items():
            text = f"{name}.{field}"
            offset = f"offsetof({name}, {field})"
            checks.append(f'_Static_assert({offset} == (IS_64 ? {b} : {a}), "{text}");')
    for values in h.enums.values():
        checks += [f'_Static_assert({k} == {v}, "{k}");' for k, v in values.items()]
    return "\n".join(includes + checks) + "\n"


def render_ts(h):
    body = json.dumps(tables(h), indent=1)
    return f"/** abi.ts: made by tools/abi.py from quip.h. */\nexport const abi = {body} as const;\n"


RENDER = {
    ".ts": render_ts,
    ".json": lambda h: json.dumps(tables(h)),
    ".c": render_c,
    ".h": lambda h: f"#define QUIP_WEB_ABI {tables(h)['fingerprint']}\n",
    ".txt": lambda h: "".join(f"--export-if-defined={name}\n" for name in exported(h)),
}

if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.write_text(RENDER[out.suffix](read_headers()))
