"""A text side by side with the words that are said for it."""

import re

from serve_app.messages import Reading, ReadPart, ReadPiece
from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.speakable import SpeakableText

_WORD_CHARACTER = re.compile(r"[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Of a script that puts spaces between words: there a change is shown as a whole word, "3rd" and not "3"."""


def reading_of(text: str, spoken: SpeakableText) -> Reading:
    """text: what `spoken` was made of."""
    pieces = tuple(ReadPiece(_parts(text, piece.piece.words), piece.pause_before_s) for piece in spoken.pieces)
    return Reading(pieces, spoken.pause_after_s, spoken.warnings)


def _parts(text: str, words: AlignedText) -> tuple[ReadPart, ...]:
    """Stretches that are said as they are written, and stretches that are not, in turn; joined they are all words."""
    kept = _kept(text, words)
    parts: list[ReadPart] = []
    first = 0
    for index in range(1, len(kept) + 1):
        goes_on = index < len(kept) and kept[index] == kept[first]
        if goes_on and (not kept[index] or words.starts[index] == words.ends[index - 1]):
            continue
        start, end = words.span(first, index)
        parts.append(ReadPart(start, end, text[start:end], words.text[first:index]))
        first = index
    return tuple(parts)


def _kept(text: str, words: AlignedText) -> list[bool]:
    """For each character that is said, whether it is one that was written; False in a word that changed anywhere."""
    kept = [
        end == start + 1 and (text[start] == said or (said == " " and text[start].isspace()))
        for said, start, end in zip(words.text, words.starts, words.ends, strict=True)
    ]
    for indices in (range(1, len(kept)), range(len(kept) - 2, -1, -1)):
        for index in indices:
            neighbour = index - indices.step
            if kept[index] and not kept[neighbour] and _joins(words.text[neighbour]) and _joins(words.text[index]):
                kept[index] = False
    return kept


def _joins(character: str) -> bool:
    return _WORD_CHARACTER.match(character) is not None
