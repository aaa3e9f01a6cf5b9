"""When listeners will have their next chunk, by the measured cost of steps. Plain Python, like the scheduler."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.caution import USUAL, Caution
from serve_app.synthesis.scheduler import Progress, Work


@dataclass(frozen=True, slots=True)
class Forecast:
    """capacity: by whose costs and limits."""

    capacity: Capacity
    caution: Caution = field(default_factory=Caution)

    def can_wait(self, streams: Sequence[Progress], newcomer: Progress, now_s: float) -> bool | None:
        """Whether all who listen get their next chunks in time if the newcomer takes its next step before them.

        None where that is not known: before the first steps were measured, and where the engine cannot keep up anyway.
        """
        listeners = [progress for progress in streams if progress.playback.started_at_s is not None]
        work = newcomer.needs()
        if work is None:
            return None
        batch = min(sum(progress.needs() is work for progress in streams), self.capacity.limits.of(work))
        step_s = self.capacity.costs.of(work, batch)
        if not step_s or not self.capacity.keeps_up(len({id(progress.playback) for progress in streams})):
            return None
        caution = max(USUAL, self.caution.factor)
        return self._spare_s(listeners, len(streams), now_s, caution) >= caution * step_s

    def lasts(self, audio_s: float, next_chunk_s: float) -> bool:
        """Whether a first sound of `audio_s` lasts until its listener has the next chunk, forecast for `next_chunk_s`.

        A player that starts with 200 ms has nothing else in hand: the demo's first sound alone is longer.
        """
        return self.caution.factor * next_chunk_s <= audio_s

    def next_chunk_s(self, first: Progress, audio_s: float, streams: Iterable[Progress], now_s: float) -> float | None:
        """Seconds until the next chunk of one whose first sound, of `audio_s`, is heard from now on.

        None where holding that back would be of no use.
        """
        everybody = [progress for progress in streams if progress.needs() is not None]
        if first not in everybody or not self.capacity.keeps_up(len({id(p.playback) for p in everybody})):
            return None
        ahead = [other for other in everybody if _is_ahead(other, first, now_s + audio_s)]
        *_, next_chunk_s = self._chunks_s([*ahead, first], len(everybody))
        return next_chunk_s

    def _spare_s(self, listeners: Iterable[Progress], num_open: int, now_s: float, caution: float) -> float:
        """Seconds for which all of them can be left alone without one of them running dry; negative where one will."""
        playing: dict[int, Progress] = {}
        for progress in sorted(listeners, key=lambda progress: (progress.playback.dry_at_s(), progress.utterance)):
            playing.setdefault(id(progress.playback), progress)
        ready_s = self._chunks_s(playing.values(), num_open)
        dry_s = (progress.playback.dry_at_s() - now_s for progress in playing.values())
        return min((dry - caution * ready for dry, ready in zip(dry_s, ready_s, strict=True)), default=math.inf)

    def _chunks_s(self, ordered: Iterable[Progress], num_open: int) -> Iterator[float]:
        """Seconds until each of these has its next chunk: prompts are read first, tokens drawn together, and chunks
        rendered in this order.

        num_open: streams that decode; more than a batch of them take turns.
        """
        costs, limits = self.capacity.costs, self.capacity.limits
        batch = min(num_open, limits.decode)
        decode_s = costs.of(Work.DECODE, batch) * num_open / batch if batch else 0.0
        num_unread, num_tokens = 0, 0
        for num_chunks, progress in enumerate(ordered, start=1):
            if not progress.generated:
                num_unread += progress.unread > 0
                num_tokens = max(num_tokens, progress.tokens_needed)
            full, rest = divmod(num_chunks, limits.render)
            renders_s = full * costs.of(Work.RENDER, limits.render) + (costs.of(Work.RENDER, rest) if rest else 0.0)
            yield num_unread * costs.of(Work.PREFILL, 1) + num_tokens * decode_s + renders_s


def _is_ahead(other: Progress, first: Progress, dry_at_s: float) -> bool:
    """Whether another gets a chunk before the second one of a stream whose first sound is played until `dry_at_s`."""
    if other.playback is first.playback:
        return False
    if other.playback.started_at_s is not None:
        return other.playback.dry_at_s() <= dry_at_s
    return (other.tokens_needed, other.playback.opened_at_s) < (first.tokens_needed, first.playback.opened_at_s)
