"""Cleans a request's text of what is not language: control characters, stray code points, uneven white space."""

import re
import unicodedata

from serve_app.preprocess.aligned_text import AlignedText

_LINE_END = re.compile(r"\r\n?|[\u0085\u2028\u2029\v\f]")
_LINES = re.compile(r"[^\S\n]*\n\s*")
_SPACES = re.compile(r"[^\S\n]+")
_CONTROL_TOKEN = re.compile(r"<\|[A-Za-z0-9_]{1,32}\|>")
_OUTER_SPACE = re.compile(r"\A\s+|\s+\Z")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Controls, invisible formats (byte order marks, joiners, direction marks), lone surrogates, private, unassigned."""


def clean(text: str) -> AlignedText:
    """NFC, one kind of white space and of line end, nothing invisible, and none of the model's control tokens.

    A line end stays, as one "\\n": it ends a sentence. Tags like `[laughter]` stay.
    """
    aligned = AlignedText.of(text).sub(_LINE_END, "\n")
    dropped = {c for c in set(aligned.text) if c not in "\n\t" and unicodedata.category(c) in _DROPPED_CATEGORIES}
    if dropped:
        aligned = aligned.sub(re.compile(f"[{re.escape(''.join(dropped))}]+"), "")
    if not unicodedata.is_normalized("NFC", aligned.text):
        aligned = aligned.sub(_composing_runs(aligned.text), lambda m: unicodedata.normalize("NFC", m.group()))
    aligned = aligned.sub(_CONTROL_TOKEN, " ")
    aligned = aligned.sub(_SPACES, " ").sub(_LINES, "\n")
    return aligned.sub(_OUTER_SPACE, "")


def is_speakable(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(c.isalnum() for c in text)


def _composing_runs(text: str) -> re.Pattern[str]:
    """Matches a character with all that could compose with it: marks, vowels and finals of decomposed Hangul."""
    joins = {c for c in set(text) if unicodedata.category(c)[0] == "M" or "\u1160" <= c <= "\u11ff"}
    follow = f"[{re.escape(''.join(joins))}]*" if joins else ""
    return re.compile(f"(?s:.){follow}")
