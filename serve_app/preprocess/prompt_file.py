"""A voice prompt as the bytes of a safetensors file that proves its own content, and back."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from serve_app.messages import VoicePrompt

_ARRAYS = {"transcript_ids": np.int32, "speech_ids": np.int32, "mel": np.float32, "speaker": np.float32}
_DIGEST = "digest"
_MEL_BANDS, _SPEAKER_SIZE = 80, 192


class DamagedPrompt(ValueError):
    """Bytes that are not the prompt file that was written."""


def prompt_to_bytes(prompt: VoicePrompt) -> bytes:
    """The arrays by name, and `digest`, uint8 [32]: SHA-256 of the key and of every array (safetensors has none)."""
    arrays = _arrays(prompt)
    return bytes(save({**arrays, _DIGEST: _digest(prompt.key, arrays)}))


def prompt_from_bytes(data: bytes, key: str) -> VoicePrompt:
    """The prompt whose key is `key`. Raises DamagedPrompt when a single bit of it has changed."""
    try:
        arrays = load(data)
        digest = arrays.pop(_DIGEST)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedPrompt(f"not a prompt file ({type(error).__name__})") from error
    if {name: array.dtype.type for name, array in arrays.items()} != _ARRAYS:
        raise DamagedPrompt("other arrays than a prompt has")
    if not np.array_equal(digest, _digest(key, arrays)):
        raise DamagedPrompt("the checksum differs")
    prompt = VoicePrompt(key, arrays["transcript_ids"], arrays["speech_ids"], arrays["mel"], arrays["speaker"])
    shapes = [array.shape for array in _arrays(prompt).values()]
    num_tokens = len(prompt.speech_ids)
    wanted = [(prompt.transcript_ids.size,), (num_tokens,), (2 * num_tokens, _MEL_BANDS), (_SPEAKER_SIZE,)]
    if shapes != wanted:
        raise DamagedPrompt("arrays of other shapes than a prompt has")
    return prompt


def _arrays(prompt: VoicePrompt) -> dict[str, NDArray[np.generic]]:
    return {name: np.ascontiguousarray(getattr(prompt, name)) for name in _ARRAYS}


def _digest(key: str, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)
