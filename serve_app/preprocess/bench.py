"""What preparing costs: `python -m serve_app.preprocess.bench [CHECKPOINT] [--size toy|real] [--batch]`. Ends in JSON.

Milliseconds of one core (process time), the median of several runs after a warm-up; of a clip's steps also their share.
"""

import argparse
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
import soundfile

from serve_app.config import PreprocessConfig
from serve_app.messages import Float32Array, ReferenceClip, SpeechRequest
from serve_app.preprocess.denoise import denoised
from serve_app.preprocess.features import kaldi_fbank, prompt_mel, whisper_mel
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.reference_audio import Clip, decode
from serve_app.preprocess.speakable import speakable
from serve_app.preprocess.tokenizer import Tokenizer
from serve_app.preprocess.toy_frontend import write_frontend
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_prompt import SPEAKER_ENCODER, SPEECH_TOKENIZER, VoicePromptBuilder
from serve_app.preprocess.voices import DEFAULT_VOICE, ClipVoice, Voices

_SENTENCE = "Dr. Smith paid $3.50 for 12 apples on May 3, and they were not very good."
_CHINESE = "今天下午3:45，张先生花了99.9元买了12个苹果，味道还不错。"
_RATE_HZ = 24_000


def milliseconds(work: Callable[[], object], times: int = 9) -> float:
    """Median process time of `work`, which has run once before."""
    work()
    return round(median(spent_ms(work) for _ in range(times)), 3)


def spent_ms(work: Callable[[], object]) -> float:
    """Process time of one run."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def _five_seconds(voices: Voices) -> Float32Array:
    """Speech of the default voice with some noise under it, float32 [120000]."""
    voice = voices.find(DEFAULT_VOICE)
    assert isinstance(voice, ClipVoice)
    speech = decode(voice.audio).resampled(_RATE_HZ).samples
    noise = np.random.default_rng(0).standard_normal(5 * _RATE_HZ) * 0.01
    return np.asarray(np.resize(speech, 5 * _RATE_HZ) * 0.7 + noise, dtype=np.float32)


def of_requests(preprocessor: Preprocessor, tokenizer: Tokenizer) -> dict[str, float]:
    """A request with a cached voice, against the work on its text alone; each the median of 101 runs in turn."""
    figures = {}
    for name, text in (("english", _SENTENCE), ("chinese", _CHINESE)):
        request = SpeechRequest("bench", text)
        whole: list[float] = []
        alone: list[float] = []
        for _ in range(101):
            whole.append(spent_ms(lambda request=request: preprocessor.prepare(request)))  # type: ignore[misc]
            alone.append(spent_ms(lambda text=text: speakable(text, True, tokenizer, 80)))  # type: ignore[misc]
        figures[f"request_{name}_ms"] = round(median(whole), 3)
        figures[f"its_text_{name}_ms"] = round(median(alone), 3)
        beyond = median(one - other for one, other in zip(whole, alone, strict=True))
        figures[f"beyond_text_{name}_ms"] = round(beyond, 3)
    return figures


def of_clip(preprocessor: Preprocessor, builder: VoicePromptBuilder, samples: Float32Array) -> dict[str, float]:
    """A new clip of 5 s from its bytes to its prompt, and each of the steps by itself."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, _RATE_HZ, format="FLAC")
    upload, clip = buffer.getvalue(), Clip(samples, _RATE_HZ)
    at_16_khz = clip.resampled(16_000).samples
    activity = VoiceActivity()
    seen: list[int] = []

    def new_clip() -> object:
        seen.append(0)
        reference = ReferenceClip(upload, f"{len(seen)} words", "on")  # another transcript is another prompt
        return preprocessor.prepare(SpeechRequest("bench", "Hello.", reference=reference))

    def known_clip() -> object:
        return preprocessor.prepare(SpeechRequest("bench", "Hello.", reference=ReferenceClip(upload, "1 words", "on")))

    steps: dict[str, Callable[[], object]] = {
        "decode_flac": lambda: decode(upload),
        "voice_activity": lambda: activity.probabilities(at_16_khz),
        "denoise": lambda: denoised(clip, samples[:_RATE_HZ]),
        "resample_16k": lambda: clip.resampled(16_000),
        "prompt_mel": lambda: prompt_mel(samples),
        "whisper_mel": lambda: whisper_mel(at_16_khz),
        "kaldi_fbank": lambda: kaldi_fbank(at_16_khz),
        "speech_tokenizer": lambda: builder.speech_ids(at_16_khz),
        "speaker_encoder": lambda: builder.speaker(at_16_khz),
    }
    figures = {"new_5s_clip_ms": milliseconds(new_clip), "known_5s_clip_ms": milliseconds(known_clip)}
    return figures | {f"{name}_ms": milliseconds(step) for name, step in steps.items()}


def of_batches(checkpoint: Path, samples: Float32Array, size: int = 4) -> dict[str, float]:
    """What a batch costs against as many calls, for the networks that can be batched when their inputs are renamed.

    The published speech tokenizer takes one clip at a time; and so does silero-vad's network, whose time is a sequence.
    """
    at_16_khz = Clip(samples, _RATE_HZ).resampled(16_000).samples
    mel, fbank = whisper_mel(at_16_khz)[None], kaldi_fbank(at_16_khz)[None]
    inputs = {SPEECH_TOKENIZER: (mel, np.asarray([mel.shape[2]], np.int32)), SPEAKER_ENCODER: (fbank,)}
    figures = {}
    for name, arrays in inputs.items():
        model = onnx.load(str(checkpoint / name))
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        one = dict(zip(names, arrays, strict=True))
        many = {**one, names[0]: np.repeat(arrays[0], size, axis=0)}

        def singles(session: "onnxruntime.InferenceSession" = session, one: object = one) -> None:
            for _ in range(size):
                session.run(None, one)

        def batch(session: "onnxruntime.InferenceSession" = session, many: object = many) -> None:
            session.run(None, many)

        figures[f"{name}_batch_of_{size}_to_{size}_calls"] = round(milliseconds(batch) / milliseconds(singles), 2)
    return figures


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description="What preparing a request costs.")
    parser.add_argument("checkpoint", type=Path, nargs="?", help="without it random networks of --size are measured")
    parser.add_argument("--size", choices=["toy", "real"], default="real")
    parser.add_argument("--voices", type=Path, default=Path("configs/voices"))
    parser.add_argument("--batch", action="store_true", help="measure batches of the networks, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            checkpoint = Path(scratch)
            write_frontend(checkpoint, arguments.size)
        config = PreprocessConfig(voices_dir=arguments.voices, voice_store=str(Path(scratch) / "voices"))
        preprocessor = Preprocessor(checkpoint, config)
        samples = _five_seconds(Voices(arguments.voices, checkpoint))
        requests = of_requests(preprocessor, Tokenizer.from_checkpoint(checkpoint))
        clip = of_clip(preprocessor, VoicePromptBuilder(checkpoint), samples)
        batches = of_batches(checkpoint, samples) if arguments.batch else {}
    for name, value in requests.items():
        print(f"{name:36} {value:9.3f}")
    for name, value in clip.items():
        print(f"{name:36} {value:9.3f} {value / clip['new_5s_clip_ms']:6.0%}")
    for name, value in batches.items():
        print(f"{name:36} {value:9.2f}")
    about = {"machine": platform.processor() or platform.machine(), "checkpoint": str(arguments.checkpoint or "random")}
    print(json.dumps({**about, **requests, **clip, **batches}))


if __name__ == "__main__":
    main()
