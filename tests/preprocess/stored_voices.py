"""Voices for tests of the store: small prompts that are all different, and a look at everything a store holds."""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FrameType

import numpy as np

from serve_app.messages import NewVoice, VoicePrompt
from serve_app.preprocess.voice_store import VoiceStore

FILE_CALLS = frozenset({"open", "write", "flush", "fsync", "mkdir", "link", "rename", "replace", "unlink", "rmdir"})
"""The calls by which a process changes what is on a disk."""


def voice(name: str, seed: int = 0) -> tuple[NewVoice, VoicePrompt]:
    """A voice of 3 speech tokens, its clip and prompt drawn from `seed`."""
    rng = np.random.default_rng(seed)
    audio = rng.bytes(200)
    prompt = VoicePrompt(
        key=hashlib.sha256(audio).hexdigest(),
        transcript_ids=np.arange(4, dtype=np.int32),
        speech_ids=rng.integers(0, 6561, 3, dtype=np.int32),
        mel=rng.standard_normal((6, 80)).astype(np.float32),
        speaker=rng.standard_normal(192).astype(np.float32),
    )
    return NewVoice(name, audio, "hello", "en"), prompt


def same(one: VoicePrompt | None, other: VoicePrompt) -> bool:
    """Whether both are the same, bit by bit."""
    if one is None:
        return False
    names = ("transcript_ids", "speech_ids", "mel", "speaker")
    return one.key == other.key and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def whole_voices(store: VoiceStore) -> set[str]:
    """The names of all listed voices, each of which can be used: clip and prompt are there and undamaged."""
    for card in store.cards():
        assert hashlib.sha256(store.clip(card)).hexdigest() == card.content_hash
        assert store.prompt(card, card.prompt_key) is not None
        assert store.find(card.id) == store.find(card.name) == card
    return {card.name for card in store.cards()}


@contextlib.contextmanager
def watching_file_calls(before: Callable[[str], None]) -> Iterator[None]:
    """Calls `before(name)` ahead of each of `FILE_CALLS` that this thread makes; it may raise, or end the process."""

    def profile(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and isinstance(called, BuiltinFunctionType) and called.__name__ in FILE_CALLS:
            before(called.__name__)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
