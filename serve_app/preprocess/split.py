"""Cuts a text into pieces that the language model speaks one at a time.

A piece is one or more whole sentences where these fit, else part of a sentence, cut where a reader would breathe. The
first piece is short, so that sound starts early.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from serve_app.errors import EmptyInput
from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.breaks import Break, find_breaks
from serve_app.preprocess.normalize import is_speakable

SpanCount = Callable[[int, int], int]
Measure = Callable[[str], SpanCount]
"""From a text to a function that counts the tokens of its parts [start, end): nearly, and of the whole exactly."""

_JOIN_SHARE = 0.75
"""Sentences are joined up to this share of the maximum; a longer piece gains nothing in flow."""
_FIRST_SHARE = 0.35
_CLOSE_SHARE = 0.85
_SHORT_TOKENS = 8
"""A piece this short is spoken badly alone: it is joined to a neighbour, across a line end too."""

_WORD_EDGE = re.compile(
    r"\s+|(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of text to speak, a line without its outer spaces, and what it stands for in the request's text."""

    words: AlignedText

    @property
    def text(self) -> str:
        """What is spoken."""
        return self.words.text

    @property
    def start(self) -> int:
        """Where it begins in the request's text, in code points."""
        return min(self.words.starts)

    @property
    def end(self) -> int:
        """Where it ends there."""
        return max(self.words.ends)


def split(
    aligned: AlignedText, measure: Measure, max_tokens: int, starts_speech: bool = True, by_sentence: bool = False
) -> tuple[Piece, ...]:
    """Pieces in order, each of at most `max_tokens` tokens and speakable.

    starts_speech: a listener waits for the first piece, so it is short.
    by_sentence: sentences are joined only where one is too short to be spoken well alone.
    A decimal, an abbreviation, a tag or a quotation is cut only where it alone is longer than `max_tokens`.
    Raises EmptyInput when the text holds no letter and no digit.
    """
    text = aligned.text
    if not is_speakable(text):
        raise EmptyInput("The text holds nothing that can be spoken.")
    breaks = find_breaks(text)
    tokens = _Tokens(text, measure)
    atoms: list[_Atom] = []
    for start, end, line_end in _sentences(text, breaks):
        for first, last in _fitting(text, start, end, breaks, tokens, max_tokens, starts_speech and not atoms):
            atoms.append(_Atom(first, last, tokens.near(first, last), line_end and last == end))
    pieces = []
    for start, end in _joined(text, atoms, tokens, max_tokens, starts_speech, by_sentence):
        body = text[start:end]
        first, last = start + len(body) - len(body.lstrip()), start + len(body.rstrip())
        if is_speakable(body):
            words = aligned.cut(first, last)
            pieces.append(Piece(replace(words, text=words.text.replace("\n", " "))))
    return tuple(pieces)


class _Tokens:
    """Counts the tokens of parts of a text, encoding it once."""

    def __init__(self, text: str, measure: Measure) -> None:
        self._text = text
        self._measure = measure
        self.near: SpanCount = measure(text)

    def fit(self, start: int, end: int, max_tokens: int) -> bool:
        """Whether a part has at most `max_tokens`; where it is close, the part alone is asked."""
        num_tokens = self.near(start, end)
        if num_tokens > max_tokens or num_tokens + 2 < _CLOSE_SHARE * max_tokens:
            return num_tokens <= max_tokens
        part = self._text[start:end].strip()
        return self._measure(part)(0, len(part)) <= max_tokens


@dataclass(frozen=True, slots=True)
class _Atom:
    """A sentence, or a part of one that was too long."""

    start: int
    end: int
    num_tokens: int
    ends_line: bool


def _sentences(text: str, breaks: dict[int, Break]) -> Iterator[tuple[int, int, bool]]:
    """Sentences as (start, end, whether a line ends there)."""
    start = 0
    for end, kind in sorted(breaks.items()):
        if kind <= Break.SENTENCE:
            if text[start:end].strip():
                yield start, end, kind is Break.LINE
            start = end
    if text[start:].strip():
        yield start, len(text), False


def _fitting(
    text: str,
    start: int,
    end: int,
    breaks: dict[int, Break],
    tokens: _Tokens,
    max_tokens: int,
    leading: bool,
) -> list[tuple[int, int]]:
    """Parts of [start, end) of at most `max_tokens` each, halved at the best places near their middles.

    leading: the first sound waits for this sentence, so a long one is cut early, at a clause if there is one.
    """
    num_tokens = tokens.near(start, end)
    if leading and num_tokens > max_tokens // 2:
        early = _early_clause(text, start, end, breaks, tokens, max_tokens // 2)
        if early:
            return [(start, early), *_fitting(text, early, end, breaks, tokens, max_tokens, False)]
    if tokens.fit(start, end, max_tokens) or end - start < 2:
        return [(start, end)]
    middle = _best_cut(text, start, end, breaks)
    return [
        *_fitting(text, start, middle, breaks, tokens, max_tokens, leading),
        *_fitting(text, middle, end, breaks, tokens, max_tokens, False),
    ]


def _early_clause(text: str, start: int, end: int, breaks: dict[int, Break], tokens: _Tokens, limit: int) -> int | None:
    """The end of the last clause that leaves at most `limit` tokens before it, and enough to be spoken well."""
    best = None
    for place in sorted(p for p, kind in breaks.items() if start < p < end and kind is Break.CLAUSE):
        num_tokens = tokens.near(start, place)
        if num_tokens > limit:
            break
        if num_tokens >= _SHORT_TOKENS:
            best = place
    return best


def _best_cut(text: str, start: int, end: int, breaks: dict[int, Break]) -> int:
    """The best kind of place in the middle half of [start, end), and of these the one nearest its middle."""
    low, high, middle = start + (end - start) // 4, end - (end - start) // 4, (start + end) / 2
    places = [(kind, abs(p - middle), p) for p, kind in breaks.items() if low <= p <= high and start < p < end]
    places += [
        (Break.WORD, abs(m.end() - middle), m.end())
        for m in _WORD_EDGE.finditer(text, low, high)
        if start < m.end() < end
    ]
    return min(places)[2] if places else max(start + 1, int(middle))


def _joined(
    text: str, atoms: list[_Atom], tokens: _Tokens, max_tokens: int, starts_speech: bool, by_sentence: bool
) -> Iterator[tuple[int, int]]:
    """Neighbouring atoms joined: the first piece short, the others up to `_JOIN_SHARE`, too short ones always."""
    pieces: list[_Atom] = []
    for index, atom in enumerate(atoms):
        if pieces:
            last = pieces[-1]
            both = tokens.near(last.start, atom.end)
            share = _FIRST_SHARE if starts_speech and len(pieces) == 1 else _JOIN_SHARE
            limit = 0 if by_sentence else max_tokens * share
            tail = index == len(atoms) - 1 and atom.num_tokens < _SHORT_TOKENS
            tiny = tail or last.num_tokens < _SHORT_TOKENS or not is_speakable(text[atom.start : atom.end])
            if (tiny or (both <= limit and not last.ends_line)) and tokens.fit(last.start, atom.end, max_tokens):
                pieces[-1] = _Atom(last.start, atom.end, both, atom.ends_line)
                continue
        pieces.append(atom)
    return ((piece.start, piece.end) for piece in pieces)
