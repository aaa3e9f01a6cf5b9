"""Where in a clip somebody speaks: silero-vad's network, read from its wheel without importing the package or torch."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve_app.errors import CheckpointError
from serve_app.messages import Float32Array

FRAME = 512
"""Samples at 16 kHz that one probability is about: 32 ms."""
_CONTEXT = 64
_STATE = (1, 1, 128)
_ON, _OFF = 0.5, 0.35
_BRIDGED_FRAMES = 6
"""A gap of up to 0.2 s inside speech is part of it."""


class VoiceActivity:
    """One onnxruntime session on one thread. Safe to share between threads."""

    def __init__(self) -> None:
        """Raises CheckpointError when the silero-vad package is not installed."""
        package = importlib.util.find_spec("silero_vad")
        if package is None or not package.submodule_search_locations:
            raise CheckpointError("The package silero-vad is not installed.")
        path = Path(package.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probabilities(self, at_16_khz: Float32Array) -> Float32Array:
        """float32 [ceil(S / 512)]: how surely each 32 ms hold speech. The clip's level does not matter."""
        level = float(np.quantile(np.abs(at_16_khz), 0.999)) or 1.0
        num_frames = -(-len(at_16_khz) // FRAME)
        frames = np.zeros((num_frames, FRAME), np.float32)
        frames.reshape(-1)[: len(at_16_khz)] = np.clip(at_16_khz * np.float32(0.5 / level), -1, 1)
        context = np.zeros((num_frames, _CONTEXT), np.float32)
        context[1:] = frames[:-1, -_CONTEXT:]
        state = np.zeros(_STATE, np.float32)
        feeds = {"input": np.concatenate([context, frames], axis=1), "h": state, "c": state}
        return np.asarray(self._session.run(["speech_probs"], feeds)[0], dtype=np.float32).reshape(-1)


def speech_frames(probabilities: Float32Array) -> NDArray[np.bool_]:
    """bool [frames]: speech with hysteresis, short gaps bridged, single frames dropped."""
    speaking = np.zeros(len(probabilities), bool)
    on = False
    for index, probability in enumerate(probabilities):
        on = bool(probability > (_OFF if on else _ON))
        speaking[index] = on
    for start, end in runs(~speaking):
        if end - start <= _BRIDGED_FRAMES and start > 0 and end < len(speaking):
            speaking[start:end] = True
    for start, end in runs(speaking):
        if end - start < 2:
            speaking[start:end] = False
    return speaking


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
