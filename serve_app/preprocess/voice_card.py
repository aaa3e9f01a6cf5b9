"""What the voice store knows of a voice beside its sound: the content of its record, a JSON object."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.messages import Denoise, VoiceInfo


class NewerFormat(Exception):
    """A record that a later version of this program wrote: not ours to judge."""


class DamagedCard(ValueError):
    """Bytes that are no record."""


class VoiceCard(BaseModel):
    """One registered voice. Whatever it names in the store is built from `id`, never from words of a client.

    name: as it was given, in NFC. transcript: the words of the clip, cleaned; empty for cross-lingual use.
    denoise: the setting its prompt is made with. created_at: Unix seconds. content_hash: SHA-256 of the clip, in hex.
    prompt_key: key of the prompt made at registration. num_clip_bytes, num_prompt_bytes: sizes of both files.
    owner: who alone may list, use and delete it; empty: everybody. format: 2 for a voice with an owner, so that a
    program which knows nothing of owners leaves it alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1, 2] = 1
    id: str = Field(pattern=r"^voice_[a-z2-7]{24}$")
    name: str = Field(min_length=1, max_length=64)
    language: str
    transcript: str
    denoise: Denoise
    created_at: int
    content_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    prompt_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    num_clip_bytes: int = Field(ge=1)
    num_prompt_bytes: int = Field(ge=1)
    owner: str = ""

    def may_be_seen_by(self, owner: str) -> bool:
        """Whether it is everybody's, or that owner's."""
        return self.owner in ("", owner)

    @property
    def info(self) -> VoiceInfo:
        """What a listing says of it."""
        return VoiceInfo(self.id, self.name, builtin=False, created_at=self.created_at, language=self.language)

    def to_bytes(self) -> bytes:
        """The record."""
        return self.model_dump_json(indent=1).encode()


class _AnyFormat(BaseModel):
    format: int


def card_from_bytes(data: bytes) -> VoiceCard:
    """Raises DamagedCard, or NewerFormat."""
    try:
        if _AnyFormat.model_validate_json(data).format > 2:
            raise NewerFormat
        return VoiceCard.model_validate_json(data)
    except ValidationError as error:
        faults = sorted({".".join(map(str, fault["loc"])) or fault["type"] for fault in error.errors()})
        raise DamagedCard("faults in: " + ", ".join(faults)) from error
