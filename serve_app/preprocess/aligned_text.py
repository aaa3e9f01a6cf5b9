"""Text that remembers which part of the request's text each of its characters came from."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Rewrite = Callable[[re.Match[str]], str | None]
"""From a match to what replaces it; None leaves it as it is."""


@dataclass(frozen=True, slots=True)
class AlignedText:
    """text, and for each of its characters the code points [starts[i], ends[i]) of the original that it stands for."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> "AlignedText":
        """The text as it came, every character standing for itself."""
        return cls(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original that characters [start, end) stand for; start < end."""
        return min(self.starts[start:end]), max(self.ends[start:end])

    def cut(self, start: int, end: int) -> "AlignedText":
        """Characters [start, end), still aligned to the same original."""
        return AlignedText(self.text[start:end], self.starts[start:end], self.ends[start:end])

    def sub(self, pattern: re.Pattern[str], rewrite: Rewrite | str) -> "AlignedText":
        """`pattern.sub`, where every new character stands for the whole of what was replaced.

        What a replacement has in common with the match at its start or end stays as it was; so does all of one that is
        a part of the match, such as a word without its markup.
        """
        texts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for match in pattern.finditer(self.text):
            new = rewrite if isinstance(rewrite, str) else rewrite(match)
            first, last = match.span()
            if new is None or new == match.group():
                continue
            kept = match.group().find(new) if new else -1
            if kept >= 0:
                inner = slice(first + kept, first + kept + len(new))
                texts += (self.text[done:first], new)
                starts += (*self.starts[done:first], *self.starts[inner])
                ends += (*self.ends[done:first], *self.ends[inner])
                done = last
                continue
            first, last, new = _trimmed(match.group(), new, first, last)
            texts += (self.text[done:first], new)
            starts += self.starts[done:first]
            ends += self.ends[done:first]
            if new:
                start, end = self.span(first, last) if last > first else self._gap(first)
                starts += [start] * len(new)
                ends += [end] * len(new)
            done = last
        if not texts and done == 0:
            return self
        texts.append(self.text[done:])
        return AlignedText("".join(texts), (*starts, *self.starts[done:]), (*ends, *self.ends[done:]))

    def _gap(self, position: int) -> tuple[int, int]:
        """The empty place before character `position`."""
        if position < len(self.text):
            return self.starts[position], self.starts[position]
        end = self.ends[-1] if self.ends else 0
        return end, end


def _trimmed(old: str, new: str, first: int, last: int) -> tuple[int, int, str]:
    """The replacement of [first, last) without the characters that it leaves alone at either end."""
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return first + head, last - tail, new[head : len(new) - tail]


def joined(parts: list[AlignedText]) -> AlignedText:
    """Parts of one original, in order, as one text."""
    return AlignedText(
        "".join(p.text for p in parts),
        tuple(i for p in parts for i in p.starts),
        tuple(i for p in parts for i in p.ends),
    )
