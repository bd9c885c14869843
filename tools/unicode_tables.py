#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.c: the class of every code point for the pre-tokenizers, the tables
for normalizing to NFC, NFD and NFKC, and lower case.

usage: pip install unicodedataplus==16.0.0.post1
       tools/unicode_tables.py > src/tokenizer/unicode_tables.c
       clang-format -i src/tokenizer/unicode_tables.c

The tables agree with Hugging Face's tokenizers 0.23 for every code point, and that library mixes three
versions of Unicode. Its regular expressions know Unicode 16. Its normalization forms and StripAccents end
at Unicode 9, so a character that is newer has no decomposition, no combining class, and is not an accent.
Its lower case is that of Unicode 17.

Classes: see enum char_class in src/tokenizer/unicode.h. White space is Unicode's White_Space
property. The word class has what a regular expression's \\w matches besides letters, digits, marks and
connectors: the two joiners, and the symbols of Other_Alphabetic. Every printable ASCII character that
is not a letter or digit is punctuation. Hangul is composed by arithmetic and is not in the tables."""
import unicodedataplus as unicodedata

LAST_OF_FORMS = 9.0  # the version of Unicode at which the normalization forms end
# Lower case of characters that are newer than the str.lower of some Pythons: first, last, step, distance.
NEW_LOWER_CASE = [(0x1C89, 0x1C89, 1, 1), (0xA7CB, 0xA7CB, 1, 0x264 - 0xA7CB), (0xA7CC, 0xA7CE, 2, 1),
                  (0xA7D2, 0xA7D4, 2, 1), (0xA7DA, 0xA7DA, 1, 1), (0xA7DC, 0xA7DC, 1, 0x19B - 0xA7DC),
                  (0x10D50, 0x10D65, 1, 0x20), (0x16EA0, 0x16EB8, 1, 0x1B)]

OTHER, LETTER, DIGIT, NUMERIC, SPACE, WORD, MARK, CONNECTOR, PUNCTUATION = range(9)

WHITE_SPACE = {0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
               *range(0x09, 0x0E), *range(0x2000, 0x200B)}
# What the classes do not say: enum char_detail in src/tokenizer/unicode.h.
DETAILS = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "Mn": 3, "Mc": 3, "Me": 3,
           "Sm": 4, "Sc": 4, "Sk": 4, "So": 4}

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


def is_new(c):
    """Whether the normalization forms do not know the character."""
    age = unicodedata.age(chr(c))
    return age != "Unassigned" and float(age) > LAST_OF_FORMS


def is_accent(c):
    """Whether the character is a mark in Unicode 9. Three characters have changed since."""
    if c in (0x1CF2, 0x1CF3, 0x111C9):
        return c != 0x111C9
    return char_class(c) == MARK and not is_new(c)


def canonical_decompositions():
    for c in range(0x110000):
        if is_new(c):
            continue
        parts = unicodedata.decomposition(chr(c)).split()
        if parts and not parts[0].startswith("<"):
            yield (c, int(parts[0], 16), int(parts[1], 16) if len(parts) > 1 else 0)


def compatibility_decompositions():
    """Full compatibility decompositions that differ from the canonical one."""
    for c in range(0x110000):
        if is_new(c):
            continue
        whole = unicodedata.normalize("NFKD", chr(c))
        if whole != unicodedata.normalize("NFD", chr(c)):
            yield c, whole


def lower_case_runs():
    """Runs of code points, one or two apart, whose lower case is at the same distance. U+0130 is omitted,
    because its lower case is two characters."""
    runs = []
    new = {c: c + far for first, last, step, far in NEW_LOWER_CASE for c in range(first, last + 1, step)}
    for c in range(0x110000):
        if c == 0x130:
            continue
        far = new.get(c, ord(chr(c).lower())) - c
        if far == 0:
            continue
        if runs and runs[-1][3] == far:
            first, last, step, _ = runs[-1]
            if c - last == step or (first == last and c - last == 2):
                runs[-1] = (first, c, c - last, far)
                continue
        runs.append((c, c, 1, far))
    return runs


def shared_pool(texts):
    """Zero-terminated texts. One that ends a longer one is not repeated."""
    pool = b""
    for text in sorted({t.encode() + b"\0" for t in texts}, key=lambda t: (-len(t), t)):
        if text not in pool:
            pool += text
    return pool


def put_array(comment, declaration, items):
    print("\n// %s" % comment)
    print("const %s = {" % declaration)
    print(", ".join(items))
    print("};")


def main():
    classes = [char_class(c) for c in range(0x110000)]
    details = [DETAILS.get(unicodedata.category(chr(c)), 0) for c in range(0x110000)]
    marks = [0 if is_new(c) else unicodedata.combining(chr(c)) for c in range(0x110000)]
    accents = [int(is_accent(c)) for c in range(0x110000)]
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
    put_array("Runs of one detail, in order: first code point << 3 | enum char_detail.",
              "uint32_t qp_detail_runs[]", ("0x%x" % r for r in runs_of(details, 3)))
    print("const int qp_n_detail_runs = QP_COUNT(qp_detail_runs);")
    put_array("Runs of one canonical combining class: first code point << 8 | class.",
              "uint32_t qp_mark_runs[]", ("0x%x" % r for r in runs_of(marks, 8)))
    print("const int qp_n_mark_runs = QP_COUNT(qp_mark_runs);")
    put_array("Runs of characters that StripAccents drops, or not: first code point << 1 | 1 or 0.",
              "uint32_t qp_accent_runs[]", ("0x%x" % r for r in runs_of(accents, 1)))
    print("const int qp_n_accent_runs = QP_COUNT(qp_accent_runs);")
    put_array("Canonical decompositions by code point: the code point << 42 | its first part << 21 |\n"
              "// its second part, or 0.",
              "uint64_t qp_decompositions[]",
              ("0x%x" % (c << 42 | first << 21 | second) for c, first, second in decompositions))
    print("const int qp_n_decompositions = QP_COUNT(qp_decompositions);")
    put_array("Decompositions that NFC composes, sorted by their parts: indices of qp_decompositions.",
              "uint16_t qp_compositions[]", map(str, compositions))
    print("const int qp_n_compositions = QP_COUNT(qp_compositions);")
    compatible = list(compatibility_decompositions())
    pool = shared_pool(whole for _, whole in compatible)
    assert compatible[-1][0] < 1 << 17 and len(pool) < 1 << 15
    put_array("Full compatibility decompositions: the code point << 15 | the offset of its UTF-8.",
              "uint32_t qp_compatibility[]",
              ("0x%x" % (c << 15 | pool.index(whole.encode() + b"\0")) for c, whole in compatible))
    print("const int qp_n_compatibility = QP_COUNT(qp_compatibility);")
    put_array("Their UTF-8, each with a zero byte at its end.", "uint8_t qp_compatibility_pool[]", map(str, pool))
    put_array("Lower case: first and last code point of a run, step, and the number to add.",
              "int32_t qp_lower_case_runs[][4]", ("{ 0x%x, 0x%x, %d, %d }" % r for r in lower_case_runs()))
    print("const int qp_n_lower_case_runs = QP_COUNT(qp_lower_case_runs);")


main()
