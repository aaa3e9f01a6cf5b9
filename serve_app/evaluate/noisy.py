"""Do denoising and trimming help? `python -m serve_app.evaluate.noisy CHECKPOINT`. The last line is JSON.

Built-in voices' clips are spoiled, sent as references and spoken with, after each treatment; two judges compare with
the clean clip: Resemblyzer (likeness of the mended clip itself and of what is spoken) and whisper-base (word errors).
Needs the extra `evaluate`, as `cosyserve evaluate` does.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from serve_app.config import PreprocessConfig, SynthesisConfig
from serve_app.evaluate.likeness import SpeakerEncoder
from serve_app.evaluate.sentences import heldout_english
from serve_app.evaluate.transcriber import Clip as Heard
from serve_app.evaluate.transcriber import Transcriber, WordCount, count_errors
from serve_app.messages import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    Denoise,
    Float32Array,
    PreparedSpeech,
    SpeechRequest,
    VoicePrompt,
)
from serve_app.preprocess.intake import take_in
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.reference_audio import Clip, decode
from serve_app.preprocess.tokenizer import Tokenizer
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from serve_app.preprocess.voices import ClipVoice, Voices
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.warm_up import warm_up

Spoil = Callable[[Float32Array], Float32Array]
Treat = Callable[[Clip, str, VoiceActivity], Clip]


def with_noise(snr_db: float) -> Spoil:
    """Pink noise so far below the speech."""

    def spoil(speech: Float32Array) -> Float32Array:
        spectrum = np.fft.rfft(np.random.default_rng(7).standard_normal(len(speech)))
        frequency = np.maximum(np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE_HZ), 20.0)
        return mixed(speech, np.fft.irfft(spectrum / np.sqrt(frequency), len(speech)).astype(np.float32), snr_db)

    return spoil


def with_hum(speech: Float32Array) -> Float32Array:
    """Mains hum of 50 Hz and its harmonics, 5 dB below."""
    seconds = np.arange(len(speech)) / SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50 * h * seconds) / h for h in (1, 2, 3, 5))
    return mixed(speech, np.asarray(hum, np.float32), 5)


def with_reverb(speech: Float32Array) -> Float32Array:
    """A room whose echo falls by 60 dB in 0.7 s, as loud as the speech itself."""
    seconds = np.arange(round(0.7 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    room = np.random.default_rng(7).standard_normal(len(seconds)) * 10 ** (-3 * seconds / 0.7)
    size = len(speech) + len(room)
    echo = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(room, size), size)[: len(speech)]
    return mixed(speech, echo.astype(np.float32), 0)


def with_silence(speech: Float32Array) -> Float32Array:
    """Six seconds before and five after, with the hiss of an empty room."""
    gaps = np.zeros(6 * SAMPLE_RATE_HZ, np.float32), np.zeros(5 * SAMPLE_RATE_HZ, np.float32)
    whole = np.concatenate([gaps[0], speech, gaps[1]])
    return np.asarray(whole + 0.001 * np.random.default_rng(7).standard_normal(len(whole)), np.float32)


def mixed(speech: Float32Array, other: Float32Array, snr_db: float) -> Float32Array:
    """Speech, where it is loud, `snr_db` above the other sound; never beyond full scale."""
    loud = speech[np.abs(speech) > 0.02]
    gain = np.sqrt(np.square(loud).mean() / 10 ** (snr_db / 10) / np.square(other).mean())
    both = speech + gain * other
    return np.asarray(both / max(1.0, float(np.abs(both).max())), np.float32)


SPOILS: dict[str, Spoil] = {
    "clean": lambda speech: speech,
    **{f"noise {snr_db} dB": with_noise(snr_db) for snr_db in (0, 5, 10, 20)},
    "hum 5 dB": with_hum,
    "reverb": with_reverb,
    "silence": with_silence,
}


def taken_in(denoise: Denoise) -> Treat:
    """As a registration does."""
    return lambda clip, transcript, activity: take_in(clip, transcript, denoise, activity).clip


TREATMENTS: dict[str, Treat] = {
    "as sent": lambda clip, transcript, activity: clip,
    "trim": taken_in("off"),
    "trim, auto": taken_in("auto"),
    "trim, on": taken_in("on"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One spoiled clip after one treatment: likeness to the clean clip, of the clip and of the speech; word errors."""

    clip_likeness: float
    speech_likeness: float
    errors: WordCount


class Speaker:
    """Speaks with any clip as it is, past the intake that requests go through."""

    def __init__(self, checkpoint: Path, voices_dir: Path, scratch: Path) -> None:
        config = PreprocessConfig(voices_dir=voices_dir, voice_store=str(scratch))
        self._preprocessor = Preprocessor(checkpoint, config)
        self._tokenizer = Tokenizer.from_checkpoint(checkpoint)
        self._builder = VoicePromptBuilder(checkpoint)
        torch.set_num_threads(1)
        engine = load_engine(checkpoint, SynthesisConfig())
        warm_up(engine)
        self._thread = EngineThread(engine, 1)

    def stop(self) -> None:
        """Ends the engine's thread."""
        self._thread.stop()

    def prompt(self, clip: Clip, transcript: str, key: str) -> VoicePrompt:
        return self._builder.build(clip, self._tokenizer.encode(transcript), key)

    def speak(self, text: str, prompt: VoicePrompt, seed: int) -> Float32Array:
        """float32 [S], in zero-shot mode."""
        prepared = self._preprocessor.prepare(SpeechRequest("noisy", text, seed=seed))
        utterances = tuple(
            replace(utterance, prefix_ids=prompt.transcript_ids, speech_prefix_ids=prompt.speech_ids)
            for utterance in prepared.utterances
        )
        return asyncio.run(self._samples(replace(prepared, voice=prompt, utterances=utterances)))

    async def _samples(self, prepared: PreparedSpeech) -> Float32Array:
        stream = self._thread.speak(prepared)
        return np.concatenate([item.samples async for item in stream if isinstance(item, AudioChunk)])


def compare(
    speaker: Speaker, clips: dict[str, tuple[Clip, str]], sentences: list[str], conditions: list[str]
) -> Iterator[tuple[str, str, Result]]:
    """Condition, treatment and their mean over all voices and sentences, as they become known."""
    activity, encoder, transcriber = VoiceActivity(), SpeakerEncoder(), Transcriber()
    for condition in conditions:
        known: dict[bytes, Result] = {}
        for treatment, treat in TREATMENTS.items():
            mended_clips = {
                name: treat(Clip(SPOILS[condition](clean.samples), clean.sample_rate_hz), transcript, activity)
                for name, (clean, transcript) in clips.items()
            }
            content = b"".join(clip.samples.tobytes() for clip in mended_clips.values())
            if content in known:  # "auto" decided as "on" or "off" does
                yield condition, treatment, known[content]
                continue
            of_clips, of_speech, heard = [], [], list[Heard]()
            for name, (clean, transcript) in clips.items():
                mended = mended_clips[name]
                target = encoder.embed(clean.samples, clean.sample_rate_hz)
                of_clips.append(float(target @ encoder.embed(mended.samples, mended.sample_rate_hz)))
                prompt = speaker.prompt(mended, transcript, f"{name} {condition} {treatment}")
                spoken = [speaker.speak(text, prompt, seed) for seed, text in enumerate(sentences)]
                of_speech.append(float(target @ encoder.embed(np.concatenate(spoken), SAMPLE_RATE_HZ)))
                heard += zip(sentences, spoken, strict=True)
            errors = count_errors(heard, transcriber.hear, lambda wanted, found: None)
            known[content] = Result(float(np.mean(of_clips)), float(np.mean(of_speech)), errors)
            yield condition, treatment, known[content]


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description="Do denoising and trimming of a reference clip help?")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--voices-dir", type=Path, default=Path("configs/voices"))
    parser.add_argument("--voices", default="clara,martin,nora")
    parser.add_argument("--sentences", type=int, default=6, help="each voice reads them, after each treatment")
    parser.add_argument("--conditions", default=",".join(SPOILS), help="of: " + ", ".join(SPOILS))
    arguments = parser.parse_args()
    conditions = arguments.conditions.split(",")
    if unknown := set(conditions) - set(SPOILS):
        parser.error(f"no such condition: {', '.join(sorted(unknown))}")
    voices = Voices(arguments.voices_dir, arguments.checkpoint)
    clips = {}
    for name in arguments.voices.split(","):
        voice = voices.find(name)
        assert isinstance(voice, ClipVoice), f"{name} has no clip"
        clips[name] = (decode(voice.audio).resampled(SAMPLE_RATE_HZ), voice.transcript)
    sentences = [sentence.text for sentence in heldout_english(arguments.sentences)]
    rows = []
    print(f"{'':12} {'treatment':12} {'clip':>7} {'speech':>7} {'WER':>7}   (likeness to the clean clip; word errors)")
    with tempfile.TemporaryDirectory() as scratch:
        speaker = Speaker(arguments.checkpoint, arguments.voices_dir, Path(scratch))
        try:
            for condition, treatment, result in compare(speaker, clips, sentences, conditions):
                wer = result.errors.rate or 0.0
                figures = (round(result.clip_likeness, 3), round(result.speech_likeness, 3), round(wer, 3))
                print(f"{condition:12} {treatment:12} " + " ".join(f"{figure:7.3f}" for figure in figures), flush=True)
                rows.append({"condition": condition, "treatment": treatment, "clip": figures[0]})
                rows[-1] |= {"speech": figures[1], "wer": figures[2], "words": result.errors.total}
        finally:
            speaker.stop()
    print(json.dumps({"checkpoint": arguments.checkpoint.name, "voices": list(clips), "rows": rows}))


if __name__ == "__main__":
    main()
