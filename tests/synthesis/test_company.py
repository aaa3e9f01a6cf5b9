"""A seeded request says the same alone and in company, token for token, whether its text is whole or fed."""

from dataclasses import dataclass, field

import numpy as np

from serve_app.config import SynthesisConfig
from serve_app.messages import PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.stream import SpeechStream
from tests.synthesis.conftest import NO_IDS, Spoken, make_utterance, make_voice

CONFIG = SynthesisConfig(max_streams=8, max_positions=1024)
TEXT = np.random.default_rng(9).integers(0, 256, 26).astype(np.int32)


def a_voice(number: int) -> VoicePrompt:
    """One of sixteen, all with the same transcript, their clips of different lengths."""
    return make_voice(number, num_tokens=20 + 7 * number)


@dataclass
class Company:
    """Streams of one engine; every third one is fed its text two tokens at a time."""

    engine: StreamingEngine
    streams: dict[int, SpeechStream] = field(default_factory=dict)
    spoken: dict[int, Spoken] = field(default_factory=dict)
    to_come: dict[int, list[int]] = field(default_factory=dict)

    def open(self, number: int) -> None:
        voice, fed = a_voice(number), number % 3 == 0
        utterance = make_utterance(voice, number, num_text_tokens=9)
        if fed:
            utterance = PreparedUtterance(NO_IDS, voice.transcript_ids, voice.speech_ids, 0, 0)
            self.to_come[number] = TEXT[number % 5 :].tolist()
        speech = PreparedSpeech("request", voice, (utterance,), seed=number, fed=fed)
        self.engine.open(number, speech, 0, Playback(float(number)))
        self.streams[number] = self.engine._streams[number]
        self.spoken[number] = Spoken()

    def run(self) -> None:
        random = np.random.default_rng(0)
        while self.to_come or self.engine.wait_s() is not None:
            for number, rest in list(self.to_come.items()):
                self.engine.feed(number, np.array(rest[:2], np.int32))
                del rest[:2]
                if not rest:
                    self.engine.end(number)
                    del self.to_come[number]
            for _ in range(int(random.integers(12))):
                for event in self.engine.step():
                    self.spoken[event.stream_id].events.append(event)
                    self.spoken[event.stream_id].chunks.append(event.samples)
        self.engine.check()


def test_sixteen_voices_at_once_say_token_for_token_what_each_says_alone(checkpoint: Checkpoint) -> None:
    alone = Company(StreamingEngine(checkpoint, CONFIG))
    for number in range(16):
        alone.open(number)
        alone.run()
    together = Company(StreamingEngine(checkpoint, CONFIG))
    for number in range(16):
        together.open(number)
    together.run()
    for number in range(16):
        assert len(alone.streams[number].tokens) >= 18
        assert together.streams[number].outputs == alone.streams[number].outputs, "fill tokens included"
        assert together.spoken[number].events[-1].finished
        np.testing.assert_allclose(together.spoken[number].samples, alone.spoken[number].samples, atol=1e-4)
    assert len({tuple(stream.tokens) for stream in alone.streams.values()}) == 16, "each of them says something else"
