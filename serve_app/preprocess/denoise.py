"""Stationary noise out of a reference clip, by noisereduce's spectral gate."""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from serve_app.messages import Float32Array
from serve_app.preprocess.reference_audio import Clip

PROP_DECREASE = 0.75
"""Share of the noise taken away. All of it leaves musical tones, which the voice would copy."""
_MIN_NOISE_S = 0.3


def denoised(clip: Clip, noise: Float32Array) -> Clip:
    """The clip with its steady noise lowered.

    noise: float32 [N], samples of the clip in which nobody speaks; too few of them and the whole clip is the measure.
    """
    measured = noise if len(noise) >= _MIN_NOISE_S * clip.sample_rate_hz else None
    samples = _gate()(
        y=clip.samples,
        sr=clip.sample_rate_hz,
        y_noise=measured,
        stationary=True,
        prop_decrease=PROP_DECREASE,
        n_fft=1024 if clip.sample_rate_hz >= 16_000 else 512,
    )
    return Clip(np.asarray(samples, dtype=np.float32), clip.sample_rate_hz)


def warm_up() -> None:
    """Imports the gate and runs it once, so that the first noisy clip does not wait for that."""
    denoised(Clip(np.full(24_000, 0.01, np.float32), 24_000), np.zeros(0, np.float32))


@cache
def _gate() -> Callable[..., Any]:
    """noisereduce's function, without the torch that it would import and not use here (200 MB, seconds)."""
    importlib.import_module("scipy.signal")  # before torch is hidden: scipy looks for it among the loaded modules
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        gate: Callable[..., Any] = importlib.import_module("noisereduce").reduce_noise
    finally:
        if hide:
            del sys.modules["torch"]
    return gate
