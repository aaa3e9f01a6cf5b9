"""Text that arrives while it is being spoken: its sentences, each given out when it begins or when it is whole."""

import asyncio
import math
import re
from collections.abc import AsyncIterator

from serve_app.config import TextStreaming
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

    def __init__(self, max_characters: float = MAX_PIECE_CHARACTERS) -> None:
        self.max_characters = max_characters
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
            if end <= self.max_characters and sum(map(str.isalpha, self.text[:end])) >= MIN_PIECE_LETTERS:
                return end
        if len(self.text) <= self.max_characters:
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


class Sentence:
    """One sentence, read by one task while another writes it."""

    def __init__(self) -> None:
        self.text = ""
        self.whole = False
        self._changed = asyncio.Event()

    def become(self, text: str, whole: bool) -> None:
        """text: what it was, and more."""
        self.text, self.whole = text, whole
        self._changed.set()

    async def until(self, num_characters: float) -> None:
        """Wait until it is whole or has that many characters."""
        while not self.whole and len(self.text) < num_characters:
            self._changed.clear()
            await self._changed.wait()


class TextFeed:
    """Sentences of one stretch of speech, written by the reader of a socket and awaited by its speaker.

    max_pending: characters written and not yet taken; the bound on what a client can pile up.
    streaming: a sentence is given out when it begins ("token"), or when it is complete ("sentence").
    """

    def __init__(self, max_pending: int, streaming: TextStreaming) -> None:
        self.max_pending = max_pending
        self.num_pending = 0
        self.streaming = streaming
        # one that is fed is cut by its tokens
        self.splitter = PieceSplitter(math.inf if streaming == "token" else MAX_PIECE_CHARACTERS)
        self.written: Sentence | None = None
        self.sentences: asyncio.Queue[Sentence | None] = asyncio.Queue()

    def write(self, text: str) -> None:
        """Errors: `InputTooLong` when more than `max_pending` characters would wait; none of `text` is taken then."""
        if self.num_pending + len(text) > self.max_pending:
            raise InputTooLong(f"More than {self.max_pending} characters wait to be spoken.")
        self.num_pending += len(text)
        for piece in self.splitter.feed(text):
            self._write(piece, whole=True)
        if self.splitter.text and self.streaming == "token":
            self._write(self.splitter.text, whole=False)

    def taken(self, num_characters: int) -> None:
        """So many characters wait no longer."""
        self.num_pending -= num_characters

    def flush(self) -> None:
        """Speak what is there, though its sentence has not ended."""
        if rest := self.splitter.flush():
            self._write(rest, whole=True)

    def finish(self) -> None:
        """No more text will come."""
        self.flush()
        self.sentences.put_nowait(None)

    def _write(self, text: str, *, whole: bool) -> None:
        if self.written is None:
            self.written = Sentence()
            self.sentences.put_nowait(self.written)
        self.written.become(text, whole)
        if whole:
            self.written = None

    async def __aiter__(self) -> AsyncIterator[Sentence]:
        while (sentence := await self.sentences.get()) is not None:
            yield sentence
