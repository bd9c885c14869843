#!/usr/bin/env python3
"""gguf_samples.py FILE: writes a GGUF file with two rows of random blocks of each type of
dtype_codes.c, and prints the hash of the floats that the Python package gguf reads from them
(tests/format.c). Needs gguf and numpy. Type Q1_0 is not in gguf.quants, so it is read here.
"""

import struct
import sys

import gguf
import numpy as np

TYPES = {"IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "MXFP4": (39, 32, 17),
         "NVFP4": (40, 64, 36), "TQ1_0": (34, 256, 54), "TQ2_0": (35, 256, 66), "Q1_0": (41, 128, 18)}  # fmt: skip
HALF = {"IQ4_NL": 0, "IQ4_XS": 0, "TQ1_0": 52, "TQ2_0": 64, "Q1_0": 0}  # offset of the binary16 scale
OTHER = ("IQ2_XS", 17, 256, 74)  # a type that is not read
N_COLS = 512


def blocks_of(name, size, block, rng):
    n = 2 * N_COLS // block
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if name in HALF:
        scale = (rng.standard_normal(n) * 0.1).astype(np.float16)
        b[:, HALF[name] : HALF[name] + 2] = scale.view(np.uint8).reshape(n, 2)
    if name == "MXFP4":
        b[:, 0] = rng.integers(100, 140, n)
        b[:4, 0] = 0, 1, 2, 255
    return b


def floats_of(name, b):
    if name != "Q1_0":
        kind = gguf.GGMLQuantizationType[name]
        return gguf.quants.dequantize(b.reshape(2, -1), kind).astype(np.float32).reshape(-1)
    d = np.ascontiguousarray(b[:, :2]).view(np.float16).astype(np.float32)
    return np.where(np.unpackbits(b[:, 2:], axis=1, bitorder="little"), d, -d).reshape(-1)


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    rng = np.random.default_rng(12)
    infos, data = b"", b""
    for name, (number, block, size) in [*TYPES.items(), (OTHER[0], OTHER[1:])]:
        data += b"\0" * (-len(data) % 32)
        infos += struct.pack("<Q", len(name)) + name.encode()
        infos += struct.pack("<IQQIQ", 2, N_COLS, 2, number, len(data))
        b = blocks_of(name, size, block, rng)
        data += b.tobytes()
        if name in TYPES:
            print(f'{{ "{name}", {2 * N_COLS}, 0x{fnv1a(floats_of(name, b).tobytes()):016x} }},')
    head = b"GGUF" + struct.pack("<IQQ", 3, len(TYPES) + 1, 0) + infos
    with open(sys.argv[1], "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32) + data)


main()
