"""The errors of this application. What each means over HTTP is decided in `api/error_table.py`.

    SpeechError
    +-- InvalidRequest              the request can never succeed as it is
    |   +-- EmptyInput              nothing to speak
    |   +-- InputTooLong            more text than the service accepts
    |   +-- VoiceNotFound           no voice of that id or name
    |   +-- InvalidVoiceName        a name that a voice cannot have
    |   +-- InvalidAudio            a reference clip that cannot be decoded or used
    |       +-- AudioTooShort
    |       +-- AudioTooLong
    +-- VoiceExists                 the name is taken
    +-- BuiltinVoice                a built-in voice cannot be changed
    +-- Overloaded                  serving this now would starve others
    +-- NotReady                    no warmed replica, or draining
    +-- StorageFull                 no room for another voice
    +-- GenerationFailed            the model did not end, or produced no valid sound
    +-- CheckpointError             a checkpoint directory that cannot be loaded

Every error takes exactly one string, written for the client, because it is pickled between replicas. It never contains
the offending input.
"""


class SpeechError(Exception):
    """Base of every error this application raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(SpeechError):
    """The request can never succeed as it is."""


class EmptyInput(InvalidRequest):
    """The text holds nothing that can be spoken."""


class InputTooLong(InvalidRequest):
    """The text is longer than the service accepts."""


class VoiceNotFound(InvalidRequest):
    """No voice of that id or name."""


class InvalidVoiceName(InvalidRequest):
    """A name that a voice cannot have."""


class InvalidAudio(InvalidRequest):
    """A reference clip that cannot be decoded or used."""


class AudioTooShort(InvalidAudio):
    """A reference clip shorter than the minimum."""


class AudioTooLong(InvalidAudio):
    """A reference clip longer than the maximum."""


class VoiceExists(SpeechError):
    """The name of a new voice is taken."""


class BuiltinVoice(SpeechError):
    """A built-in voice cannot be changed or deleted."""


class Overloaded(SpeechError):
    """Serving this request now would starve the streams that are already playing."""


class NotReady(SpeechError):
    """No warmed replica can take the request, or this one is draining."""


class StorageFull(SpeechError):
    """The voice store has no room for another voice; what it holds is intact."""


class GenerationFailed(SpeechError):
    """The model did not end in time, or produced no valid sound."""


class CheckpointError(SpeechError):
    """A checkpoint directory that cannot be loaded; the message names every fault found."""
