"""Text becomes pieces at sentence ends, whatever the size of the parts it comes in."""

import asyncio
import math

import pytest

from serve_app.api.text_feed import MAX_PIECE_CHARACTERS, PieceSplitter, TextFeed
from serve_app.config import TextStreaming
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


async def read(feed: TextFeed) -> list[str]:
    """All sentences, each once it is whole."""
    pieces = []
    async for sentence in feed:
        await sentence.until(math.inf)
        feed.taken(len(sentence.text))
        pieces.append(sentence.text)
    return pieces


@pytest.mark.parametrize("streaming", ["token", "sentence"])
async def test_feed_flushes_and_ends(streaming: TextStreaming) -> None:
    feed = TextFeed(1000, streaming)
    feed.write("One two three. Four")
    feed.flush()
    feed.flush()
    feed.write(" five")
    feed.finish()
    assert await read(feed) == ["One two three.", " Four", " five"]
    assert feed.num_pending == 0


@pytest.mark.parametrize("streaming", ["token", "sentence"])
async def test_feed_is_bounded(streaming: TextStreaming) -> None:
    feed = TextFeed(20, streaming)
    feed.write("Ten letters.\n")
    with pytest.raises(InputTooLong):
        feed.write("And some more.")
    sentence = await asyncio.wait_for(anext(aiter(feed)), 1)
    assert (sentence.text, sentence.whole) == ("Ten letters.", True)
    feed.taken(len(sentence.text))
    feed.write("And some more.")


async def test_a_sentence_is_given_out_when_it_begins_and_grows() -> None:
    feed = TextFeed(1000, "token")
    sentences = aiter(feed)
    feed.write("Hel")
    sentence = await asyncio.wait_for(anext(sentences), 1)
    assert (sentence.text, sentence.whole) == ("Hel", False)
    waiting = asyncio.create_task(sentence.until(8))
    feed.write("lo")
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.write(" there. And")
    await asyncio.wait_for(waiting, 1)
    assert (sentence.text, sentence.whole) == ("Hello there.", True)
    following = await asyncio.wait_for(anext(sentences), 1)
    assert (following.text, following.whole) == (" And", False)


async def test_without_streaming_a_sentence_is_given_out_whole() -> None:
    feed = TextFeed(1000, "sentence")
    waiting = asyncio.ensure_future(anext(aiter(feed)))
    feed.write("Hello there")
    await asyncio.sleep(0.01)
    assert not waiting.done()
    feed.write(". ")
    assert (await asyncio.wait_for(waiting, 1)).text == "Hello there."


async def test_a_long_sentence_that_streams_is_not_cut_here() -> None:
    feed = TextFeed(10_000, "token")
    feed.write("word " * 1_000)
    feed.finish()
    assert await read(feed) == ["word " * 1_000]
