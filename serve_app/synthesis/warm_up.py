"""First calls are slow (allocators, kernels chosen by shape), so a replica makes them before it says it is ready."""

import time

import numpy as np

from serve_app.messages import PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine

_NUM_PROMPT_TOKENS = 40
_NUM_TEXT_TOKENS = 4


def warm_up(engine: Engine) -> float:
    """Speaks a short utterance of a made-up voice through every stage. Raises what the engine reports.

    Returns the seconds of a decoding step: the fastest of all, so that neither slow first calls nor what else runs on
    this machine counts.
    """
    durations_s: list[float] = []
    ids = np.arange(_NUM_PROMPT_TOKENS, dtype=np.int32)
    none = np.zeros(0, dtype=np.int32)
    voice = VoicePrompt(
        key="warm-up",
        transcript_ids=none,
        speech_ids=ids,
        mel=np.full((2 * _NUM_PROMPT_TOKENS, 80), -6.0, dtype=np.float32),
        speaker=np.ones(192, dtype=np.float32),
    )
    utterance = PreparedUtterance(
        text_ids=np.arange(_NUM_TEXT_TOKENS, dtype=np.int32),
        prefix_ids=none,
        speech_prefix_ids=ids,
        text_start=0,
        text_end=_NUM_TEXT_TOKENS,
    )
    engine.open(-1, PreparedSpeech("warm-up", voice, (utterance,), seed=0), 0, Playback(time.monotonic()))
    try:
        while (wait_s := engine.wait_s()) is not None:
            began_at_s = time.monotonic()
            events = engine.step()
            if wait_s == 0:  # else there was nothing to do yet
                durations_s.append(time.monotonic() - began_at_s)
            for event in events:
                if event.error is not None:
                    raise event.error
    finally:
        engine.close(-1)
    return min(durations_s)
