"""Which streams run next, and why. Plain Python: no torch, no clock of its own, so a simulation can drive it.

Every listener has a playback clock: it started when its first sound left the engine and has so many seconds of audio in
hand. The policy orders streams by urgency: listeners about to run dry, then listeners who have heard nothing yet, then
the earliest deadline. The most urgent stream decides what kind of batch runs; every other stream that can use the same
kind of batch joins it, because sharing a batch costs it nothing. Chunks that nobody waits for are not rendered one by
one as they become ready: decoding goes on until somebody is in a hurry or a render batch is full. Prompts are read in
pieces, and after each the order is made anew, so that a long one never stalls those who are listening. A stream whose
text is still being written waits for it without a place in any order.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

_FIRST_SOUND_IN_TIME, _ABOUT_TO_RUN_DRY, _FIRST_SOUND, _CAN_WAIT, _FIRST_SOUND_TOO_EARLY = range(5)
"""Classes of urgency, in the order in which they are served."""


@dataclass(slots=True)
class Playback:
    """What one listener has received; shared by the utterances of one request, which play one after another.

    started_at_s: clock time of the first sample, and later by every gap since; None before it.
    audio_s: seconds of audio delivered so far.
    """

    opened_at_s: float
    started_at_s: float | None = None
    audio_s: float = 0.0

    def deliver(self, audio_s: float, now_s: float) -> None:
        """More audio. One who had run dry goes on from here: the gap does not make a listener urgent for ever."""
        if self.started_at_s is None:
            self.started_at_s = now_s
        self.started_at_s = max(self.started_at_s, now_s - self.audio_s)
        self.audio_s += audio_s

    def dry_at_s(self) -> float:
        """Clock time at which the listener runs out of audio; before the first sound, the time it was opened."""
        return self.opened_at_s if self.started_at_s is None else self.started_at_s + self.audio_s


class Work(Enum):
    """What a stream can do next. The flow takes in the prompt of an unknown voice chunk by chunk, by RENDER too."""

    PREFILL = "prefill"
    DECODE = "decode"
    RENDER = "render"


@dataclass(slots=True)
class Progress:
    """The scheduler's view of one stream.

    utterance: its index in the request; earlier ones of the same listener come first.
    unread: positions of prompt and text that the language model reads before it draws its next token.
    waiting: the next token needs text that has not been fed.
    generated: the language model has produced its last token.
    tokens_needed: speech tokens still missing before the next chunk can be rendered; 0 when it can be rendered now.
    """

    stream_id: int
    playback: Playback
    utterance: int
    unread: int = 1
    waiting: bool = False
    generated: bool = False
    tokens_needed: int = 1

    def needs(self) -> Work | None:
        """The step that brings this stream closer to its next sound; None while only its client can do that."""
        if self.generated or self.tokens_needed <= 0:
            return Work.RENDER
        if self.waiting:
            return None
        return Work.PREFILL if self.unread else Work.DECODE

    @property
    def can_read(self) -> bool:
        """Whether there is prompt or text that the language model can read now, whatever is rendered first."""
        return self.unread > 0 and not (self.waiting or self.generated)

    def can_join(self, work: Work, token_lead: int) -> bool:
        """Whether a batch of `work` helps this stream; decoding may run `token_lead` tokens ahead of rendering."""
        if work is Work.DECODE:
            can_draw = not (self.unread or self.waiting or self.generated)
            return can_draw and self.tokens_needed > -token_lead
        return self.needs() is work


@dataclass(frozen=True, slots=True)
class Batch:
    """Streams that take the same kind of step together, most urgent first.

    positions: most positions of its prompt and text that each stream reads in a prefill. Always the same, whatever the
        company, so that a stream's numbers do not depend on it.
    """

    work: Work
    stream_ids: tuple[int, ...]
    positions: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest batches, chosen per device.

    prefill_chunk: positions read at once; while a piece is read everybody else waits.
    render: on a CPU rendering two streams together takes twice as long, so an urgent one would wait for the other.
    token_lead: how far the language model may run ahead of the renderer.
    urgent_s: a listener with less audio than this in hand is about to run dry, however few there are.
    max_lead_s: a listener with more audio than this in hand waits, and costs nothing.
    """

    prefill: int = 1
    prefill_chunk: int = 64
    decode: int = 64
    render: int = 1
    token_lead: int = 50
    urgent_s: float = 0.3
    max_lead_s: float = math.inf

    def of(self, work: Work) -> int:
        return {Work.PREFILL: self.prefill, Work.DECODE: self.decode, Work.RENDER: self.render}[work]


class Scheduler:
    """Orders the work of the open streams."""

    def __init__(
        self,
        limits: Limits,
        round_s: Callable[[int], float] = lambda listeners: 0.0,
        can_wait: Callable[[Sequence[Progress], Progress, float], bool | None] = lambda streams, newcomer, now_s: None,
    ) -> None:
        """round_s: seconds in which each of so many listeners gets the next second of sound. Whoever has less in hand
        than that comes before newcomers: if all were let down to `urgent_s`, they would be in a hurry together.
        can_wait: whether listeners get their next chunks in time if that newcomer takes its next step before them; None
        where that is not known, and what they have in hand decides.
        """
        self._limits = limits
        self._round_s = round_s
        self._can_wait = can_wait

    def urgency(
        self, progress: Progress, now_s: float, urgent_s: float, first_sound: int = _FIRST_SOUND
    ) -> tuple[int, bool, float, int]:
        """Sort key, smallest first: class of urgency, deadline, order of utterances.

        urgent_s: who listens and has less than this in hand is about to run dry. first_sound: class of those who have
        heard nothing.

        Among those who wait for their first sound prompts are taken in first, so that their first tokens are decoded
        together; serving them one after another would cost each of them the decode steps of all before it.
        """
        playback = progress.playback
        dry_at_s = playback.dry_at_s()
        if playback.started_at_s is None:
            return (first_sound, progress.needs() is Work.DECODE, dry_at_s, progress.utterance)
        urgent = dry_at_s - now_s < urgent_s
        return (_ABOUT_TO_RUN_DRY if urgent else _CAN_WAIT, False, dry_at_s, progress.utterance)

    def next_batch(self, streams: Iterable[Progress], now_s: float, *, may_render: bool = True) -> Batch | None:
        """The next batch to run, or None when no stream can go on or every listener has plenty.

        may_render: False while a render is under way. Then the language model goes on, for the most urgent first.
        """
        waiting = [progress for progress in streams if self._pause_s(progress, now_s) <= 0]
        listeners = {id(progress.playback) for progress in waiting if progress.playback.started_at_s is not None}
        urgent_s = max(self._limits.urgent_s, self._round_s(len(listeners)))
        ordered = sorted(waiting, key=lambda progress: self.urgency(progress, now_s, urgent_s))
        first_sound = self._class_of_first_sounds(ordered, now_s)
        if first_sound != _FIRST_SOUND:
            ordered.sort(key=lambda progress: self.urgency(progress, now_s, urgent_s, first_sound))
        if not ordered:
            return None
        if not may_render:
            return self._beside_a_render(ordered)
        work = ordered[0].needs()
        assert work is not None
        joining = self._joining(ordered, work)
        hurry, *_ = self.urgency(ordered[0], now_s, urgent_s, first_sound)
        if work is Work.RENDER and hurry == _CAN_WAIT and first_sound != _FIRST_SOUND_TOO_EARLY:
            # Nobody is in a hurry: let more chunks become ready, so that they are rendered together.
            decoding = self._joining(ordered, Work.DECODE)
            if decoding and len(joining) < self._limits.render:
                work, joining = Work.DECODE, decoding
        return Batch(work, joining, self._limits.prefill_chunk)

    def _beside_a_render(self, ordered: Sequence[Progress]) -> Batch | None:
        """Whoever has a chunk to be rendered next goes on, too."""
        for progress in ordered:
            if progress.can_read:
                reading = (other.stream_id for other in ordered if other.can_read)
                chosen = tuple(itertools.islice(reading, self._limits.prefill))
                return Batch(Work.PREFILL, chosen, self._limits.prefill_chunk)
            if progress.can_join(Work.DECODE, self._limits.token_lead):
                return Batch(Work.DECODE, self._joining(ordered, Work.DECODE), self._limits.prefill_chunk)
        return None

    def _class_of_first_sounds(self, ordered: Sequence[Progress], now_s: float) -> int:
        newcomer = next((progress for progress in ordered if progress.playback.started_at_s is None), None)
        if newcomer is None:
            return _FIRST_SOUND
        in_time = self._can_wait(ordered, newcomer, now_s)
        if in_time is None:
            return _FIRST_SOUND
        return _FIRST_SOUND_IN_TIME if in_time else _FIRST_SOUND_TOO_EARLY

    def wait_s(self, streams: Iterable[Progress], now_s: float) -> float | None:
        """Seconds until there is a batch to run: 0 for now, None while no open stream can go on by itself."""
        soonest_s = min((self._pause_s(progress, now_s) for progress in streams), default=math.inf)
        return None if soonest_s == math.inf else max(0.0, soonest_s)

    def _pause_s(self, progress: Progress, now_s: float) -> float:
        """Seconds until a listener who has plenty needs more; not positive for one who needs it now, infinite for a
        stream that only its client can bring on."""
        if progress.needs() is None:
            return math.inf
        if progress.playback.started_at_s is None:
            return 0.0
        return progress.playback.dry_at_s() - now_s - self._limits.max_lead_s

    def _joining(self, ordered: Iterable[Progress], work: Work) -> tuple[int, ...]:
        able = (p.stream_id for p in ordered if p.can_join(work, self._limits.token_lead))
        return tuple(itertools.islice(able, self._limits.of(work)))
