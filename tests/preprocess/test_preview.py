"""A clip as a voice would be made of it, to be heard before it is kept."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serve_app.config import PreprocessConfig
from serve_app.errors import AudioTooShort
from serve_app.messages import SAMPLE_RATE_HZ, ClipPreview, Denoise, Float32Array, ReferenceClip
from serve_app.preprocess.features import prompt_mel
from serve_app.preprocess.intake import inspect
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.transcript import one_line
from tests.preprocess.sounds import encoded
from tests.preprocess.spoiled import RATE, mixed, noise, power, voice

SILENCE = np.zeros(2 * RATE, np.float32)


@pytest.fixture(scope="module")
def preprocessor(frontend: Path, tmp_path_factory: pytest.TempPathFactory) -> Preprocessor:
    folder = tmp_path_factory.mktemp("preview")
    return Preprocessor(frontend, PreprocessConfig(voices_dir=folder, voice_store=str(folder / "voices")))


def noisy_clip() -> bytes:
    """Speech 12 dB above white noise, two seconds of it alone around the speech, as a 48 kHz stereo file."""
    samples, _ = voice("clara")
    spoken = np.concatenate([SILENCE, samples, SILENCE])
    sound = mixed(spoken, noise("white", len(spoken)), 12)
    return encoded(np.stack([sound] * 2, axis=1), RATE)


def heard(preview: ClipPreview) -> Float32Array:
    """float32 [S], decoded."""
    samples, rate_hz = soundfile.read(io.BytesIO(preview.audio), dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ and samples.ndim == 1
    return np.asarray(samples)


@pytest.mark.parametrize("denoise", ["on", "off", "auto"])
def test_what_is_heard_is_what_the_voice_is_made_of(preprocessor: Preprocessor, denoise: Denoise) -> None:
    reference = ReferenceClip(noisy_clip(), "", denoise)
    preview = preprocessor.preview(reference)
    prompt, quality = preprocessor.make_voice(reference)
    assert preview.quality == quality
    samples = heard(preview)
    assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(quality.used_s, abs=0.01) and quality.used_s < 6
    mel = prompt_mel(samples)[: len(prompt.mel)]
    audible = prompt.mel > prompt.mel.max() - 7
    assert float(np.abs(mel - prompt.mel)[audible].max()) < 0.1


@pytest.mark.parametrize("transcript", ["", " Half\r\n\n  past\u200b <|en|> seven,\tor 7:30. "])
def test_without_a_service_the_report_is_the_same(preprocessor: Preprocessor, transcript: str) -> None:
    """What `cosyserve voices check` says, and what a registration says."""
    assert inspect(noisy_clip(), transcript, "auto") == preprocessor.check(ReferenceClip(noisy_clip(), transcript))
    assert one_line(one_line(transcript)) == one_line(transcript) == ("Half past seven, or 7:30." if transcript else "")


def test_both_ways_are_as_long_and_one_has_less_noise(preprocessor: Preprocessor) -> None:
    off, on = (preprocessor.preview(ReferenceClip(noisy_clip(), "", choice)) for choice in ("off", "on"))
    assert (off.quality.denoised, on.quality.denoised) == (False, True)
    assert off.quality.warnings and off.quality.snr_db == on.quality.snr_db
    noisy, clean = heard(off), heard(on)
    assert len(noisy) == len(clean), "so that one can be heard from where the other was left"
    assert abs(10 * np.log10(power(noisy) / power(clean))) < 3
    pause = slice(0, round(0.1 * SAMPLE_RATE_HZ))
    assert np.square(clean[pause]).mean() < 0.5 * np.square(noisy[pause]).mean()


def test_a_preview_leaves_nothing_behind(preprocessor: Preprocessor) -> None:
    voices, lookups = preprocessor.voices(), preprocessor.prompt_lookups
    first, again = (preprocessor.preview(ReferenceClip(noisy_clip(), "words")) for _ in range(2))
    assert first == again
    assert (preprocessor.voices(), preprocessor.prompt_lookups) == (voices, lookups)


def test_a_clip_at_a_high_rate_gives_a_file_of_our_rate(preprocessor: Preprocessor) -> None:
    samples = np.repeat(voice("martin")[0], 8)
    preview = preprocessor.preview(ReferenceClip(encoded(samples, 8 * RATE), "", "off"))
    assert len(preview.audio) == 44 + 2 * len(heard(preview)) < 44 + 2 * SAMPLE_RATE_HZ * 5


def test_what_a_voice_cannot_be_made_of_is_refused(preprocessor: Preprocessor) -> None:
    with pytest.raises(AudioTooShort):
        preprocessor.preview(ReferenceClip(encoded(voice("clara")[0][: RATE // 4], RATE)))
