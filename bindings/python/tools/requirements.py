#!/usr/bin/env python3
"""All requirements of pyproject.toml, to build, to run and to test, a line each."""

import pathlib
import re

text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text()
for requirements in re.findall(r"^(?:requires|dependencies|test) = \[(.*)\]$", text, re.M):
    print(*re.findall(r'"(.*?)"', requirements), sep="\n")
