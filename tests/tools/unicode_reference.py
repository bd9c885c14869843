#!/usr/bin/env python3
"""Prints the hashes of tests/unicode.c: what Hugging Face's tokenizers does to every code point, and to random
sequences of marks and letters.

usage: pip install tokenizers==0.23.3
       tests/tools/unicode_reference.py"""
from tokenizers import Regex, normalizers

# Half of the characters of a sequence are from these ranges, where most of what composes and reorders is.
RANGES = [(0x41, 0x5A), (0x300, 0x36F), (0x483, 0x489), (0x591, 0x5BD), (0x610, 0x65F), (0x898, 0x8FF), (0x900, 0xD7F),
          (0xF71, 0xF84), (0x1100, 0x11FF), (0x1AB0, 0x1ACE), (0x1DC0, 0x1DFF), (0x1E00, 0x1FFF), (0x3041, 0x309F),
          (0xAC00, 0xAC40), (0xFE20, 0xFE2F), (0x10F46, 0x10F50), (0x11930, 0x11943), (0x1D15E, 0x1D172)]
N_SEQUENCES, LENGTH = 100000, 8


def hash_text(h, text):
    for byte in text.encode():
        h = (h ^ byte) * 1099511628211 & (1 << 64) - 1
    return h


def sequences():
    state = 1

    def draw(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        return (state >> 33) % n

    for _ in range(N_SEQUENCES):
        text = ""
        for _ in range(LENGTH):
            first, last = RANGES[draw(len(RANGES))] if draw(2) else (0x20, 0x1FFFF)
            c = first + draw(last - first + 1)
            text += "" if 0xD800 <= c < 0xE000 else chr(c)
        yield text


def main():
    forms = [("NFC", normalizers.NFC()), ("NFD", normalizers.NFD()), ("NFKC", normalizers.NFKC()),
             ("lower case", normalizers.Lowercase()), ("accents", normalizers.StripAccents())]
    for name, form in forms:
        h = 14695981039346656037
        for c in range(0x110000):
            if not 0xD800 <= c < 0xE000:
                h = hash_text(h, form.normalize_str(chr(c)) + "\n")
        g = 14695981039346656037
        for text in sequences():
            g = hash_text(g, form.normalize_str(text) + "\n")
        print('{ "%s", 0x%016xu, 0x%016xu },' % (name, h, g))
    for regex in (r"\p{L}", r"\p{N}", r"\p{M}", r"\s", r"\p{Pc}"):
        drop, h = normalizers.Replace(Regex(regex), ""), 14695981039346656037
        for c in range(0x110000):
            if not 0xD800 <= c < 0xE000:
                h = hash_text(h, "0" if drop.normalize_str(chr(c)) else "1")
        print('{ "%s", 0x%016xu },' % (regex.replace("\\", "\\\\"), h))


main()
