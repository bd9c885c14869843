#!/usr/bin/env python3
"""Writes src/tokenizer/bert_tables.c: the classes of characters that BERT's tokenizers know. They are read
from the package `tokenizers` itself (0.23), whose tables for these classes are those of an older Unicode
version than its others.

usage: tools/bert_tables.py > src/tokenizer/bert_tables.c
       clang-format -i src/tokenizer/bert_tables.c"""
from tokenizers import normalizers, pre_tokenizers

OTHER, REMOVED, PUNCTUATION, NONSPACING = range(4)


def bert(**steps):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **steps}).normalize_str


def class_of(c, clean, strip, pre):
    if 0xD800 <= c < 0xE000:
        return OTHER
    text = "a" + chr(c) + "b"
    if clean(text) == "ab":
        return REMOVED
    if [w for w, _ in pre(text)] == ["a", chr(c), "b"]:
        return PUNCTUATION
    return NONSPACING if strip(chr(c)) == "" else OTHER


def main():
    clean, strip = bert(clean_text=True), bert(strip_accents=True)
    pre = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    classes = [class_of(c, clean, strip, pre) for c in range(0x110000)]
    runs = [c << 2 | classes[c] for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]
    print("/* bert_tables.c: classes of characters for WordPiece tokenizers. Written by tools/bert_tables.py;")
    print(" * do not edit. */")
    print('#include "tokenizer/unicode.h"')
    print("\n// Runs of one class, in order: first code point << 2 | class (enum bert_class).")
    print("const uint32_t qp_bert_runs[] = {")
    print(", ".join("0x%x" % r for r in runs))
    print("};\nconst int qp_n_bert_runs = QP_COUNT(qp_bert_runs);")


main()
