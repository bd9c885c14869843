#!/usr/bin/env python3
"""src/webgpu/*.wgsl -> a C file with their texts, without comments and most spaces: a page downloads
them. subgroup.wgsl is empty: it is in the scripts (engine/gpu.ts). The linker drops those that only
matrix units use, which no browser offers. cmake/embed.cmake makes the same names for the native
library.
"""

import argparse
import json
import pathlib
import re

SHADERS = pathlib.Path(__file__).resolve().parents[3] / "src/webgpu"


def shorten(text):
    """The same tokens. A space stays between two words, and between two operators."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?<=\w) (?=\W)|(?<=\W) (?=\w)|(?<=[(){},;:]) | (?=[(){},;:])", "", text) + "\n"


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("output", metavar="OUT.c", type=pathlib.Path)
output = parser.parse_args().output

out = ["/* Made by tools/shaders.py. */"]
for path in sorted(SHADERS.glob("*.wgsl")):
    name = f"qp_wgsl_{path.stem}"
    text = "" if path.stem == "subgroup" else shorten(path.read_text())
    out.append(f"extern const char {name}[];\nconst char {name}[] = {json.dumps(text)};")
output.write_text("\n".join(out) + "\n")
