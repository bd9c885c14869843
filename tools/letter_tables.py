#!/usr/bin/env python3
"""Writes src/jinja/letter_tables.c: what str.upper, str.title and repr of Python need beside the lower case
of src/tokenizer/unicode_tables.c.

usage: tools/letter_tables.py > src/jinja/letter_tables.c
       clang-format -i src/jinja/letter_tables.c"""
import unicodedata

CHARACTERS = [chr(c) for c in range(0x110000)]


def varints(numbers):
    for n in numbers:
        while n >= 128:
            yield n & 127 | 128
            n >>= 7
        yield n


def alternating(flags):
    """Lengths of the runs of False and True in turn, False first."""
    start, value = 0, False
    for c, flag in enumerate(flags):
        if flag != value:
            yield c - start
            start, value = c, flag


def has_case_only(c):
    """Whether the letter has a case and no mapping to another one."""
    return (c.islower() or c.isupper() or c.istitle()) and c.lower() == c == c.upper()


def upper_case_singles():
    """Upper case that is not the inverse of lower case."""
    raised = {}
    for c in CHARACTERS:
        if len(c.lower()) == 1 and c.lower() != c:
            raised.setdefault(c.lower(), c)
    return [(ord(c), ord(c.upper())) for c in CHARACTERS
            if len(c.upper()) == 1 and c.upper() != raised.get(c, c)]


def put_array(comment, declaration, items):
    print("\n// %s\nconst %s = {" % (comment, declaration))
    print(", ".join(items))
    print("};")


def main():
    print("/* letter_tables.c: letters of Unicode for Python's texts. Written by tools/letter_tables.py from")
    print(" * Unicode %s; do not edit. */" % unicodedata.unidata_version)
    print('#include "jinja/letters.h"')
    put_array("Lengths of runs that are not printable and printable in turn, in 7 bits per byte.",
              "uint8_t qp_printable_runs[]", map(str, varints(alternating(c.isprintable() for c in CHARACTERS))))
    print("const int qp_n_printable_runs = QP_COUNT(qp_printable_runs);")
    put_array("The same for letters that have a case and no mapping to another one.",
              "uint8_t qp_cased_runs[]", map(str, varints(alternating(map(has_case_only, CHARACTERS)))))
    print("const int qp_n_cased_runs = QP_COUNT(qp_cased_runs);")
    put_array("Upper case that is not the inverse of lower case.", "int32_t qp_upper_case_singles[][2]",
              ("{ 0x%x, 0x%x }" % s for s in upper_case_singles()))
    print("const int qp_n_upper_case_singles = QP_COUNT(qp_upper_case_singles);")
    print("\n// Letters whose upper or title case has several characters: the letter, upper case, title case.")
    print("const char qp_upper_case_special[] =")
    special = [" ".join((c, c.upper(), c.title())) for c in CHARACTERS if len(c.upper()) > 1 or len(c.title()) > 1]
    print("\n".join('"%s\\n"' % "".join("\\%03o" % b if b > 126 else chr(b) for b in s.encode())
                    for s in special) + ";")


main()
