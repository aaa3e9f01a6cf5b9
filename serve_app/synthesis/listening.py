"""Listeners of an engine alone: what reached each of them when, and the figures of that."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serve_app.errors import Overloaded, SpeechError
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array, PreparedSpeech, VoicePrompt
from serve_app.synthesis.made_up import made_up_utterance
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine

AUDIBLE_DBFS = -45.0
AUDIBLE_WINDOW_S = 0.02


@dataclass(slots=True)
class Listener:
    """One request as its player sees it.

    arrivals: (seconds since the request was opened, samples) of each chunk.
    """

    opened_s: float
    arrivals: list[tuple[float, Float32Array]] = field(default_factory=list)
    finished_s: float = 0.0

    @property
    def audio_s(self) -> float:
        return sum(len(samples) for _, samples in self.arrivals) / SAMPLE_RATE_HZ

    @property
    def ttfa_s(self) -> float:
        return self.arrivals[0][0]

    @property
    def audible_ttfa_s(self) -> float:
        """When the first window above the threshold would play: its arrival, plus the quiet audio before it."""
        quiet_s = 0.0
        window = int(AUDIBLE_WINDOW_S * SAMPLE_RATE_HZ)
        for _, samples in self.arrivals:
            for start in range(0, len(samples), window):
                level = float(np.sqrt(np.mean(samples[start : start + window] ** 2)))
                if level > 10 ** (AUDIBLE_DBFS / 20):
                    return self.ttfa_s + quiet_s
                quiet_s += window / SAMPLE_RATE_HZ
        return float("nan")

    def underruns(self) -> int:
        """Times that a player which starts at the first chunk runs dry."""
        count, dry_s = 0, self.ttfa_s
        for arrived_s, samples in self.arrivals:
            if arrived_s > dry_s:
                count, dry_s = count + 1, arrived_s
            dry_s += len(samples) / SAMPLE_RATE_HZ
        return count


def serve_all(
    engine: Engine,
    voices: Sequence[VoicePrompt],
    seconds: float,
    arrivals_s: Sequence[float],
    at_once: int | None = None,
) -> tuple[list[Listener], float]:
    """Opens a request at each arrival time and steps until all have ended. Returns the listeners and the wall time.

    at_once: no more than so many are served at a time, and who waits for that has not arrived yet. Raises what the
    engine says to any of them; then it holds none of them.
    """
    listeners: dict[int, Listener] = {}
    try:
        return _serve_all(engine, voices, seconds, arrivals_s, at_once or len(arrivals_s), listeners)
    except SpeechError:
        for index in listeners:
            engine.close(index)
        while engine.wait_s() is not None:  # a render that is under way keeps what its streams hold
            engine.step()
        raise


def _serve_all(
    engine: Engine,
    voices: Sequence[VoicePrompt],
    seconds: float,
    arrivals_s: Sequence[float],
    at_once: int,
    listeners: dict[int, Listener],
) -> tuple[list[Listener], float]:
    num_open = 0
    waiting = list(enumerate(arrivals_s))
    started = time.monotonic()
    while waiting or engine.wait_s() is not None:
        now = time.monotonic() - started
        while waiting and waiting[0][1] <= now and num_open < at_once:
            index, arrival_s = waiting.pop(0)
            voice = voices[index % len(voices)]
            num_open += 1
            listeners[index] = Listener(arrival_s if at_once == len(arrivals_s) else now)
            speech = PreparedSpeech("bench", voice, (made_up_utterance(voice, index, seconds),), index)
            engine.open(index, speech, 0, Playback(time.monotonic()))
        idle_s = engine.wait_s()
        if idle_s is None:
            idle_s = max(0.0, waiting[0][1] - now)
        time.sleep(idle_s)
        for event in engine.step():
            if event.error is not None:
                raise event.error
            listener = listeners[event.stream_id]
            at_s = time.monotonic() - started - listener.opened_s
            if len(event.samples):
                listener.arrivals.append((at_s, event.samples))
            if event.finished:
                num_open -= 1
                listener.finished_s = at_s
    return [listeners[index] for index in sorted(listeners)], time.monotonic() - started


def percentile_ms(values_s: Sequence[float], q: float) -> float:
    return round(1000 * float(np.nanpercentile(values_s, q)), 1)


def summary(listeners: Sequence[Listener], wall_s: float) -> dict[str, object]:
    """Figures of one run. ttfa in ms; rtf is of one listener, throughput in seconds of audio per second."""
    ttfa = [listener.ttfa_s for listener in listeners]
    audible = [listener.audible_ttfa_s for listener in listeners]
    audio_s = sum(listener.audio_s for listener in listeners)
    return {
        "streams": len(listeners),
        "ttfa_ms": {"p50": percentile_ms(ttfa, 50), "p95": percentile_ms(ttfa, 95)},
        "audible_ttfa_ms": {"p50": percentile_ms(audible, 50), "p95": percentile_ms(audible, 95)},
        "rtf": round(float(np.median([listener.finished_s / listener.audio_s for listener in listeners])), 3),
        "audio_s_per_s": round(audio_s / wall_s, 3),
        "tokens_per_s": round(audio_s * 25 / wall_s, 1),
        "underruns": sum(listener.underruns() for listener in listeners),
    }


def chunk_costs_s(listener: Listener) -> list[float]:
    """Seconds between consecutive chunks of one listener that was served alone."""
    times = [0.0, *(arrived_s for arrived_s, _ in listener.arrivals)]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def chunk_cost_growth(listener: Listener, early: int = 2, late: int = 10) -> float | None:
    """Cost of the late chunk over that of the early one, per second of audio each brought; None if there is no such."""
    costs = chunk_costs_s(listener)
    if len(costs) <= late:
        return None
    per_second = [cost / len(samples) for cost, (_, samples) in zip(costs, listener.arrivals, strict=True)]
    return round(per_second[late] / per_second[early], 2)


def most_streams(
    engine: Engine, voices: Sequence[VoicePrompt], seconds: float, limit: int, tell: Callable[[int, int | None], None]
) -> int:
    """The most streams, begun at once, of which none runs dry; 0 when a single one does. By bisection up to `limit`.

    tell: the streams of each trial and their underruns, None where the engine refused so many.
    """

    def holds(streams: int) -> bool:
        try:
            listeners, _ = serve_all(engine, voices, seconds, [0.0] * streams)
        except Overloaded:
            tell(streams, None)
            return False
        underruns = sum(listener.underruns() for listener in listeners)
        tell(streams, underruns)
        return underruns == 0

    low, high = 0, 1
    while high < limit and holds(high):
        low, high = high, min(2 * high, limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
