#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.c: the class of every code point, as the pre-tokenizers ask for it.

usage: tools/unicode_tables.py > src/tokenizer/unicode_tables.c
       clang-format -i src/tokenizer/unicode_tables.c

Classes: see enum char_class in src/tokenizer/tokenizer_impl.h. White space is Unicode's White_Space
property. The word class holds what a regular expression's \\w has beside letters and digits: marks,
connectors, the two joiners, and the symbols of Other_Alphabetic.
Compositions (NFC) are not here."""
import unicodedata

OTHER, LETTER, DIGIT, NUMERIC, SPACE, WORD = range(6)

WHITE_SPACE = {0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
               *range(0x09, 0x0E), *range(0x2000, 0x200B)}
ALPHABETIC_SYMBOLS = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A),
                      *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
JOINERS = {0x200C, 0x200D}


def char_class(c):
    category = unicodedata.category(chr(c))
    if c in WHITE_SPACE:
        return SPACE
    if category[0] == "L":
        return LETTER
    if category in ("Nd", "Nl"):
        return DIGIT
    if category == "No":
        return NUMERIC
    if category[0] == "M" or category == "Pc" or c in ALPHABETIC_SYMBOLS or c in JOINERS:
        return WORD
    return OTHER


def main():
    classes = [char_class(c) for c in range(0x110000)]
    runs = [c << 3 | classes[c] for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]
    print("/* unicode_tables.c: the class of every code point. Written by tools/unicode_tables.py from")
    print(" * Unicode %s; do not edit. */" % unicodedata.unidata_version)
    print('#include "tokenizer/tokenizer_impl.h"\n')
    print("// The class of each ASCII character.")
    print("const uint8_t qp_ascii_class[128] = {")
    print(", ".join(str(k) for k in classes[:128]))
    print("};\n")
    print("// Runs of one class, in order: first code point << 3 | class.")
    print("const uint32_t qp_class_runs[] = {")
    print(", ".join("0x%x" % r for r in runs))
    print("};")
    print("const int qp_n_class_runs = QP_COUNT(qp_class_runs);")


main()
