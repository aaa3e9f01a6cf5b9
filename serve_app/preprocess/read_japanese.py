"""Japanese: what wetext's grammar misreads is put right first, then the grammar reads every clause with a figure."""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.grammar import apply_grammar
from serve_app.preprocess.numerals import myriad_digits
from serve_app.preprocess.rules import Rules, apply, rule


def _phone(m: re.Match[str]) -> str:
    return "の".join(myriad_digits(group, "ja").replace("零", "ゼロ") for group in m.group().split("-"))


_RULES: Rules = (
    rule(r"(?<=\d),(?=\d{3}(?!\d))", ""),
    rule(r"(?<![\d-])0\d{1,3}-\d{2,4}-\d{4}(?![\d-])", _phone),
    rule(r"(?<=\d)\s?[~～〜](?=\d)", "から"),
)


def read_japanese(sentence: AlignedText) -> AlignedText:
    """The sentence with everything written in figures put into words."""
    if not any(c.isdigit() for c in sentence.text):
        return sentence
    return apply_grammar("ja", apply(_RULES, sentence))
