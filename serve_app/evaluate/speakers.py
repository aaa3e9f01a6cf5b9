"""Reference clips of speakers that a checkpoint was never trained on: a folder of NAME.yaml (`transcript`) and NAME.wav
(or .flac, .ogg, .mp3, .m4a)."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from serve_app.errors import CheckpointError
from serve_app.messages import ReferenceClip

_ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".m4a")


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody to be imitated, as a client would send them."""

    name: str
    reference: ReferenceClip


def read_speakers(folder: Path) -> list[Speaker]:
    """By name. Raises CheckpointError, naming what is missing or cannot be read."""
    cards = sorted(folder.glob("*.yaml"))
    if not cards:
        raise CheckpointError(f"There are no speakers (NAME.yaml and NAME.wav) in {folder}.")
    return [_read(card) for card in cards]


def _read(card: Path) -> Speaker:
    clips = [path for ending in _ENDINGS if (path := card.with_suffix(ending)).is_file()]
    if not clips:
        raise CheckpointError(f"The speaker {card.stem} has no {card.stem}.wav.")
    try:
        transcript = str(yaml.safe_load(card.read_text(encoding="utf-8"))["transcript"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{card.name} cannot be read, or has no transcript.") from error
    # As recorded: denoising is another part's merit.
    return Speaker(card.stem, ReferenceClip(clips[0].read_bytes(), transcript, denoise="off"))
