#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.c: the class of every code point for the pre-tokenizers, the tables
for normalizing to NFC, NFD and NFKC, and lower case.

usage: tools/unicode_tables.py > src/tokenizer/unicode_tables.c
       clang-format -i src/tokenizer/unicode_tables.c

Classes: see enum char_class in src/tokenizer/unicode.h. White space is Unicode's White_Space
property. The word class has what a regular expression's \\w matches besides letters, digits, marks and
connectors: the two joiners, and the symbols of Other_Alphabetic. Every printable ASCII character that
is not a letter or digit is punctuation. Hangul is composed by arithmetic and is not in the tables."""
import unicodedata

OTHER, LETTER, DIGIT, NUMERIC, SPACE, WORD, MARK, CONNECTOR, PUNCTUATION = range(9)

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
    if category[0] == "M":
        return MARK
    if category == "Pc":
        return CONNECTOR
    if c in ALPHABETIC_SYMBOLS or c in JOINERS:
        return WORD
    return PUNCTUATION if category[0] == "P" or (c < 128 and category[0] == "S") else OTHER


def runs_of(values, shift):
    return [c << shift | values[c] for c in range(0x110000) if c == 0 or values[c] != values[c - 1]]


def canonical_decompositions():
    for c in range(0x110000):
        parts = unicodedata.decomposition(chr(c)).split()
        if parts and not parts[0].startswith("<"):
            yield (c, int(parts[0], 16), int(parts[1], 16) if len(parts) > 1 else 0)


def compatibility_decompositions():
    """Full compatibility decompositions that differ from the canonical one."""
    for c in range(0x110000):
        whole = unicodedata.normalize("NFKD", chr(c))
        if whole != unicodedata.normalize("NFD", chr(c)):
            yield c, whole


def lower_case_runs():
    """Runs of code points, one or two apart, whose lower case is at the same distance. U+0130 is omitted,
    because its lower case is two characters."""
    runs = []
    for c in range(0x110000):
        lower = chr(c).lower()
        if c == 0x130 or lower == chr(c):
            continue
        far = ord(lower) - c
        if runs and runs[-1][3] == far:
            first, last, step, _ = runs[-1]
            if c - last == step or (first == last and c - last == 2):
                runs[-1] = (first, c, c - last, far)
                continue
        runs.append((c, c, 1, far))
    return runs


def put_array(comment, declaration, items):
    print("\n// %s" % comment)
    print("const %s = {" % declaration)
    print(", ".join(items))
    print("};")


def main():
    classes = [char_class(c) for c in range(0x110000)]
    marks = [unicodedata.combining(chr(c)) for c in range(0x110000)]
    decompositions = list(canonical_decompositions())
    compositions = [i for i, (c, first, second) in enumerate(decompositions)
                    if second and unicodedata.normalize("NFC", chr(c)) == chr(c)]
    compositions.sort(key=lambda i: decompositions[i][1:])
    print("/* unicode_tables.c: Unicode tables of the tokenizers. Written by tools/unicode_tables.py from")
    print(" * Unicode %s; do not edit. */" % unicodedata.unidata_version)
    print('#include "tokenizer/unicode.h"')
    put_array("The class of each ASCII character.", "uint8_t qp_ascii_class[128]",
              map(str, classes[:128]))
    put_array("Runs of one class, in order: first code point << 4 | class.",
              "uint32_t qp_class_runs[]", ("0x%x" % r for r in runs_of(classes, 4)))
    print("const int qp_n_class_runs = QP_COUNT(qp_class_runs);")
    put_array("Runs of one canonical combining class: first code point << 8 | class.",
              "uint32_t qp_mark_runs[]", ("0x%x" % r for r in runs_of(marks, 8)))
    print("const int qp_n_mark_runs = QP_COUNT(qp_mark_runs);")
    put_array("Canonical decompositions by code point: the code point, its first part, its second part or 0.",
              "uint32_t qp_decompositions[][3]",
              ("{ 0x%x, 0x%x, 0x%x }" % d for d in decompositions))
    print("const int qp_n_decompositions = QP_COUNT(qp_decompositions);")
    put_array("Decompositions that NFC composes, sorted by their parts: indices of qp_decompositions.",
              "uint16_t qp_compositions[]", map(str, compositions))
    print("const int qp_n_compositions = QP_COUNT(qp_compositions);")
    pool, rows = b"", []
    for c, whole in compatibility_decompositions():
        whole = whole.encode()
        if whole not in pool:
            pool += whole
        rows.append("{ 0x%x, 0x%x }" % (c, pool.index(whole) << 6 | len(whole)))
    put_array("Full compatibility decompositions: the code point, offset in the pool << 6 | length.",
              "uint32_t qp_compatibility[][2]", rows)
    print("const int qp_n_compatibility = QP_COUNT(qp_compatibility);")
    put_array("Their UTF-8.", "uint8_t qp_compatibility_pool[]", map(str, pool))
    put_array("Lower case: first and last code point of a run, step, and the number to add.",
              "int32_t qp_lower_case_runs[][4]", ("{ 0x%x, 0x%x, %d, %d }" % r for r in lower_case_runs()))
    print("const int qp_n_lower_case_runs = QP_COUNT(qp_lower_case_runs);")


main()
