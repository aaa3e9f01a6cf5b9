"""Word errors, and how clips are packed for the listener."""

import numpy as np

from serve_app.evaluate.sentences import heldout_english
from serve_app.evaluate.transcriber import GAP_S, WINDOW_S, WordCount, count_errors, packed
from serve_app.evaluate.words import words
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array


def clip(seconds: float, level: float = 0.1) -> Float32Array:
    return np.full(int(seconds * SAMPLE_RATE_HZ), level, np.float32)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words("Don't stop, two-fold’s OK!") == ["dont", "stop", "two", "folds", "ok"]
    assert words(" …") == []


def test_windows_hold_whole_clips_and_are_never_too_long() -> None:
    clips = [(str(n), clip(seconds)) for n, seconds in enumerate([10, 10, 10, 31, 1, 1, 20])]
    windows = [[text for text, _ in window] for window in packed(clips)]
    assert windows == [["0", "1"], ["2"], ["3"], ["4", "5", "6"]]
    lengths = [sum(len(s) / SAMPLE_RATE_HZ + GAP_S for _, s in window) + GAP_S for window in packed(clips)]
    assert [length <= WINDOW_S for length in lengths] == [True, True, False, True]
    assert list(packed([])) == []


def test_no_window_holds_a_text_twice() -> None:
    """Three voices that read the same sentences: whisper hears the second reading as a loop and falls silent."""
    texts = ["One.", "Two!", "one", "Two!", "Three.", "One."]
    windows = [[text for text, _ in window] for window in packed([(text, clip(1)) for text in texts])]
    assert windows == [["One.", "Two!"], ["one", "Two!", "Three."], ["One."]]


def test_errors_are_counted_over_all_windows() -> None:
    heard = iter(["one two three", "nothing at all"])
    seen: list[tuple[str, str]] = []

    def hear(samples: Float32Array) -> str:
        assert len(samples) <= 30 * 16_000 and np.abs(samples).max() <= 0.75
        return next(heard)

    clips = [("One,", clip(12)), ("two!", clip(12, 0.9)), ("Three four.", clip(20))]
    count = count_errors(clips, hear, lambda *pair: seen.append(pair))
    assert count == WordCount(wrong=1 + 3, total=4)
    assert seen == [("One, two!", "one two three"), ("Three four.", "nothing at all")]
    assert count.rate == 1.0 and WordCount().rate is None


def test_held_out_sentences_are_many_and_different() -> None:
    sentences = heldout_english(300)
    assert len(sentences) == len({s.text for s in sentences}) == 300
    assert heldout_english(2) == sentences[:2]
    assert all(0.4 < s.expected_s < 20 and len(words(s.text)) >= 2 for s in sentences)
