"""The voices that a request may name: built-in clips of a folder, and plain speaker vectors of a checkpoint.

A built-in voice is NAME.wav with NAME.yaml beside it (`name`, `language`, `transcript`, `provenance`, `licence`, and
optionally `description` and `default: true`). A checkpoint may bring `spk2info.npz`: for each voice without a clip its
speaker vector, float32 [192] (upstream's spk2info.pt, converted).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serve_app.errors import CheckpointError, VoiceNotFound
from serve_app.messages import Float32Array, VoiceInfo
from serve_app.preprocess.voice_name import name_key

DEFAULT_VOICE = "default"
SPEAKERS_FILE = "spk2info.npz"
_SPEAKER_SIZE = 192


@dataclass(frozen=True, slots=True, eq=False)
class ClipVoice:
    """A voice that has a recorded clip. content_hash: hex digest of the clip's bytes."""

    info: VoiceInfo
    audio: bytes
    content_hash: str
    transcript: str


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerVoice:
    """A voice that is a speaker vector alone (upstream's sft mode). speaker: float32 [192]."""

    info: VoiceInfo
    speaker: Float32Array


Voice = ClipVoice | SpeakerVoice


class Voices:
    """All built-in voices, loaded once. `default` names the one marked so, else the first."""

    def __init__(self, voices_dir: Path, checkpoint: Path) -> None:
        """Raises CheckpointError when a voice is incomplete or two share a name."""
        found, marked = _clip_voices(voices_dir)
        self._voices: tuple[Voice, ...] = (*found, *_speaker_voices(checkpoint / SPEAKERS_FILE))
        self._by_name: dict[str, Voice] = {}
        for voice in self._voices:
            for name in {voice.info.id, voice.info.name}:
                if name in self._by_name:
                    raise CheckpointError(f"Two built-in voices are called {name}.")
                self._by_name[name] = voice
        if self._voices:
            self._by_name.setdefault(DEFAULT_VOICE, marked or self._voices[0])

    def infos(self) -> tuple[VoiceInfo, ...]:
        """What a listing says, by name."""
        return tuple(sorted((v.info for v in self._voices), key=lambda info: info.name))

    def has(self, name: str) -> bool:
        """Whether `find` finds it."""
        return name in self._by_name

    def holds(self, name: str) -> bool:
        """Whether a built-in voice has that id or name, in whatever case: nobody else may have it."""
        return name_key(name) in {name_key(known) for known in self._by_name}

    def find(self, name: str) -> Voice:
        """The voice of that id or name. Raises VoiceNotFound."""
        voice = self._by_name.get(name)
        if voice is None:
            raise VoiceNotFound("There is no voice of that name; see the list of voices.")
        return voice


def content_hash(audio: bytes) -> str:
    """Hex digest that names a clip by its bytes."""
    return hashlib.sha256(audio).hexdigest()


def _clip_voices(folder: Path) -> tuple[list[ClipVoice], ClipVoice | None]:
    """Every NAME.yaml with NAME.wav, by file name, and the one marked as default."""
    voices: list[ClipVoice] = []
    marked = None
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
        card = _card(path)
        clip = path.with_suffix(".wav")
        if not clip.is_file():
            raise CheckpointError(f"The built-in voice {path.stem} has no {clip.name}.")
        audio = clip.read_bytes()
        info = VoiceInfo(
            id=path.stem,
            name=str(card["name"]),
            builtin=True,
            created_at=0,
            language=str(card["language"]),
        )
        voice = ClipVoice(info, audio, content_hash(audio), str(card["transcript"]).strip())
        voices.append(voice)
        marked = voice if card.get("default") is True else marked
    return voices, marked


def _card(path: Path) -> dict[str, Any]:
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The built-in voice card {path.name} cannot be read: {error}") from error
    required = ("name", "language", "transcript", "provenance", "licence")
    missing = [key for key in required if not isinstance(card, dict) or key not in card]
    if missing:
        raise CheckpointError(f"The built-in voice card {path.name} lacks {', '.join(missing)}.")
    return dict(card)


def _speaker_voices(path: Path) -> list[SpeakerVoice]:
    if not path.is_file():
        return []
    voices = []
    with np.load(path, allow_pickle=False) as archive:
        for name in sorted(archive.files):
            speaker = np.asarray(archive[name], dtype=np.float32).reshape(-1)
            if speaker.shape != (_SPEAKER_SIZE,):
                raise CheckpointError(f"The voice {name} in {SPEAKERS_FILE} is not a vector of {_SPEAKER_SIZE}.")
            voices.append(SpeakerVoice(VoiceInfo(id=name, name=name, builtin=True, created_at=0), speaker))
    return voices
