"""What a listener hears, from when samples came: against arithmetic by hand."""

import numpy as np
import pytest

from serve_app.listener import Listener
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array


def sound(seconds: float, level: float = 0.1) -> Float32Array:
    return np.full(round(seconds * SAMPLE_RATE_HZ), level, np.float32)


def hear(listener: Listener, samples: Float32Array, waited_from_s: float, now_s: float) -> bool:
    listener.wait(waited_from_s)
    return listener.hear(samples, now_s)


def test_the_first_sound_and_the_first_that_can_be_heard() -> None:
    listener = Listener(asked_at_s=10.0)
    assert not hear(listener, sound(0), 10.0, 10.1)
    assert listener.ttfa_s is None and listener.rtf is None
    # 10.2 s: half a second of silence, and 15 ms of a word: too short for a whole window
    assert not hear(listener, np.concatenate((sound(0.5, 0.0), sound(0.015))), 10.1, 10.2)
    assert listener.ttfa_s == pytest.approx(0.2) and listener.audible_ttfa_s is None
    # the rest of that window comes early, and is heard where its first sample is: after the silence
    assert not hear(listener, sound(1), 10.2, 10.3)
    assert listener.audible_ttfa_s == pytest.approx(0.7)
    assert listener.rtf == pytest.approx(0.3 / 1.515)


def test_gaps_are_counted_once_each_and_move_what_follows() -> None:
    listener = Listener(asked_at_s=0.0)
    hear(listener, sound(1), 0.0, 0.5)  # plays until 1.5
    assert hear(listener, sound(1), 0.5, 2.0)  # 0.5 s of silence; plays until 3.0
    assert not hear(listener, sound(1), 2.0, 2.9)  # until 4.0: in time, though late for who never stalled
    assert hear(listener, sound(1), 2.9, 4.25)
    assert listener.num_underruns == 2 and listener.stall_s == pytest.approx(0.75)


def test_a_client_that_reads_slowly_makes_its_own_gaps() -> None:
    listener = Listener(asked_at_s=0.0)
    hear(listener, sound(1), 0.0, 0.0)  # plays until 1.0
    assert not hear(listener, sound(1), 7.0, 7.0)  # nobody asked for it before 7.0
    assert hear(listener, sound(1), 8.0, 9.0)  # this one was waited for
    assert listener.stall_s == pytest.approx(1.0)


def test_silence_is_never_audible() -> None:
    listener = Listener(asked_at_s=0.0)
    hear(listener, sound(3, 10 ** (-45.1 / 20)), 0.0, 1.0)
    assert listener.audible_ttfa_s is None
    hear(listener, sound(1, 10 ** (-44.9 / 20)), 1.0, 1.0)
    assert listener.audible_ttfa_s == pytest.approx(4.0)
