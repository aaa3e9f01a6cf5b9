"""Voices without a clip: the speaker vectors of a checkpoint's spk2info.pt, for upstream's sft mode.

Preprocessing needs them and must not import torch, so they are converted once to `spk2info.npz`, beside the original.
"""

import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from serve_app.model.faults import CheckpointFault
from serve_app.model.stored_network import read_pickle

SOURCE_FILE = "spk2info.pt"
CONVERTED_FILE = "spk2info.npz"


def convert_speakers(directory: Path) -> bool:
    """Writes the vectors, float32 [192] by voice id, unless they are there and newer than their source.

    Returns whether preprocessing will find them: False when the checkpoint has no such voices, or its folder cannot be
    written. Raises CheckpointFault when the file is there but not what upstream writes.
    """
    source, converted = directory / SOURCE_FILE, directory / CONVERTED_FILE
    if not source.is_file():
        return False
    if converted.is_file() and converted.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return True
    vectors = {voice: _vector(voice, values) for voice, values in read_pickle(source).items()}
    try:
        with tempfile.NamedTemporaryFile(dir=directory, suffix=".npz", delete=False) as scratch:
            np.savez(scratch, allow_pickle=False, **vectors)
        Path(scratch.name).replace(converted)
    except OSError:
        return False
    return True


def _vector(voice: str, values: object) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    embedding = values.get("embedding") if isinstance(values, dict) else None
    if not isinstance(embedding, Tensor):
        raise CheckpointFault(f"{SOURCE_FILE}: {voice} has no speaker vector")
    return embedding.float().reshape(-1).numpy()
