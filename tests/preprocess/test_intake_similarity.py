"""With the demo checkpoint: is the voice of a mended noisy clip nearer to the clean one's? Run with -s for a table."""

from pathlib import Path

import numpy as np
import pytest

from serve_app.messages import Float32Array
from serve_app.preprocess.intake import take_in
from serve_app.preprocess.reference_audio import Clip
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from tests.preprocess.spoiled import RATE, mixed, music, noise, voice

DEMO = Path(__file__).resolve().parents[2] / "pretrained_models" / "cosyvoice2-demo"
KINDS = ("white", "pink", "brown", "music")
NAMES = ("clara", "helen", "martin", "nora", "victor")


def cosine(one: Float32Array, other: Float32Array) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


@pytest.mark.skipif(not (DEMO / "campplus.onnx").is_file(), reason="the demo checkpoint is not here")
def test_denoise_and_trim_bring_the_speaker_nearer() -> None:
    builder, activity = VoicePromptBuilder(DEMO), VoiceActivity()

    def speaker(clip: Clip) -> Float32Array:
        return builder.speaker(clip.resampled(16_000).samples)

    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for name in NAMES:
        speech, transcript = voice(name)
        clean = speaker(Clip(speech, RATE))
        for kind in KINDS:
            for snr_db in (0, 10):
                other = music(len(speech)) if kind == "music" else noise(kind, len(speech), seed=7)
                noisy = Clip(mixed(speech, other, snr_db), RATE)
                trimmed, mended = (take_in(noisy, transcript, choice, activity).clip for choice in ("off", "auto"))
                found = tuple(cosine(clean, speaker(clip)) for clip in (noisy, trimmed, mended))
                rows.setdefault((kind, snr_db), []).append((found[0], found[1], found[2]))
    print("\nnoise    SNR    as sent    trimmed    trimmed and denoised   (cosine to the clean clip's speaker vector)")
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    for (kind, snr_db), (sent, trimmed_only, both) in means.items():
        print(f"{kind:8} {snr_db:3}    {sent:7.3f}    {trimmed_only:7.3f}    {both:7.3f}")
    sent_all, _, both_all = np.mean(list(means.values()), axis=0)
    assert both_all > sent_all + 0.02
    assert sum(both > sent for sent, _, both in means.values()) >= len(means) - 1
