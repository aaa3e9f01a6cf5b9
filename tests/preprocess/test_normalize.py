"""Clean-up of text, and the alignment that survives it."""

import random
import re
import unicodedata

from serve_app.preprocess.aligned_text import AlignedText, joined
from serve_app.preprocess.normalize import clean


def test_clean_up() -> None:
    cases = {
        "plain": "plain",
        "  a \t b  ": "a b",
        "a\r\nb\rc\u2028d\n\n\n e": "a\nb\nc\nd\ne",
        "caf\u0065\u0301": "café",
        "\u1112\u1161\u11ab": "한",
        "\u212b": "Å",
        "a\x00b\x1bc\ufeffd\u200be\u202ef": "abcdef",
        "lone \ud800 surrogate": "lone surrogate",
        "private \ue000\U000f0000 use": "private use",
        "be <|endofprompt|>happy<|im_end|>": "be happy",
        "[laughter] <strong>yes</strong>": "[laughter] <strong>yes</strong>",
        "a\u3000b\u00a0c": "a b c",
    }
    for text, expected in cases.items():
        assert clean(text).text == expected, ascii(text)


def test_random_text_is_nfc_and_aligned() -> None:
    rng = random.Random(1)
    alphabet = "ab é e\u0301\u0323 \u1112\u1161\u11ab 你好\n\t\x01\u200d\u0300 \u09c7\u09be"
    for _ in range(500):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 40)))
        aligned = clean(text)
        assert unicodedata.is_normalized("NFC", aligned.text)
        assert len(aligned.text) == len(aligned.starts) == len(aligned.ends)
        for character, start, end in zip(aligned.text, aligned.starts, aligned.ends, strict=True):
            source = unicodedata.normalize("NFD", text[start:end])
            assert unicodedata.normalize("NFD", character)[0] in source or character.isspace()


def test_a_replacement_stands_for_all_that_it_replaced() -> None:
    aligned = AlignedText.of("pay $3 now").sub(re.compile(r"\$(\d)"), lambda m: "three dollars")
    assert aligned.text == "pay three dollars now"
    assert aligned.span(4, 9) == (4, 6)
    assert aligned.span(10, 17) == (4, 6)
    assert aligned.span(18, 21) == (7, 10)
    assert joined([aligned.cut(0, 4), aligned.cut(4, 21)]) == aligned
    inserted = AlignedText.of("ab").sub(re.compile(r"(?=b)|\Z"), "-")
    assert inserted.text == "a-b-"
    assert inserted.span(1, 2) == (1, 1)
    assert AlignedText.of("ab").sub(re.compile("a"), lambda _: None) == AlignedText.of("ab")
