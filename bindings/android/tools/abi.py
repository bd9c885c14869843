#!/usr/bin/env python3
"""quip.h -> Abi.java: the constants, and where each field of an option struct is, on 64-bit systems.

    tools/abi.py [OUT.java]      default: src/main/java/com/quip/Abi.java

The file is in the repository, so that Android Studio needs no Python. tests/android_java.sh checks
that it is what quip.h says.
"""

import pathlib
import re
import sys

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
sys.path.insert(0, str(ROOT / "bindings/python/tools"))

from abi import HEADER, Header  # noqa: E402  the reader of quip.h, shared with the Python package

STRUCTS = [
    "quip_model_options",
    "quip_model_info",
    "quip_session_options",
    "quip_logit_bias",
    "quip_result",
    "quip_plan",
    "quip_embed_options",
]


def constant(name, value):
    return f"    static final int {name} = {value};"


def render(h):
    lines = ["/** Constants and struct layouts of quip.h. Made by tools/abi.py. */", "final class Abi {"]
    for values in h.enums.values():
        lines += [constant(re.sub(r"^QUIP_", "", k), v) for k, v in values.items()] + [""]
    for struct in STRUCTS:
        layout, prefix = h.layout(struct, 8), struct.removeprefix("quip_").upper()
        lines.append(constant(f"{prefix}_BYTES", layout["size"]))
        for field, (offset, _) in layout["fields"].items():
            lines.append(constant(f"{prefix}__{field.upper()}", offset))
        lines.append("")
    return "\n".join(["package com.quip;", "", *lines, "    private Abi() {}", "}"]) + "\n"


if __name__ == "__main__":
    default = PACKAGE / "src/main/java/com/quip/Abi.java"
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    out.write_text(render(Header(HEADER.read_text())))
