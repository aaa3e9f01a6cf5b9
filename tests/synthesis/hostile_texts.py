"""Texts that make speech models ramble or hang, spoken by the real preprocessor and engine: how long is each?

    python -m tests.synthesis.hostile_texts --checkpoint pretrained_models/cosyvoice2-demo
    python -m tests.synthesis.hostile_texts --checkpoint pretrained_models/cosyvoice2-demo --offset 100 --count 50

An utterance is expected to have EXPECTED speech tokens (40 ms each) for every text token; none may have more than three
times as many. A text that holds nothing to speak must be refused, a stream that got stuck must end with an error. A
line now and then says how far it is; the last line is JSON; the exit status is 1 when a text hung or rambled.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from serve_app.config import PreprocessConfig, SynthesisConfig
from serve_app.errors import GenerationFailed, InvalidRequest
from serve_app.messages import PreparedSpeech, SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.synthesis.engine import StreamingEngine, load_engine
from serve_app.synthesis.scheduler import Playback

EXPECTED = 7
"""Speech tokens for a text token, 0.28 s: English at 160 words a minute is 3.5 of Qwen2's tokens a second."""
FACTOR = 3
WORDS = ("no", "la", "buffalo", "very", "ha", "tick", "one", "mississippi", "啊", "哈哈", "はい", "да", "नहीं", "لا")
SIGNS = ".,!?;:-–—…'\"()[]{}<>/\\|@#$%^&*_+=~`。，！？、«»¿¡"
SCRIPTS = (
    "hello there ",
    "你好世界",
    "こんにちは",
    "안녕하세요 ",
    "привет ",
    "مرحبا ",
    "שלום ",
    "नमस्ते ",
    "สวัสดี",
    "γεια ",
    "😀",
    "ﷺ",
    "Z̷͑a̶l̴g̵o̸ ",
)


def hostile_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Repeats, signs without words, single letters, up to 4,000 letters without a break, and mixed scripts, in turn."""
    chosen = random.Random(seed)
    for number in range(count):
        match number % 8:
            case 0:
                yield " ".join([chosen.choice(WORDS)] * chosen.choice((3, 10, 40, 100)))
            case 1:
                yield "".join(chosen.choices(SIGNS, k=chosen.choice((1, 3, 30, 300))))
            case 2:
                yield chosen.choice("aAzZ0é我のЖ")
            case 3:
                yield "".join(
                    chosen.choices(
                        "abcdefghijklmnopqrstuvwxyz", k=4000 if number % 64 == 3 else chosen.choice((20, 50, 400))
                    )
                )
            case 4:
                yield "".join(chosen.choices(SCRIPTS, k=chosen.choice((2, 8, 30))))
            case 5:
                yield chosen.choice("aoеmхs啊") * chosen.choice((20, 200, 1000))
            case 6:
                yield "".join(chosen.choices("0123456789 .,$%/-:", k=chosen.choice((4, 20, 80))))
            case _:
                words = chosen.choices(WORDS, k=chosen.choice((5, 20)))
                yield chosen.choice(SIGNS).join(words) + chosen.choice(SIGNS) * chosen.choice((1, 10))


@dataclass
class Outcome:
    """What became of one text: lengths in tokens, and the longest of its utterances as a multiple of the expected."""

    num_text: int = 0
    num_speech: int = 0
    worst: float = 0.0
    refused: bool = False
    stuck: int = 0


@dataclass
class Speaking:
    """Texts on their way, each at one of its utterances."""

    engine: StreamingEngine
    outcomes: list[Outcome] = field(default_factory=list)
    current: dict[int, tuple[PreparedSpeech, int, int]] = field(default_factory=dict)

    def take(self, preprocessor: Preprocessor, text: str) -> None:
        self.outcomes.append(Outcome())
        try:
            speech = preprocessor.prepare(SpeechRequest("hostile", text, seed=len(self.outcomes)))
        except InvalidRequest:
            self.outcomes[-1].refused = True
            return
        self._open(len(self.outcomes) - 1, speech, 0)

    def _open(self, number: int, speech: PreparedSpeech, index: int) -> None:
        if index < len(speech.utterances):
            self.engine.open(number, speech, index, Playback(time.monotonic()))
            self.current[number] = speech, index, 0

    def step(self) -> None:
        for event in self.engine.step():
            speech, index, said = self.current.pop(event.stream_id)
            said += event.num_speech_tokens
            outcome = self.outcomes[event.stream_id]
            if not event.finished:
                self.current[event.stream_id] = speech, index, said
                continue
            if event.error is not None:
                assert isinstance(event.error, GenerationFailed), event.error
                outcome.stuck += 1
            num_text = len(speech.utterances[index].text_ids)
            outcome.num_text += num_text
            outcome.num_speech += said
            outcome.worst = max(outcome.worst, said / (EXPECTED * num_text))
            self._open(event.stream_id, speech, index + 1)


def speak(
    preprocessor: Preprocessor,
    engine: StreamingEngine,
    texts: Sequence[str],
    at_once: int,
    tell: Callable[[list[Outcome], int], None] = lambda outcomes, num_open: None,
) -> list[Outcome]:
    """Speaks every text to its end. Raises AssertionError when a step brings nothing on: a hang.

    tell: how far it is, each time a text has ended: what has become of all that were begun, and how many of them are on
        their way.
    """
    speaking, waiting = Speaking(engine), iter(texts)
    left, num_ended = len(texts), 0
    while left or speaking.current:
        if len(speaking.outcomes) - len(speaking.current) > num_ended:
            num_ended = len(speaking.outcomes) - len(speaking.current)
            tell(speaking.outcomes, len(speaking.current))
        while left and len(speaking.current) < at_once:
            speaking.take(preprocessor, next(waiting))
            left -= 1
        assert not speaking.current or engine.wait_s() == 0, "streams are open and nothing can be done"
        speaking.step()
    engine.check()
    return speaking.outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=500, help="made up in all")
    parser.add_argument("--offset", type=int, default=0, help="leave out so many of them")
    parser.add_argument("--count", type=int, help="speak so many (default: all that follow)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    started_s = time.monotonic()
    end = None if options.count is None else options.offset + options.count
    texts = list(hostile_texts(options.texts))[options.offset : end]

    def tell(outcomes: list[Outcome], num_open: int) -> None:
        num_ended = len(outcomes) - num_open
        if num_ended % 10 == 0:
            spoken_s = sum(outcome.num_speech for outcome in outcomes) * 0.04
            elapsed_s = time.monotonic() - started_s
            print(f"{num_ended} of {len(texts)} texts, {spoken_s:.0f} s of speech in {elapsed_s:.0f} s", flush=True)

    preprocessor = Preprocessor(options.checkpoint, PreprocessConfig())
    engine = load_engine(options.checkpoint, SynthesisConfig(max_streams=16, threads=options.threads))
    outcomes = speak(preprocessor, engine, texts, 16, tell)
    for text, outcome in zip(texts, outcomes, strict=True):
        if outcome.worst > FACTOR:
            print(f"{outcome.worst:.1f} times the expected length: {text[:60]!r}")
    figures = {
        "texts": len(texts),
        "offset": options.offset,
        "refused": sum(outcome.refused for outcome in outcomes),
        "stuck_utterances": sum(outcome.stuck for outcome in outcomes),
        "text_tokens": sum(outcome.num_text for outcome in outcomes),
        "speech_s": round(sum(outcome.num_speech for outcome in outcomes) * 0.04, 1),
        "worst": round(max(outcome.worst for outcome in outcomes), 2),
        "wall_s": round(time.monotonic() - started_s, 1),
    }
    print(json.dumps(figures))
    return 1 if max(outcome.worst for outcome in outcomes) > FACTOR else 0


if __name__ == "__main__":
    sys.exit(main())
