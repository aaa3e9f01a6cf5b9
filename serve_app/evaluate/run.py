"""One evaluation from the first sentence to the figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.evaluate.likeness import SpeakerEncoder, closest, others_of
from serve_app.evaluate.product import Product
from serve_app.evaluate.report import Report
from serve_app.evaluate.sentences import Sentence
from serve_app.evaluate.speakers import Speaker
from serve_app.evaluate.transcriber import Clip, Hear, count_errors
from serve_app.messages import SAMPLE_RATE_HZ, SpeechRequest
from serve_app.preprocess.reference_audio import decode

NUM_OTHERS = 5
SENTENCES_A_SPEAKER = 2


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who wants to know how it goes. on_spoken: after each sentence. on_heard: what was to be heard, and what was."""

    on_spoken: Callable[[str], None]
    on_heard: Callable[[str, str], None]


def read_out(
    product: Product, voices: Sequence[str], sentences: Sequence[Sentence], hear: Hear, watcher: Watcher
) -> Report:
    """Every voice reads every sentence; the judge listens to each voice once it has read all."""
    report = Report()
    for voice in voices:
        product.warm(SpeechRequest("evaluate", "", voice))
        clips: list[Clip] = []
        for seed, sentence in enumerate(sentences):
            spoken = product.speak(SpeechRequest("evaluate", sentence.text, voice, seed=seed))
            report.add(sentence, spoken)
            clips.append((sentence.text, spoken.samples))
            watcher.on_spoken(voice)
        report.word_counts[voice] = count_errors(clips, hear, watcher.on_heard)
    return report


def imitate(
    product: Product, speakers: Sequence[Speaker], sentences: Sequence[Sentence], watcher: Watcher
) -> list[tuple[bool, bool]]:
    """For each speaker: whether what is spoken after its clip is closer to that clip than to those of 5 others; of all.

    Raises InvalidAudio for a clip that cannot be used, CheckpointError with fewer than two speakers.
    """
    encoder = SpeakerEncoder()
    clips = [decode(speaker.reference.audio) for speaker in speakers]
    references = np.stack([encoder.embed(clip.samples, clip.sample_rate_hz) for clip in clips])
    found = []
    for own, speaker in enumerate(speakers):
        start = own * SENTENCES_A_SPEAKER
        chosen = [sentences[(start + k) % len(sentences)] for k in range(SENTENCES_A_SPEAKER)]
        requests = [
            SpeechRequest("evaluate", sentence.text, reference=speaker.reference, seed=start + k)
            for k, sentence in enumerate(chosen)
        ]
        spoken = np.concatenate([product.speak(request).samples for request in requests])
        output = encoder.embed(spoken, SAMPLE_RATE_HZ)
        everybody = others_of(own, len(speakers), len(speakers))
        few = others_of(own, len(speakers), NUM_OTHERS)
        found.append((closest(output, references, own, few), closest(output, references, own, everybody)))
        watcher.on_spoken(speaker.name)
    return found
