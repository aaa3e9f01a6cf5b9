"""Where a text may be cut, and how good each place is."""

import re
from collections.abc import Iterator
from enum import IntEnum

_TITLES = re.compile(
    r"(mr|mrs|ms|dr|prof|st|rev|hon|gov|gen|col|lt|capt|sgt|maj|adm|sen|pres|mt|ft|vs|ie|eg|cf|ca|approx|dept|univ|hr|"
    r"fr|bzw|str|ph\.d|([a-z]\.)*[a-z])\Z"
)
"""Something always follows these: titles, initials, and letters with dots between them."""
_BEFORE_NUMBERS = re.compile(
    r"(no|nos|nr|vol|figs?|eq|sec|ch|pp?|art|tel|ext|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\Z"
)
"""Abbreviations only before a digit: "no" and "mar" are words too."""
_AFTER_NAMES = re.compile(r"(inc|ltd|co|corp|jr|sr|etc|al|[ap]\.m|b\.c|a\.d|d\.c|usw)\Z")
"""These may end a sentence: they do when a capital follows."""
_CLOSERS = "\"'”’»)]}」』）】》〉〕］｝"
_TERMINATOR = re.compile(rf"(?:[。！？!?]+|\.+|…+|．+|\n)[{re.escape(_CLOSERS)}]*")
_CLAUSE = re.compile(r"[;:；：](?=\s|[^\x00-\x7f])|[，、,](?=\s|[^\x00-\x7f])|\s[-–—]+\s|——|—")
_QUOTE_PAIRS = {
    "“": "”",
    "「": "」",
    "『": "』",
    "«": "»",
    "《": "》",
    "（": "）",
    "(": ")",
    "【": "】",
    "[": "]",
    "<": ">",
}
_FOLLOWER = re.compile(r"\w")


class Break(IntEnum):
    """How good a place is for a cut; the lower the better."""

    LINE = 0
    SENTENCE = 1
    QUOTED_SENTENCE = 2
    CLAUSE = 3
    QUOTED_CLAUSE = 4
    WORD = 5
    ANYWHERE = 6


def find_breaks(text: str) -> dict[int, Break]:
    """Positions where a piece may end, with their kinds."""
    inside = _quoted(text)
    breaks: dict[int, Break] = {}
    for match in _CLAUSE.finditer(text):
        breaks[match.end()] = Break.QUOTED_CLAUSE if inside[match.start()] else Break.CLAUSE
    for match in _TERMINATOR.finditer(text):
        end = match.end()
        if match.group()[0] == "\n":
            breaks[end] = Break.LINE
        elif _ends_sentence(text, match):
            breaks[end] = Break.QUOTED_SENTENCE if inside[end - 1] and end < len(text) else Break.SENTENCE
            if match.group()[-1] in _CLOSERS and end < len(text) and not text[end].isspace():
                breaks[end] = Break.CLAUSE  # 「行く。」と言った: the sentence may go on
    return breaks


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """Whether the mark ends a sentence, and not an abbreviation, a number, a name or a thought that goes on."""
    mark, after = match.group(), text[match.end() : match.end() + 1]
    if mark[0] in "。！？．":
        return True
    if after and not after.isspace() and after.isascii():
        return False  # 3.14, example.com, U.S.A
    follower = _FOLLOWER.search(text, match.end())
    following = follower.group() if follower else ""
    if following.islower():
        return False  # "Stop!" he said; wait... what
    if mark[0] == "…" or mark.startswith(".."):
        return not following or following.isupper()
    if mark[0] != ".":
        return True
    word = _word_before(text, match.start()).lower()
    if _AFTER_NAMES.match(word):
        return not following or following.isupper()
    if _TITLES.match(word):
        return not following
    if _BEFORE_NUMBERS.match(word):
        return not following.isdigit()
    starts_line = text.rfind("\n", 0, match.start()) == match.start() - len(word) - 1
    return not (word.isdigit() and len(word) <= 3 and starts_line)  # "1. First item"


def _word_before(text: str, end: int) -> str:
    """The last word of text[:end], without an opening mark before it; at most 12 characters are looked at."""
    return re.split(r"[\s(\[\"'“‘]", text[max(0, end - 12) : end])[-1]


def _quoted(text: str) -> list[bool]:
    """For each character, whether a quotation or a bracket is open there; never across a line end."""
    inside = [False] * len(text)
    start = 0
    for line in text.split("\n"):
        for first, last in _quotations(line):
            # The closing mark itself, and a terminator just before it, are where a cut may be.
            for position in range(start + first, start + last):
                inside[position] = True
        start += len(line) + 1
    return inside


def _quotations(line: str) -> Iterator[tuple[int, int]]:
    """Spans from an opening mark to the closing mark that it has; unpaired marks count for nothing."""
    straight = [i for i, c in enumerate(line) if c == '"']
    if len(straight) % 2 == 0:
        yield from zip(straight[::2], straight[1::2], strict=True)
    waiting: list[tuple[str, int]] = []
    for position, character in enumerate(line):
        if character in _QUOTE_PAIRS:
            waiting = [*waiting[-7:], (_QUOTE_PAIRS[character], position)]  # deeper is not language
            continue
        for depth in range(len(waiting) - 1, -1, -1):
            if waiting[depth][0] == character:
                yield waiting[depth][1], position
                del waiting[depth:]
                break
