"""Settings that change while the engine speaks: nothing that is open is lost, nothing that is not given changes."""

import math
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from serve_app.config import SynthesisConfig
from serve_app.errors import Overloaded
from serve_app.synthesis.engine import StreamingEngine
from tests.synthesis.conftest import Spoken, make_utterance, make_voice, open_stream, run

SETTINGS = SynthesisConfig(max_lead_s=30, max_load=0.9, max_streams=3)


def test_what_is_not_given_is_as_in_the_arguments() -> None:
    live = SETTINGS.with_live({"max_load": None})
    assert (live.max_load, live.max_lead_s, live.max_streams) == (None, 30, 3)
    assert SETTINGS.with_live({}) == SETTINGS


@pytest.mark.parametrize("user_config", [{"max_laod": 1}, {"max_streams": 4}, {"max_lead_s": 0}])
def test_what_cannot_change_is_refused(user_config: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SETTINGS.with_live(user_config)


def test_a_stream_in_the_middle_gives_what_it_would_have(engine: StreamingEngine) -> None:
    voice = make_voice(1, num_tokens=45)
    utterance = make_utterance(voice, 1, num_text_tokens=30)
    open_stream(engine, 0, voice, utterance, 1)
    undisturbed = run(engine)[0]

    open_stream(engine, 0, voice, utterance, 1)
    first = run(engine, until=once(3))[0]
    engine.adjust(SynthesisConfig(max_load=1e-9))
    with pytest.raises(Overloaded):
        open_stream(engine, 1, voice, utterance, 1)
    rest = run(engine)[0]
    both = Spoken(first.chunks + rest.chunks, first.events + rest.events)
    assert (both.samples == undisturbed.samples).all()
    engine.check()


def once(num_steps: int) -> Callable[[], bool]:
    """True after so many questions."""
    left = iter(range(num_steps))
    return lambda: next(left, None) is None


def test_a_lead_that_is_shortened_pauses_the_stream(engine: StreamingEngine) -> None:
    voice = make_voice(1, num_tokens=45)
    open_stream(engine, 0, voice, make_utterance(voice, 1, num_text_tokens=30), 1)
    engine.adjust(SynthesisConfig(max_lead_s=0.01))
    run(engine, until=lambda: engine.wait_s() != 0)
    pause_s = engine.wait_s()
    assert pause_s is not None and 0 < pause_s < math.inf
    engine.adjust(SynthesisConfig())
    assert engine.wait_s() == 0
    run(engine)
    engine.check()
