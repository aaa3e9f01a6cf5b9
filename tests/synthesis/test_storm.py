"""Two thousand random opens, feeds, ends and closes: slots balance, and a closed stream is never worked on again."""

import numpy as np

from serve_app.config import SynthesisConfig
from serve_app.errors import Overloaded
from serve_app.messages import Int32Array, PreparedSpeech, PreparedUtterance
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.stream import SpeechStream
from tests.synthesis.conftest import make_voice, run
from tests.synthesis.late_copies import LateCopies

NUM_ACTIONS = 2000


def test_a_storm_leaves_nothing_behind_and_nothing_is_said_for_who_left(checkpoint: Checkpoint) -> None:
    """Half of the renders end at once, as on a CPU, the others some steps later."""
    random, lateness = np.random.default_rng(0), np.random.default_rng(1)
    copies = LateCopies(lambda: max(0, int(lateness.integers(-20, 20))))
    config = SynthesisConfig(max_streams=3, max_positions=256, prefill_chunk=16, render_batch=2)
    engine = StreamingEngine(checkpoint, config, copy_samples=copies)
    voices = [make_voice(seed, num_tokens=10 + 13 * seed) for seed in range(3)]
    left: list[tuple[SpeechStream, int]] = []
    counts = dict.fromkeys(("open", "refused", "feed", "end", "close", "finished", "step"), 0)

    def text() -> Int32Array:
        return random.integers(0, 256, int(random.integers(1, 9))).astype(np.int32)

    def open_one(stream_id: int) -> None:
        voice = voices[int(random.integers(3))]
        utterance = PreparedUtterance(text()[:3], voice.transcript_ids, voice.speech_ids, 0, 0)
        speech = PreparedSpeech("storm", voice, (utterance,), stream_id, fed=bool(random.random() < 0.5))
        try:
            engine.open(stream_id, speech, 0, Playback(0.0))
            counts["open"] += 1
        except Overloaded:
            counts["refused"] += 1

    def leave(stream_id: int) -> None:
        stream = engine._streams.get(stream_id)
        engine.close(stream_id)
        if stream is not None:
            left.append((stream, len(stream.outputs)))
            counts["close"] += 1

    for number in range(NUM_ACTIONS):
        action = random.random()
        known = int(random.integers(number + 1))  # most of them are finished, closed or were never opened
        if engine._streams and random.random() < 0.7:
            known = int(random.choice(list(engine._streams)))
        if action < 0.2:
            open_one(number)
        elif action < 0.35:
            engine.feed(known, text())
            counts["feed"] += 1
        elif action < 0.4:
            engine.end(known)
            counts["end"] += 1
        elif action < 0.5:
            leave(known)
        else:
            for event in engine.step():
                assert all(event.stream_id != stream.stream_id for stream, _ in left)
                counts["finished"] += event.finished
            counts["step"] += 1
        engine.check()
    assert all(len(stream.outputs) == num_outputs for stream, num_outputs in left)
    assert min(counts.values()) > 0, counts
    for stream_id in list(engine._streams):
        engine.end(stream_id)
    assert all(spoken.events[-1].finished for spoken in run(engine).values())
    assert engine.wait_s() is None and engine._language.num_free_slots == 6
    assert all(stream.slot is None for stream, _ in left)
    engine.check()
