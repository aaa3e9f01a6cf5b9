"""A sentence that is still being written, put into token ids as far as what follows cannot change them.

Every call gets the whole sentence so far and reads it anew, so that the words which have arrived since are the context
that they will be in the end; only the ids of its settled part are given out. No state is kept: any replica can go on.
"""

import re
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from serve_app.messages import FedText, Int32Array, NextText
from serve_app.preprocess.aligned_text import AlignedText, joined
from serve_app.preprocess.breaks import Break, find_breaks
from serve_app.preprocess.markup import read_markup
from serve_app.preprocess.normalize import clean, is_speakable, normalize
from serve_app.preprocess.tokenizer import Tokenizer

_FIGURE = re.compile(r"[\d$€£¥￥₩₹%#@&+=~～°^*|\\/<>_±×÷²³№]")
_CALM_WORDS = 3
"""After a figure so many plain words show that its reading is complete: "5 sq ft", "May 5, 2024", "a 6 ft wall"."""
_CALM_CHARACTERS = 6
_UNMERGED_CHARACTERS = 4
"""Where words have no spaces, a token may still grow over characters that come later; hardly ever further."""
_OPEN_WORD = re.compile(
    r"(?:.*[.:]|\W+|\w|Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|[Nn]o|[Nn]r)"
)
"""A word that the next one may give another reading: an abbreviation, a sign, a letter, a short name of a day."""
_WORD = re.compile(r"\S+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_UNSPACED_EDGE = re.compile(
    rf"(?<={_UNSPACED.pattern})(?=[\s\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff0f\uff1a-\uff20])"
)
_WORD_EDGE = re.compile(rf"(?<=\S)(?=\s)|(?<={_UNSPACED.pattern})(?={_UNSPACED.pattern})")
_LINE_END = re.compile(r"\n")
_NO_IDS: Int32Array = np.zeros(0, np.int32)
_LONG_SHARE = 0.6
"""An utterance that has this share of the tokens it may have ends at its next clause."""


def settled_end(text: str) -> int:
    """How much of an unfinished sentence, in code points, is read the same whatever follows; 0 for nothing."""
    return max(_settled_words(text), _settled_characters(text))


def _settled_words(text: str) -> int:
    words = [word for word in _WORD.finditer(text) if word.end() < len(text)]
    figures = [_FIGURE.search(word.group()) is not None for word in words]
    for number in range(len(words), 0, -1):
        last = words[number - 1]
        if any(figures[max(0, number - _CALM_WORDS) : number]) or _UNSPACED.match(last.group()[-1]):
            continue
        if not _OPEN_WORD.fullmatch(last.group()):
            return last.end()
    return 0


def _settled_characters(text: str) -> int:
    edges = [edge.start() for edge in _UNSPACED_EDGE.finditer(text)]
    for edge in reversed(edges):
        before = text[max(0, edge - _CALM_CHARACTERS) : edge]
        if len(text) - edge >= _UNMERGED_CHARACTERS and not _FIGURE.search(before):
            return edge
    return 0


def next_text(fed: FedText, tokenizer: Tokenizer, max_tokens: int) -> NextText:
    """What can be fed now. The ids of all calls, joined, are those of the whole sentence wherever that is possible.

    An utterance has at most `max_tokens`; a long one ends at a clause (`NextText.full`).
    """
    words = _read(fed.text, fed.normalize)
    count = tokenizer.spans(words.text)
    begin = 0 if fed.text_end == 0 else bisect_left(words.starts, fed.text_end)
    end = len(words.text) if fed.final else bisect_left(words.starts, settled_end(fed.text))
    while begin < end < len(words.text) and (count(end, end + 1) == 0 or not _can_end(words, end)):
        end -= 1  # a token goes on here
    if end <= begin or (begin == 0 and not is_speakable(words.text[:end])):
        return NextText(_NO_IDS, len(fed.text) if fed.final else fed.text_end)

    def num_tokens(place: int) -> int:
        return len(fed.ids) + count(begin, place)

    full = False
    if num_tokens(end) > (max_tokens if fed.final else _LONG_SHARE * max_tokens):
        last = _end_of_long(words, begin, end, num_tokens, max_tokens)
        full, end = last is not None, end if last is None else last
    ids = tokenizer.encode(words.text[:end])
    whole = tokenizer.encode(words.text)
    if not full and not np.array_equal(whole[: len(ids)], ids):
        ids = whole[: count(0, end)]  # its last token grows over what follows
    # what has arrived since may have changed the reading of what was fed: then the new words are read alone
    unchanged = np.array_equal(ids[: len(fed.ids)], fed.ids)
    ids = ids[len(fed.ids) :] if unchanged else tokenizer.encode(words.text[begin:end])
    text_end = words.starts[end] if end < len(words.text) else len(fed.text)
    return NextText(ids, max(fed.text_end, text_end), full)


def _read(text: str, normalized: bool) -> AlignedText:
    """What is said, in one line. Text with pauses or tags in it is not fed."""
    passages = read_markup(clean(text), plain=not normalized).passages
    words = joined([passage.text for passage in passages])
    return (normalize(words) if normalized and words.text else words).sub(_LINE_END, " ")


def _can_end(words: AlignedText, place: int) -> bool:
    """Whether nothing before `place` stands for a part of the original that something after it stands for too."""
    return place == len(words.text) or words.ends[place - 1] <= words.starts[place]


def _end_of_long(
    words: AlignedText, begin: int, end: int, num_tokens: Callable[[int], int], max_tokens: int
) -> int | None:
    """Where in [begin, end] an utterance with so many tokens ends; None while it may go on.

    num_tokens: that it has, when it ends at a place.
    """
    text = words.text
    clauses = (place for place, kind in find_breaks(text).items() if kind <= Break.QUOTED_CLAUSE)
    for place in sorted(len(text[:place].rstrip()) for place in clauses):
        long = _LONG_SHARE * max_tokens <= num_tokens(place) <= max_tokens
        if begin < place <= end and long and _can_end(words, place):
            return place
    if num_tokens(end) <= max_tokens:
        return None
    edges = [edge.start() for edge in _WORD_EDGE.finditer(text, begin + 1, end)]
    fitting = [place for place in edges if num_tokens(place) <= max_tokens and _can_end(words, place)]
    if fitting or num_tokens(begin):
        return max(fitting, default=begin)
    return max(place for place in range(begin + 1, end) if num_tokens(place) <= max_tokens)
