"""Text becomes pieces at sentence ends, whatever the size of the parts it comes in."""

import asyncio

import pytest

from serve_app.api.text_feed import MAX_PIECE_CHARACTERS, PieceSplitter, TextFeed
from serve_app.errors import InputTooLong

CASES = [
    ("Hello there. How are you? Fine!", ["Hello there.", " How are you?", " Fine!"]),
    ("It costs 3.50 euros. Really.", ["It costs 3.50 euros.", " Really."]),
    (
        "Dr. Smith met J. Doe, e.g. in St. Ives. Then he left.",
        ["Dr. Smith met J. Doe, e.g. in St. Ives.", " Then he left."],
    ),
    ("No. 5 is alive. Yes.", ["No. 5 is alive.", " Yes."]),
    ("No! I said stop! Now.", ["No! I said stop!", " Now."]),
    ("1. Milk and butter. 2. Bread and jam.", ["1. Milk and butter.", " 2. Bread and jam."]),
    ("你好吗今天。我很好，谢谢你！再见了朋友", ["你好吗今天。", "我很好，谢谢你！", "再见了朋友"]),
    ("“Is it you?” she asked. “Yes.”", ["“Is it you?”", " she asked.", " “Yes.”"]),
    ("First line\nSecond line\n", ["First line\n", "Second line\n"]),
    ("see example.com for more", ["see example.com for more"]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pieces(text: str, expected: list[str], size: int) -> None:
    splitter = PieceSplitter()
    pieces = [piece for start in range(0, len(text), size) for piece in splitter.feed(text[start : start + size])]
    pieces.append(splitter.flush())
    assert [piece for piece in pieces if piece] == expected


def test_a_sentence_is_given_before_the_next_one_has_come() -> None:
    splitter = PieceSplitter()
    words = ["The", "first", "sentence", "is", "here.", "And", "then"]
    given = [splitter.feed(word + " ") for word in words]
    assert given == [[], [], [], [], ["The first sentence is here."], [], []]


@pytest.mark.parametrize("unit", ["word ", "word, ", "字", "x"])
def test_text_without_sentences_is_cut_and_nothing_is_lost(unit: str) -> None:
    text = unit * (1000 // len(unit))
    splitter = PieceSplitter()
    pieces = splitter.feed(text)
    assert pieces
    assert all(0 < len(piece) <= MAX_PIECE_CHARACTERS for piece in pieces)
    assert "".join(pieces) + splitter.flush() == text
    if unit != "x" and unit != "字":
        assert all(piece.endswith(" ") for piece in pieces)


async def test_feed_flushes_and_ends() -> None:
    feed = TextFeed(1000)
    feed.write("One two three. Four")
    feed.flush()
    feed.write(" five")
    feed.finish()
    assert [piece async for piece in feed] == ["One two three.", " Four", " five"]
    assert feed.num_pending == 0


async def test_feed_is_bounded() -> None:
    feed = TextFeed(20)
    feed.write("Ten letters.\n")
    with pytest.raises(InputTooLong):
        feed.write("And some more.")
    assert await asyncio.wait_for(anext(aiter(feed)), 1) == "Ten letters."
    feed.write("And some more.")
