"""Text that arrives while it is being spoken: cut into pieces at sentence ends, each piece as soon as it is complete.

The engine takes whole pieces of text for now. That pieces, not tokens, are spoken is decided here and in
`fed_speech.py`, and nowhere else.
"""

import asyncio
import re
from collections.abc import AsyncIterator

from serve_app.errors import InputTooLong

MAX_PIECE_CHARACTERS = 240
"""Longer text without a sentence end is cut at a clause, or at a space."""

MIN_PIECE_LETTERS = 4
"""A shorter piece ("No.", "1.") waits for its neighbour: so little text is spoken badly."""

_WIDE_END = re.compile(r"[。！？；]+[”’」』）]*|\n+")
_SPACED_END = re.compile(r"([.!?…]+)[\"'”’)\]]*(?=\s)")
_CLAUSE_END = re.compile(r"[,;:，、：][\"'”’)\]]*\s*|\s[—–-]\s|\s+")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|No|Nr|z\.B|usw)|\b[A-Z])$")


class PieceSplitter:
    """Collects text and gives it back in pieces whose joined text is what went in."""

    def __init__(self) -> None:
        self.text = ""

    def feed(self, text: str) -> list[str]:
        """The pieces that `text` completes."""
        self.text += text
        pieces = []
        while (end := self._end_of_piece()) is not None:
            pieces.append(self.text[:end])
            self.text = self.text[end:]
        return pieces

    def flush(self) -> str:
        """What is left, complete or not."""
        rest, self.text = self.text, ""
        return rest

    def _end_of_piece(self) -> int | None:
        for end in self._sentence_ends():
            if end <= MAX_PIECE_CHARACTERS and sum(map(str.isalpha, self.text[:end])) >= MIN_PIECE_LETTERS:
                return end
        if len(self.text) <= MAX_PIECE_CHARACTERS:
            return None
        clauses = [found.end() for found in _CLAUSE_END.finditer(self.text, 0, MAX_PIECE_CHARACTERS)]
        marks = [end for end in clauses if not self.text[:end].rstrip()[-1:].isalnum()]
        return (marks or clauses or [MAX_PIECE_CHARACTERS])[-1]

    def _sentence_ends(self) -> list[int]:
        ends = [found.end() for found in _WIDE_END.finditer(self.text)]
        for found in _SPACED_END.finditer(self.text):
            if found[1] != "." or not _ABBREVIATION.search(self.text, 0, found.start()):
                ends.append(found.end())
        return sorted(ends)


class TextFeed:
    """Pieces of one stretch of speech, written by the reader of a socket and awaited by its speaker.

    max_pending: characters written and not yet taken; the bound on what a client can pile up.
    """

    def __init__(self, max_pending: int) -> None:
        self.max_pending = max_pending
        self.num_pending = 0
        self.splitter = PieceSplitter()
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def write(self, text: str) -> None:
        """Errors: `InputTooLong` when more than `max_pending` characters would wait; none of `text` is taken then."""
        if self.num_pending + len(text) > self.max_pending:
            raise InputTooLong(f"More than {self.max_pending} characters wait to be spoken.")
        self.num_pending += len(text)
        for piece in self.splitter.feed(text):
            self.pieces.put_nowait(piece)

    def flush(self) -> None:
        """Speak what is there, though its sentence has not ended."""
        if rest := self.splitter.flush():
            self.pieces.put_nowait(rest)

    def finish(self) -> None:
        """No more text will come."""
        self.flush()
        self.pieces.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (piece := await self.pieces.get()) is not None:
            self.num_pending -= len(piece)
            yield piece
