"""A tokenizer's long list of word replacements, of which only those run whose word is in the text.

A `tokenizer.json` that holds a pronunciation lexicon has one `Replace` for each of its words, and the tokenizers
library runs them all for each text: 52,000 of them take 40 ms. Here the words in the text are looked up first.
"""

import itertools
import json
from collections.abc import Sequence

from tokenizers import NormalizedString, normalizers
from tokenizers import Tokenizer as Backend

_LONG = 200
"""Fewer replacements in a row cost nothing worth the name."""


class WordTable:
    """Replaces words one after the other, in the table's order: what a `Sequence` of `Replace` does, to the letter."""

    def __init__(self, replacements: Sequence[tuple[str, str]]) -> None:
        """replacements: (pattern, content) in order. Patterns are literal and not empty."""
        self._contents = [content for _, content in replacements]
        self._patterns = [pattern for pattern, _ in replacements]
        self._indices: dict[str, list[int]] = {}
        lengths: dict[str, set[int]] = {}
        for index, pattern in enumerate(self._patterns):
            self._indices.setdefault(pattern, []).append(index)
            lengths.setdefault(pattern[0], set()).add(len(pattern))
        self._lengths = {first: sorted(known) for first, known in lengths.items()}
        letters = set().union(*self._patterns)
        self._inert = [letters.isdisjoint(_changed(*pair)) and _changed(*pair) != "" for pair in replacements]

    def occurring(self, text: str) -> set[int]:
        """Numbers of the patterns that are somewhere in a text."""
        found: set[int] = set()
        for position, first in enumerate(text):
            for length in self._lengths.get(first, ()):
                found.update(self._indices.get(text[position : position + length], ()))
        return found

    def steps(self, text: str) -> list[int]:
        """Numbers of the replacements that would change the text, in rising order, when all are run in turn.

        One replacement can bring a later one's word into being, unless what it writes shares no letter with any word.
        """
        done: list[int] = []
        waiting = self.occurring(text)
        while waiting:
            index = min(waiting)
            waiting.discard(index)
            pattern = self._patterns[index]
            if pattern not in text:  # an earlier replacement took it away
                continue
            text = text.replace(pattern, self._contents[index])
            done.append(index)
            if not self._inert[index]:
                waiting = {later for later in self.occurring(text) if later > index}
        return done

    def normalize(self, normalized: NormalizedString) -> None:
        """Called by the tokenizers library, which keeps track of where in the text each character came from."""
        for index in self.steps(normalized.normalized):
            normalized.replace(self._patterns[index], self._contents[index])


def shorten(backend: Backend) -> None:
    """Has long runs of literal replacements in a tokenizer's normalizer done by `WordTable`s. Results stay the same."""
    sequence = backend.normalizer
    if not isinstance(sequence, normalizers.Sequence) or len(sequence) < _LONG:
        return
    described = json.loads(backend.to_str())["normalizer"]["normalizers"]
    steps: list[normalizers.Normalizer] = []
    numbered = enumerate(_literal(description) for description in described)
    for is_literal, run in itertools.groupby(numbered, key=lambda item: item[1] is not None):
        members = list(run)
        if is_literal and len(members) >= _LONG:
            table = WordTable([pair for _, pair in members if pair is not None])
            steps.append(normalizers.Normalizer.custom(table))
        else:
            steps += [sequence[index] for index, _ in members]
    backend.normalizer = normalizers.Sequence(steps)


def _literal(description: dict[str, object]) -> tuple[str, str] | None:
    """(pattern, content) of a step that replaces a literal text; None for every other step."""
    if description["type"] != "Replace":
        return None
    pattern = description["pattern"]
    assert isinstance(pattern, dict)
    return (pattern["String"], str(description["content"])) if pattern.get("String") else None


def _changed(pattern: str, content: str) -> str:
    """The content without the edges that it shares with the pattern."""
    start = 0
    while start < min(len(pattern), len(content)) and pattern[start] == content[start]:
        start += 1
    end = 0
    while end < min(len(pattern), len(content)) - start and pattern[-1 - end] == content[-1 - end]:
        end += 1
    return content[start : len(content) - end]
