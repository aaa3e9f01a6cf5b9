"""The language model's decode and its draw in calls of fixed shape, one for each (batch bucket, span), for CUDA graphs;
and the host one step behind the device, which so never waits for the next launch.

The newest token of each stream and what the sampler must know of those before it stay on the device, so that a step can
be launched before the token of the step before has been read. Random numbers are a function of seed and step alone:
what is drawn ahead is what would have been drawn later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from serve_app.model.kv_cache import SPAN_STEP, KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.paged_chunks import BATCH_BUCKETS, bucket
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.sample_copy import Arriving, start_copy
from serve_app.synthesis.sampling import Draw, uniforms

Drawn = tuple[int, int]
"""A token, and whether its logits were numbers: 0 or 1."""


@dataclass(frozen=True, slots=True)
class Turn:
    """All that the host says of one stream's draw.

    position: of the token that is read. step: outputs before the draw. stops_allowed: of the last three ids.
    """

    slot: int
    position: int
    step: int
    seed: int
    stops_allowed: tuple[bool, bool, bool]


class FixedDecode:
    """Owns the newest outputs of each slot on the device, and what has been launched and not yet asked for.

    Fills a batch up to its bucket with rows that write to a slot of their own.
    """

    def __init__(self, model: LanguageModel, cache: KVCache, sampler: Draw, graphs: Graphs) -> None:
        self._model, self._cache, self._sampler = model, cache, sampler
        self._device, self._window = cache.keys.device, sampler.window
        spare_slot = cache.take()
        self._spare = Turn(spare_slot, 0, 0, 0, (True, True, True))
        self._last = torch.zeros(cache.num_slots, dtype=torch.int64, device=self._device)
        # A ring for each slot: output number n lies at n modulo the window.
        self._recent = torch.full((cache.num_slots, self._window), -1, device=self._device)
        self._ahead: dict[int, tuple[Turn, Arriving, int]] = {}
        self._call = graphs.wrap(self._step)

    def __call__(
        self, now: Sequence[Turn], then: Sequence[Turn | None], outputs: Sequence[Sequence[int]]
    ) -> list[Drawn]:
        """Draws for the turns of B streams, and launches those that follow, for whom they are known.

        outputs: of each stream, the newest last, at least one. Raises ValueError when a slot is full.
        """
        late = [row for row, turn in enumerate(now) if not self._is_launched(turn)]
        if late:
            self._put([now[row] for row in late], [outputs[row] for row in late])
            self._launch([now[row] for row in late])
        arriving = [self._ahead.pop(turn.slot) for turn in now]
        if following := [turn for turn in then if turn is not None]:
            self._launch(following)
        read = {id(copy): copy() for _, copy, _ in arriving}
        drawn = []
        for _, copy, row in arriving:
            token, is_valid = read[id(copy)][row].tolist()
            drawn.append((token, is_valid))
        return drawn

    def forget(self, slot: int) -> None:
        """The slot's stream has ended: nobody gets what was drawn ahead for it."""
        self._ahead.pop(slot, None)

    def rehearse(self) -> None:
        """Every batch bucket that the slots can fill, at every span."""
        for batch in (size for size in BATCH_BUCKETS if size <= bucket(self._cache.num_slots - 1, BATCH_BUCKETS)):
            for end in range(SPAN_STEP, self._cache.max_positions + SPAN_STEP, SPAN_STEP):
                self._run([self._spare] * batch, min(end, self._cache.max_positions))

    def _is_launched(self, turn: Turn) -> bool:
        """Not if the stream went another way since: text to read, another seed, a step that failed. What was drawn
        ahead then is forgotten, and what it wrote to the cache is written again before anybody reads it."""
        return turn.slot in self._ahead and self._ahead[turn.slot][0] == turn

    def _put(self, turns: Sequence[Turn], outputs: Sequence[Sequence[int]]) -> None:
        """Tells the device what these streams have said."""
        rows = torch.full((len(turns), 2 + self._window), -1)
        for row, turn, past in zip(rows, turns, outputs, strict=True):
            row[0], row[1] = turn.slot, past[-1]
            recent = past[-self._window :]
            for back, token in enumerate(reversed(recent), start=1):
                row[2 + (turn.step - back) % self._window] = token
        rows = rows.to(self._device, non_blocking=True)
        self._last.index_copy_(0, rows[:, 0], rows[:, 1])
        self._recent.index_copy_(0, rows[:, 0], rows[:, 2:])

    def _launch(self, turns: Sequence[Turn]) -> None:
        idle = bucket(len(turns), BATCH_BUCKETS) - len(turns)
        span = self._cache.span(max(turn.position for turn in turns) + 1)
        copy = start_copy(self._run([*turns, *([self._spare] * idle)], span))
        for row, turn in enumerate(turns):
            self._ahead[turn.slot] = turn, copy, row

    def _run(self, turns: Sequence[Turn], span: int) -> Tensor:
        """-> int64 [batch, 2]. One copy takes all of a step to the device."""
        seeds = np.array([turn.seed for turn in turns], dtype=np.uint64)
        random = torch.from_numpy(uniforms(seeds, np.array([turn.step for turn in turns], dtype=np.uint64), 2))
        numbers = [(turn.slot, turn.position, turn.step % self._window, *turn.stops_allowed) for turn in turns]
        rows = torch.cat((torch.tensor(numbers), random.view(torch.int32)), dim=1)
        places = torch.arange(span, device=self._device)
        (drawn,) = self._call(rows.to(self._device, non_blocking=True), places)
        return drawn

    def _step(self, rows: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """rows: int64 [batch, 8]; places: [span], whose length is what tells one captured call from another."""
        slots, positions, ring = rows[:, :3].unbind(1)
        random = rows[:, 6:].to(torch.int32).view(torch.float32)
        logits = self._model.decode_span(self._last[slots], self._cache, slots, positions, len(places))
        valid = logits.isfinite().all(dim=-1)
        # A row of NaN would make the sampler fail for everybody.
        logits = logits.masked_fill(~valid[:, None], 0.0)
        tokens = self._sampler(logits, self._recent[slots], rows[:, 3:6].bool(), random)
        self._last.index_copy_(0, slots, tokens)
        self._recent[slots, ring] = tokens
        return (torch.stack((tokens, valid), dim=1),)
