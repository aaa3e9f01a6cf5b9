"""What preparing costs: `python -m serve_app.preprocess.bench CHECKPOINT [--voices DIR]`. The last line is JSON.

Milliseconds of one core (process time), the median of several runs after a warm-up.
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from serve_app.config import PreprocessConfig
from serve_app.messages import Float32Array, ReferenceClip, SpeechRequest
from serve_app.preprocess.denoise import denoised
from serve_app.preprocess.features import kaldi_fbank, prompt_mel, whisper_mel
from serve_app.preprocess.intake import take_in
from serve_app.preprocess.normalize import clean, normalize
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.reference_audio import Clip, decode
from serve_app.preprocess.split import split
from serve_app.preprocess.tokenizer import Tokenizer
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from serve_app.preprocess.voices import DEFAULT_VOICE, ClipVoice, Voices

_SENTENCE = "Dr. Smith paid $3.50 for 12 apples on May 3, and they were not very good."
_CHINESE = "今天下午3:45，张先生花了99.9元买了12个苹果，味道还不错。"
_RATE_HZ = 24_000


def milliseconds(work: Callable[[], object], times: int = 9) -> float:
    """Median process time of `work`, which has run once before."""
    work()
    spent = []
    for _ in range(times):
        started = time.process_time()
        work()
        spent.append(1000 * (time.process_time() - started))
    return round(median(spent), 3)


def _five_seconds(voices: Voices) -> Float32Array:
    """Speech of the default voice with some noise under it, float32 [120000]."""
    voice = voices.find(DEFAULT_VOICE)
    assert isinstance(voice, ClipVoice)
    speech = decode(voice.audio).resampled(_RATE_HZ).samples
    noise = np.random.default_rng(0).standard_normal(5 * _RATE_HZ) * 0.01
    return np.asarray(np.resize(speech, 5 * _RATE_HZ) * 0.7 + noise, dtype=np.float32)


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description="What preparing a request costs.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--voices", type=Path, default=Path("configs/voices"))
    arguments = parser.parse_args()
    preprocessor = Preprocessor(arguments.checkpoint, PreprocessConfig(voices_dir=arguments.voices))
    tokenizer = Tokenizer.from_checkpoint(arguments.checkpoint)
    builder = VoicePromptBuilder(arguments.checkpoint)
    activity = VoiceActivity()
    samples = _five_seconds(Voices(arguments.voices, arguments.checkpoint))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _RATE_HZ, format="FLAC")
    upload, clip = buffer.getvalue(), Clip(samples, _RATE_HZ)
    at_16_khz = clip.resampled(16_000).samples

    def text_work(text: str) -> object:
        pieces = split(normalize(clean(text)), tokenizer.spans, 80)
        return [tokenizer.encode(piece.text) for piece in pieces]

    def request(text: str) -> object:
        return preprocessor.prepare(SpeechRequest("bench", text))

    def upload_once(seen: list[int]) -> object:
        seen.append(0)
        reference = ReferenceClip(upload, f"{len(seen)} words")  # another transcript is another prompt
        return preprocessor.prepare(SpeechRequest("bench", "Hello.", reference=reference))

    counter: list[int] = []
    figures = {
        "request_cached_voice_ms": milliseconds(lambda: request(_SENTENCE), 51),
        "its_text_ms": milliseconds(lambda: text_work(_SENTENCE), 51),
        "chinese_text_ms": milliseconds(lambda: text_work(_CHINESE), 51),
        "new_5s_clip_ms": milliseconds(lambda: upload_once(counter)),
        "decode_flac_ms": milliseconds(lambda: decode(upload)),
        "resample_16k_ms": milliseconds(lambda: clip.resampled(16_000)),
        "voice_activity_ms": milliseconds(lambda: activity.probabilities(at_16_khz)),
        "denoise_ms": milliseconds(lambda: denoised(clip, samples[:_RATE_HZ])),
        "intake_without_denoise_ms": milliseconds(lambda: take_in(clip, "", "off", activity)),
        "prompt_mel_ms": milliseconds(lambda: prompt_mel(samples)),
        "whisper_mel_ms": milliseconds(lambda: whisper_mel(at_16_khz)),
        "kaldi_fbank_ms": milliseconds(lambda: kaldi_fbank(at_16_khz)),
        "speech_tokenizer_ms": milliseconds(lambda: builder.speech_ids(at_16_khz)),
        "speaker_encoder_ms": milliseconds(lambda: builder.speaker(at_16_khz)),
    }
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    print(json.dumps({"machine": platform.processor() or platform.machine(), **figures}))


if __name__ == "__main__":
    main()
