"""What crosses a process boundary: frozen values, numpy arrays and bytes, never tensors.

The order is that of a request's walk: `SpeechRequest` (ingress) -> `PreparedSpeech` (a CPU replica) -> `AudioChunk`s (a
synthesis replica) -> body bytes (ingress).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 24_000
"""Rate of every `AudioChunk`: what CosyVoice2's vocoder makes."""

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]

Denoise = Literal["auto", "on", "off"]
"""Whether noise is taken out of a reference clip."""


@dataclass(frozen=True, slots=True)
class ReferenceClip:
    """A clip sent with one request.

    audio: an encoded file, as uploaded (wav, flac, ogg, mp3, m4a).
    transcript: the words spoken in it; empty selects cross-lingual mode.
    denoise: "auto" denoises a clip whose speech is less than 20 dB above its noise.
    """

    audio: bytes
    transcript: str = ""
    denoise: Denoise = "auto"


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One validated request for speech.

    voice: id or name of a voice; ignored when `reference` is given.
    instructions: style instruction; not empty selects instruct mode.
    seed: None draws one.
    normalize: put figures, signs and abbreviations into words, drop Markdown and emoji; False speaks the text as it is.
    by_sentence: no utterance holds two sentences, unless one is too short to be spoken well alone.
    owner: whose registered voices it may name, beside those of everybody; empty: those of everybody alone.
    """

    request_id: str
    text: str
    voice: str = "default"
    reference: ReferenceClip | None = None
    instructions: str = ""
    speed: float = 1.0
    seed: int | None = None
    normalize: bool = True
    by_sentence: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class VoicePrompt:
    """Everything the models need to know of a voice. With N prompt tokens:

    key: hash of the clip, its transcript and the settings that made this prompt; equal keys mean equal arrays.
    transcript_ids: int32 [L], text tokens of the transcript; empty for cross-lingual and sft voices.
    speech_ids: int32 [N], 25 Hz speech tokens of the clip; empty for sft voices.
    mel: float32 [2N, 80], log-mel of the clip at 50 Hz.
    speaker: float32 [192], speaker vector, not normalised.
    """

    key: str
    transcript_ids: Int32Array
    speech_ids: Int32Array
    mel: Float32Array
    speaker: Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class PreparedUtterance:
    """One sentence-sized piece of text, ready for the language model.

    text_ids: int32 [T], T >= 1; T >= 0 when more text is to come (`PreparedSpeech.fed`).
    prefix_ids: int32 [L], text tokens put before it: the clip's transcript (zero-shot), or an instruction closed by
        `<|endofprompt|>` (instruct); empty otherwise.
    speech_prefix_ids: int32 [N], speech tokens that the language model continues; empty unless zero-shot.
    text_start, text_end: the piece's place in the request's text, in code points.
    pause_before_s: seconds of exact silence asked for before it.
    """

    text_ids: Int32Array
    prefix_ids: Int32Array
    speech_prefix_ids: Int32Array
    text_start: int
    text_end: int
    pause_before_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSpeech:
    """A request after preprocessing: no string to be spoken past here.

    utterances: in speaking order, at least one.
    seed: 0 <= seed < 2**63; equal seeds, text, voice and engine settings give equal samples.
    pause_after_s: seconds of exact silence asked for after the last utterance.
    fed: the only utterance's text goes on: more text tokens are fed while it is spoken, until its end is declared.
    warnings: what the client should know, in plain words: markup that was left out, a pause that was shortened.
    waited_s: seconds from the request until the ingress held this, for its figures.
    work_s: seconds that its preparation took, waiting for its turn left out.
    """

    request_id: str
    voice: VoicePrompt
    utterances: tuple[PreparedUtterance, ...]
    seed: int
    speed: float = 1.0
    pause_after_s: float = 0.0
    fed: bool = False
    warnings: tuple[str, ...] = ()
    waited_s: float = 0.0
    work_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FedText:
    """A fed utterance's text, as far as it has been written.

    text: all of it. text_end: code points of it that were fed already, as `ids`: int32 [T].
    final: nothing will follow.
    """

    text: str
    text_end: int
    ids: Int32Array
    final: bool = False
    normalize: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class NextText:
    """What of a `FedText` is to be fed next.

    ids: int32 [T], T >= 0. text_end: code points of the text that are fed with it.
    full: the utterance is as long as it may be; what follows text_end belongs into another.
    """

    ids: Int32Array
    text_end: int
    full: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """Consecutive samples of one utterance.

    samples: float32 [S], S >= 0, nominally within -1..1, at SAMPLE_RATE_HZ.
    utterance: index of the utterance they belong to.
    num_speech_tokens: speech tokens generated for this utterance since its previous chunk (for usage accounting).
    work_s: of a request's first chunk with samples, seconds since the engine began with it; 0 for all others.
    """

    samples: Float32Array
    utterance: int
    num_speech_tokens: int
    work_s: float = 0.0


VOICE_SESSION = "voice:"
"""A call with this and a voice's key as its session id goes to the synthesis replica that knows the voice."""
REPLICA_SESSION = "replica:"
"""A call with this and a replica's id goes to that replica."""


@dataclass(frozen=True, slots=True)
class SpeakingReplica:
    """The first item of a fed request's stream: which synthesis replica takes the rest of its text."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class ReadPart:
    """A stretch of the request's text and the words that are said for it.

    text_start, text_end: its place in the request's text, in code points; equal for what is said and was not written.
    """

    text_start: int
    text_end: int
    written: str
    spoken: str


@dataclass(frozen=True, slots=True)
class ReadPiece:
    """One utterance as it will be read: its parts, in speaking order, and the seconds of silence before it."""

    parts: tuple[ReadPart, ...]
    pause_before_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text will be read: at least one piece. What no part covers is not spoken."""

    pieces: tuple[ReadPiece, ...]
    pause_after_s: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClipQuality:
    """What is known of a reference clip, as it was sent.

    speech_s: seconds in which somebody speaks. snr_db: speech above what is heard in the pauses, -10..80.
    loudness_db: mean level of the speech, dBFS. clipped_share: of all samples, 0..1. bandwidth_hz: where speech ends.
    second_speaker: two voices are probable. warnings: each fault in plain words.
    denoised, used_s: what was done with it, and the seconds that the voice is made of.
    """

    duration_s: float
    speech_s: float
    snr_db: float
    loudness_db: float
    clipped_share: float
    bandwidth_hz: int
    second_speaker: bool
    warnings: tuple[str, ...]
    denoised: bool = False
    used_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ClipPreview:
    """What a voice would be made of. audio: a WAV file, s16le, mono, SAMPLE_RATE_HZ. quality: of what was sent."""

    audio: bytes
    quality: ClipQuality


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """What a listing says of a voice. created_at is in Unix seconds; language is a BCP 47 tag or empty."""

    id: str
    name: str
    builtin: bool
    created_at: int
    language: str = ""


@dataclass(frozen=True, slots=True)
class NewVoice:
    """A voice to be registered.

    audio: an encoded file, as uploaded. transcript: the words spoken in it; empty for cross-lingual use.
    language: a BCP 47 tag or empty. owner: who alone may list, use and delete it; empty: everybody.
    """

    name: str
    audio: bytes
    transcript: str = ""
    language: str = ""
    denoise: Denoise = "auto"
    owner: str = ""


@dataclass(frozen=True, slots=True)
class RegisteredVoice:
    """A voice that is stored now, and the report on its clip."""

    voice: VoiceInfo
    quality: ClipQuality
