"""Where texts are cut, and where never."""

import random
import re
import time
from itertools import pairwise

import pytest

from serve_app.errors import EmptyInput
from serve_app.preprocess.breaks import Break, find_breaks
from serve_app.preprocess.normalize import clean
from serve_app.preprocess.split import Piece, SpanCount, split


def count_words_and_han(text: str) -> int:
    """A stand-in for tokens: words, marks, and each Chinese character."""
    return len(re.findall(r"[A-Za-z0-9']+|[^\sA-Za-z0-9']", text))


def measure(text: str) -> SpanCount:
    return lambda start, end: count_words_and_han(text[start:end].strip())


def cut(text: str, max_tokens: int = 20) -> list[str]:
    return [piece.text for piece in pieces(text, max_tokens)]


def pieces(text: str, max_tokens: int = 20) -> tuple[Piece, ...]:
    return split(clean(text), measure, max_tokens)


FILLER = "These eleven words stand here to fill up a whole piece."

# Each text has one sentence end or none where a naive splitter would cut; the sentences are too long to be joined.
UNCUT = [
    "The value of pi is about 3.14159 in most of the books.",
    "The visit to Dr. Smith cost Mr. Jones $3.50 at St. James.",
    "We sell fruit, e.g. apples, i.e. what grows on the trees.",
    "Send it to www.example.com or a.b@example.org now.",
    "The U.S. Army and J. R. Smith met at No. 5 here.",
    "He said “I am here. Are you there? Come now!” and left.",
    'He said "I am here. Are you there? Come now!" and left.',
    "他对我说：“我来了。你在吗？快来！”然后走了",
    "彼は「行きます。本当です。」と言って出て行きました",
    "Wait... what do you think that you are doing in here?",
    "She wrote (it was late. Very late.) a letter to her friend.",
    "“Stop!” he said, and then he walked away from the old house.",
    "Version 2.0.1 of the program is out since 10.30 this morning.",
    "我觉得……这件事情恐怕不行吧",
    "In vol. 3 of the series, fig. 2 shows what was meant.",
]


@pytest.mark.parametrize("text", UNCUT)
def test_what_is_never_cut(text: str) -> None:
    assert text in cut(
        f"{FILLER} {text} {FILLER}" if text[0].isascii() or text[0] == "“" else f"{FILLER}\n{text}\n{FILLER}",
        max_tokens=26,
    )


CUT = [
    ("He said no. Then he left the house at once.", "He said no."),
    ("It ended at 5 p.m. Then we all went home again.", "It ended at 5 p.m."),
    ("Really?! Yes, of course it is just as I said.", "Really?!"),
    ("“Are you there?” He did not answer the question at all.", "“Are you there?”"),
    ("我来了。你们都在那里等着我吗？", "我来了。"),
    ("他说：“快来！”大家都跑过去看了看。好。", "他说：“快来！”大家都跑过去看了看。"),
    ("価格は百円です。とても安いと思います。", "価格は百円です。"),
    ("Hello!你好吗？我很好，谢谢你们大家。", "Hello!"),
    ("A heading without an end\nand the line that follows it here", "A heading without an end"),
]


@pytest.mark.parametrize(("text", "first"), CUT)
def test_where_sentences_end(text: str, first: str) -> None:
    """The first sentence fills the first piece once it is long enough not to be joined."""
    breaks = find_breaks(clean(text).text)
    ends = [text[:end].strip() for end, kind in sorted(breaks.items()) if kind <= Break.SENTENCE]
    assert ends[0] == first


def test_pieces_cover_the_text_in_order_within_the_limit() -> None:
    rng = random.Random(0)
    words = [
        "hello",
        "3.14",
        "Dr.",
        "你好",
        "世界，",
        "yes.",
        "“no",
        "way.”",
        "(a",
        "b)",
        "\n",
        "...",
        "！",
        "long-word",
        "[breath]",
    ]
    for _ in range(300):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 80))) + " end"
        limit = rng.choice([20, 40, 80])
        got = pieces(text, limit)
        assert all(count_words_and_han(p.text) <= limit for p in got)
        assert all(0 <= p.start < p.end <= len(text) for p in got)
        assert all(a.end <= b.start for a, b in pairwise(got))
        spoken = "".join(text[p.start : p.end] for p in got)
        assert [c for c in spoken if c.isalnum()] == [c for c in text if c.isalnum()]


def test_a_long_sentence_is_cut_at_commas_into_balanced_pieces() -> None:
    clause = "one two three four five six, "
    got = cut(FILLER + " " + clause * 9 + "seven eight nine.", 30)[1:]
    assert all(p.endswith((",", ".")) for p in got)
    sizes = [count_words_and_han(p) for p in got]
    assert min(sizes) > 0.4 * max(sizes)


def test_the_first_piece_is_short() -> None:
    sentence = "Here are six words or so. "
    got = cut(sentence * 20, 80)
    assert count_words_and_han(got[0]) <= 0.35 * 80
    assert all(count_words_and_han(p) > 40 for p in got[1:-1])
    long_first = cut(
        "When the sun rises over the hills of this land, " + "we go and see what there is to be seen " * 4, 40
    )
    assert long_first[0] == "When the sun rises over the hills of this land,"


def test_short_sentences_are_never_alone() -> None:
    assert cut("Yes. No. Maybe. I do not know.") == ["Yes. No. Maybe. I do not know."]
    assert cut("Title\nA text.") == ["Title A text."]


def test_words_are_cut_only_when_nothing_else_helps() -> None:
    assert all(set(p) == {"x"} for p in cut("x" * 4000)) or len(cut("x" * 4000)) == 1
    got = split(clean("字" * 333), lambda _: lambda start, end: end - start, 20)
    assert max(len(p.text) for p in got) <= 20
    assert sum(len(p.text) for p in got) == 333


@pytest.mark.parametrize(
    "text", ["", " ", "...", "！？。", "🙂", "—", "\u200b", "\ud800", "<|endofprompt|>", "\x00\n\t"]
)
def test_nothing_to_speak(text: str) -> None:
    with pytest.raises(EmptyInput):
        pieces(text)


def test_places_are_those_of_the_original_text() -> None:
    text = (
        "\ufeff  Caf\u0065\u0301 \x07is   open, as it was.\r\n\r\nIt closes\u200b at ten tonight for all of the guests."
    )
    got = pieces(text, 20)
    assert [p.text for p in got] == ["Café is open, as it was.", "It closes at ten tonight for all of the guests."]
    assert [text[p.start : p.end] for p in got] == [
        "Caf\u0065\u0301 \x07is   open, as it was.",
        "It closes\u200b at ten tonight for all of the guests.",
    ]


HOSTILE = [
    "(" * 10000 + ")]" * 5000 + "a",
    '"a' * 10000,
    "a," * 10000,
    "a, " * 6666,
    "." * 9999 + "a",
    "e\u0301" * 10000,
]
HOSTILE += [
    "[a " * 6000 + "] " * 1000,
    "\n\na" * 6000,
    "a“" * 9000 + "”" * 1000,
    "1." * 10000,
    "Mr. " * 5000,
    "Hello there. " * 1500,
]


@pytest.mark.parametrize("text", HOSTILE, ids=[t[:6] for t in HOSTILE])
def test_twenty_thousand_characters_take_no_time(text: str) -> None:
    started = time.process_time()
    got = pieces(text, 80)
    assert time.process_time() - started < 2.0
    assert all(count_words_and_han(p.text) <= 80 for p in got)


def test_by_sentence_joins_only_what_is_too_short_to_be_spoken_alone() -> None:
    text = f"{FILLER} Then this one follows it at a quiet pace. Yes. {FILLER} {FILLER}"
    joined = split(clean(text), measure, 80)
    alone = split(clean(text), measure, 80, by_sentence=True)
    assert len(joined) < len(alone)
    assert [piece.text for piece in alone] == [
        FILLER,
        "Then this one follows it at a quiet pace.",
        f"Yes. {FILLER}",
        FILLER,
    ]
