"""Text that arrives while it is spoken: what the language model reads of it, and when.

CosyVoice2's interleaving, as upstream's `Qwen2LM.inference_bistream` (`cosyvoice/llm/llm.py`, commit ace7c47) runs it
on text that comes one token at a time: a block of text tokens, a block of speech tokens, and so on; the prompt's text
and speech are laid out first. After each block of speech stands the fill token, which asks for more text and is itself
never read. When the text has ended, what is left of it is read, then the task token, and the rest is spoken.

What is read depends on the text alone and never on when it arrived, so a seeded request can be repeated. Upstream has
one fault that is not followed: text that ends before the prompt is laid out loses the rest of the prompt's speech, and
the model then speaks the prompt's own words. Such a text is read like any other whose end was known from the start.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Table(Enum):
    """Which embedding an id of the language model's input belongs to."""

    MARK = "mark"
    TEXT = "text"
    SPEECH = "speech"


START, TASK = (0,), (1,)
"""Ids of the marks: start of the sequence, and "speak now"."""

Reading = tuple[tuple[Table, Sequence[int]], ...]
"""Consecutive input of the language model."""


@dataclass(slots=True)
class Interleave:
    """The text of one utterance, as far as it has arrived.

    text_block, speech_block: tokens of each that were trained to alternate.
    prompt_text, prompt_speech: ids that come first.
    arrived: text tokens not looked at yet. held: text tokens looked at and not read yet, prompt included.
    num_text: text tokens fed so far. next_fill: number of outputs after which the model must ask for text.
    started: the model has something to read. complete: all of the text is laid out.
    """

    text_block: int
    speech_block: int
    prompt_text: Sequence[int]
    prompt_speech: Sequence[int]
    arrived: deque[int] = field(default_factory=deque)
    held: list[int] = field(default_factory=list)
    num_text: int = 0
    next_fill: int = field(init=False)
    ended: bool = False
    started: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        self.held.extend(self.prompt_text)
        self.next_fill = self.speech_block - len(self.prompt_speech) % self.speech_block

    def feed(self, ids: Iterable[int]) -> None:
        before = len(self.arrived)
        self.arrived.extend(ids)
        self.num_text += len(self.arrived) - before

    def ask(self, num_outputs: int) -> None:
        """Notes that output number `num_outputs`, counted from one, was the fill token."""
        self.next_fill = num_outputs + self.speech_block

    def next_reading(self, last_speech: Sequence[int]) -> Reading | None:
        """What to read before the next token is drawn; None while text is missing.

        last_speech: the speech token before the fill token, which upstream reads twice when the text has ended; empty
        where there is none.
        """
        if not self.started:
            return self._first_reading()
        while self.arrived:
            self.held.append(self.arrived.popleft())
            if len(self.held) >= self.text_block:
                return ((Table.TEXT, self._take_block()),)
        if not self.ended:
            return None
        self.complete = True
        return (Table.SPEECH, last_speech), (Table.TEXT, self.held), (Table.MARK, TASK)

    def _first_reading(self) -> Reading | None:
        num_blocks = max(1, -(-len(self.prompt_speech) // self.speech_block))
        # Upstream looks at one fed token at least.
        missing = max(1, num_blocks * self.text_block - len(self.held))
        if missing > len(self.arrived):
            if not self.ended:
                return None
            self.started = self.complete = True
            text = [*self.held, *self.arrived]
            return (Table.MARK, START), (Table.TEXT, text), (Table.MARK, TASK), (Table.SPEECH, self.prompt_speech)
        self.started = True
        self.held.extend(self.arrived.popleft() for _ in range(missing))
        reading: list[tuple[Table, Sequence[int]]] = [(Table.MARK, START)]
        for block in range(num_blocks):
            speech = self.prompt_speech[block * self.speech_block : (block + 1) * self.speech_block]
            reading += [(Table.TEXT, self._take_block()), (Table.SPEECH, speech)]
        return tuple(reading)

    def _take_block(self) -> list[int]:
        block = self.held[: self.text_block]
        del self.held[: self.text_block]
        return block
