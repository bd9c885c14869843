#!/usr/bin/env python3
"""pre_tokenizer_cases.py N SEED: prints N random texts for each pre-tokenizer, with the lengths in bytes of the
words that Hugging Face's tokenizers divide them into, as JSON lines (tests/data/pre_tokenizers.jsonl).
Needs the package tokenizers. The expressions are those of the tokenizer.json of each family."""
import json
import random
import sys

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Sequence, Split

LETTERS = r"[^\r\n\p{L}\p{N}]?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FOLDED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED = ("65-90 97-122 181 192-214 216-246 248-442 444-447 452-659 661-687 880-883 886-887 891-893 895 902 904-906 "
         "908 910-929 931-1013 1015-1153 1162-1327 1329-1366 4256-4293 5024-5109 5112-5117 7312-7354 7357-7359 "
         "7424-7467 7531-7543 7545-7578 7680-7957 7960-7965 7968-8005 8008-8013 8016-8023 8025 8027 8029 8031-8061 "
         "8064-8116 8118-8124 8126 8130-8132 8134-8140 8144-8147 8150-8155 8160-8172 8178-8180 8182-8188 8450 8455 "
         "8458-8467 8469 8473-8477 8484 8486 8488 8490-8493 8495-8500 8505 8508-8511 8517-8521 8526 8579-8580 "
         "11264-11387 11390-11492 11499-11502 11506-11507 42560-42605 42624-42651 42786-42863 42865-42887 "
         "42891-42894 43888-43967 64256-64262 64275-64279 65313-65338 65345-65370 66560-66639 66736-66771 "
         "66776-66811 68736-68786 68800-68850 71840-71903 125184-125251")


def chars(ranges):
    """The inside of a class, of decimal ranges."""
    return "".join("-".join(rf"\x{{{int(c):x}}}" for c in r.split("-")) for r in ranges.split())


def isolated(*expressions):
    return [Split(Regex(e), "isolated") for e in expressions]


EAST = "[一-龥ࠀ-一가-퟿]+"
PRE_TOKENIZERS = {  # by enum pre_tokenizer
    1: [ByteLevel(add_prefix_space=False)],
    2: isolated(FOLDED + "|" + LETTERS + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL),
    3: isolated(FOLDED + "|" + LETTERS + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL),
    4: [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)],
    10: isolated(f"{LETTERS}{UPPER}*{LOWER}+{FOLDED}?|{LETTERS}{UPPER}+{LOWER}*{FOLDED}?"
                 r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL),
    11: isolated(f"{LETTERS}{UPPER}*{LOWER}+|{LETTERS}{UPPER}+{LOWER}*" r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL),
    12: isolated(FOLDED + "|" + LETTERS + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL),
    13: [*isolated("[\r\n]", rf"\s?[{chars(CASED)}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", EAST),
         Digits(individual_digits=True)],
    14: [*isolated("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST), Digits(individual_digits=True)],
    15: isolated(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                 r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
                 r"""[\r\n]*""" + TAIL),
}  # fmt: skip
PARTS = [" ", "  ", "\n", "\r\n", "\t", "   ", "'", "'s", "'Re", "'ſ", "a", "bc", "A", "BC", "Ab", "aB", "é", "e\u0301", "\u0301",
         "É", "ß", "ǅ", "ʰ", "ª", "中", "文字", "日本", "かな", "カ゚", "한국", "हिं", "ไทย", "ب", "1", "23", "4567", "½", "Ⅷ", "٣", "_", "-",
         "--", "/", "//", "!", "?!", ".", "...", "$", "+", "<", "|", "~", "`", "€", "©", "😀", "\u200d", "\u3000", "。", "（", "！", "‘", "—",
         "\u00a0", "\u2003", "\u0085", "\x01", "\x7f", "\u200b", "\ufeff", "\u00ad", "ﬁ", "Ａ", "ა", "Ა", "𝒜", "𐐀", "ƻ", "Ω", "Ω", "K", "\ud7b0"]


def words(steps, text):
    # ByteLevel spells bytes and reports offsets of characters
    parts = Sequence(steps).pre_tokenize_str(text)
    return [len(text[a:b].encode()) for _, (a, b) in parts]


def main():
    rng = random.Random(int(sys.argv[2]))
    for pre, steps in PRE_TOKENIZERS.items():
        for _ in range(int(sys.argv[1])):
            text = "".join(rng.choice(PARTS) for _ in range(rng.randint(1, 24)))
            case = {"pre": pre, "text": text, "words": words(steps, text)}
            print(json.dumps(case, ensure_ascii=False))


main()
