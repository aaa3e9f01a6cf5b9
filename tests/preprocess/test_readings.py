"""What is written against what is said: tables in tests/preprocess/cases, from how a newsreader would say it."""

import time
from pathlib import Path

import pytest

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.markup import read_markup
from serve_app.preprocess.normalize import clean, normalize
from serve_app.preprocess.numerals import (
    cardinal,
    german,
    german_ordinal,
    german_year,
    myriad,
    native_korean,
    ordinal,
    plural,
    quantity,
    year,
)

CASES = Path(__file__).parent / "cases"


def table(name: str) -> list[tuple[str, str]]:
    lines = (CASES / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.split("\t") for line in lines if "\t" in line]
    assert all(len(pair) == 2 for pair in pairs)
    return [(written, said) for written, said in pairs]


ENGLISH, CHINESE, OTHERS = table("english"), table("chinese"), table("others")


def said(text: str) -> str:
    passages = read_markup(clean(text)).passages
    return " ".join(normalize(passage.text, text).text for passage in passages)


@pytest.mark.parametrize(("written", "expected"), ENGLISH + CHINESE + OTHERS)
def test_reading(written: str, expected: str) -> None:
    assert said(written) == expected


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(ENGLISH) >= 150
    assert len(CHINESE) >= 150
    assert len(OTHERS) >= 60
    assert len({written for written, _ in ENGLISH + CHINESE + OTHERS}) == len(ENGLISH + CHINESE + OTHERS)


def test_what_is_said_needs_no_second_reading() -> None:
    for written, expected in ENGLISH + CHINESE:
        if not any(mark in written for mark in ("U.S.", "Mon.", "&", "No.")):
            assert said(expected) == expected, written


@pytest.mark.parametrize(
    ("written", "part", "source"),
    [
        ("It costs $3.50 now.", "three dollars and fifty cents", "$3.50"),
        ("Dr. Smith has 3 cats.", "Doctor", "Dr."),
        ("Dr. Smith has 3 cats.", "Smith", "Smith"),
        ("我有3个苹果，价格是99元。", "三个", "3个"),
    ],
)
def test_words_know_where_they_came_from(written: str, part: str, source: str) -> None:
    aligned = normalize(clean(written))
    start = aligned.text.index(part)
    first, last = aligned.span(start, start + len(part))
    assert written[first:last] == source


def test_english_numerals() -> None:
    assert [cardinal(n) for n in (0, 13, 40, 101, 1_000_000, 10**17 + 1)] == [
        "zero",
        "thirteen",
        "forty",
        "one hundred one",
        "one million",
        "one hundred quadrillion one",
    ]
    ordinals = "first, second, fifth, eighth, twelfth, twentieth, twenty-third, one hundredth, one thousand first"
    assert ", ".join(ordinal(n) for n in (1, 2, 5, 8, 12, 20, 23, 100, 1001)) == ordinals
    assert [year(n) for n in (1066, 1700, 1905, 1984, 2000, 2009, 2010)] == [
        "ten sixty-six",
        "seventeen hundred",
        "nineteen oh five",
        "nineteen eighty-four",
        "two thousand",
        "two thousand nine",
        "twenty ten",
    ]
    assert quantity("1,234.50") == "one thousand two hundred thirty-four point five zero"
    assert plural("nineteen sixty") == "nineteen sixties"


def test_german_numerals() -> None:
    assert german(21) == "einundzwanzig"
    assert german(101) == "hunderteins"
    assert german(1_201_000) == "eine Million zweihunderteintausend"
    assert german(2 * 10**9) == "zwei Milliarden"
    ordinals = "erst dritt siebt acht neunzehnt zwanzigst hunderterst hundertdritt"
    assert " ".join(german_ordinal(n) for n in (1, 3, 7, 8, 19, 20, 101, 103)) == ordinals
    assert german_year(1805) == "achtzehnhundertfünf"


def test_numerals_by_myriads() -> None:
    numbers = (0, 10, 12, 101, 110, 1010, 10_000, 10_001, 100_010, 123_456_789, 10**8 + 1)
    chinese = (
        "零 十 十二 一百零一 一百一十 一千零一十 一万 一万零一 十万零一十 一亿二千三百四十五万六千七百八十九 一亿零一"
    )
    assert " ".join(myriad(n, "zh") for n in numbers) == chinese
    assert " ".join(myriad(n, "ja") for n in (10, 101, 1000, 12_345)) == "十 百一 千 一万二千三百四十五"
    assert " ".join(myriad(n, "ko") for n in (10, 110, 10_000, 12_345)) == "십 백십 만 만이천삼백사십오"
    assert " ".join(native_korean(n) for n in (1, 11, 20, 21, 99)) == "한 열한 스무 스물한 아흔아홉"


HOSTILE = [
    "1" * 9000,
    "1," * 5000,
    "$" * 9000,
    "<a " * 5000,
    "<!--" * 4000,
    "[pause:1s]" * 1500,
    "*" * 9000,
    "a@" * 5000,
]
HOSTILE += ["1-" * 5000, "1/2" * 3000, "www." * 3000, "[" * 5000 + "](x" * 1000, "&" * 9000, "Mr. " * 3000, "1:" * 5000]
HOSTILE += [
    "年1" * 4000,
    "I " * 5000,
    "ＡＢ１" * 3000,
    "_a" * 4000,
    "|" * 9000,
    "<speak>" + "&x;" * 3000,
    "- " * 5000,
    ". " * 5000,
]
HOSTILE += [
    "The 1st of 2,000 cats cost $3.50 on May 5. " * 200,
    "我有3个苹果，价格是99元。" * 500,
    "3." * 4000 + "a",
    "+1 " * 3000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:8] for text in HOSTILE])
def test_no_text_takes_long_or_fails(text: str) -> None:
    started = time.process_time()
    script = read_markup(clean(text))
    for passage in script.passages:
        normalize(passage.text, text)
    assert time.process_time() - started < 4.0
    assert normalize(AlignedText.of("")).text == ""
