"""From a request to arrays: the whole front end, synchronous, safe to call from several threads."""

import hashlib
import secrets
from pathlib import Path

import numpy as np

from serve_app.config import PreprocessConfig
from serve_app.errors import CheckpointError, InvalidAudio
from serve_app.messages import (
    ClipQuality,
    Int32Array,
    PreparedSpeech,
    PreparedUtterance,
    ReferenceClip,
    SpeechRequest,
    VoiceInfo,
    VoicePrompt,
)
from serve_app.preprocess.denoise import warm_up
from serve_app.preprocess.intake import Intake, take_in
from serve_app.preprocess.normalize import clean, normalize
from serve_app.preprocess.prompt_cache import PromptCache
from serve_app.preprocess.reference_audio import decode
from serve_app.preprocess.speakable import speakable
from serve_app.preprocess.tokenizer import END_OF_PROMPT, Tokenizer
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_prompt import VoicePromptBuilder
from serve_app.preprocess.voices import DEFAULT_VOICE, ClipVoice, SpeakerVoice, Voices, content_hash

_RECIPE = "1"
"""Part of every prompt's key: raise it when the same clip would give another prompt."""
_NO_IDS: Int32Array = np.zeros(0, dtype=np.int32)


class Preprocessor:
    """Prepares requests. Voices and prompts are kept; nothing of a request is."""

    def __init__(self, checkpoint: Path, config: PreprocessConfig) -> None:
        """Loads the front end and makes the default voice's prompt, so that the first request waits for nothing.

        Raises CheckpointError when a file of the front end or a built-in voice is missing or broken.
        """
        self._config = config
        self._tokenizer = Tokenizer.from_checkpoint(checkpoint)
        self._builder = VoicePromptBuilder(checkpoint, config.threads)
        self._voices = Voices(config.voices_dir, checkpoint)
        self._prompts = PromptCache(config.voice_cache_entries)
        self._activity = VoiceActivity()
        warm_up()
        if self._voices.infos():
            try:
                self._named_voice(DEFAULT_VOICE)
            except InvalidAudio as error:
                raise CheckpointError(f"The default voice cannot be used. {error.message}") from error

    def voices(self) -> tuple[VoiceInfo, ...]:
        """Every voice that a request may name."""
        return self._voices.infos()

    def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Pieces of text as token ids, and the voice to speak them with.

        Modes, as upstream's front end has them (`cosyvoice/cli/frontend.py`): instruct when there are instructions;
        else zero-shot when the voice's clip has a transcript; else cross-lingual (a clip alone) or sft (no clip).
        Raises EmptyInput, VoiceNotFound or InvalidAudio and its kin.
        """
        text = speakable(request.text, request.normalize, self._tokenizer, self._config.max_utterance_tokens)
        if request.reference is not None:
            reference = request.reference
            voice = self._sent_voice(reference)
        else:
            voice = self._named_voice(request.voice)
        prefix_ids, speech_prefix_ids = voice.transcript_ids, voice.speech_ids
        instructions = clean(request.instructions).text
        if instructions:
            prefix_ids, speech_prefix_ids = self._tokenizer.encode(instructions + END_OF_PROMPT), _NO_IDS
        elif len(voice.transcript_ids) == 0:
            prefix_ids, speech_prefix_ids = _NO_IDS, _NO_IDS
        utterances = tuple(
            PreparedUtterance(
                piece.ids, prefix_ids, speech_prefix_ids, piece.start, piece.end, pause_before_s=piece.pause_before_s
            )
            for piece in text.pieces
        )
        seed = secrets.randbits(63) if request.seed is None else request.seed % 2**63
        return PreparedSpeech(
            request.request_id, voice, utterances, seed, request.speed, text.pause_after_s, text.warnings
        )

    def check(self, reference: ReferenceClip) -> ClipQuality:
        """The report on a clip. Raises InvalidAudio and its kin."""
        return self._take_in(reference).quality

    def make_voice(self, reference: ReferenceClip) -> tuple[VoicePrompt, ClipQuality]:
        """What a registration keeps: the prompt of a clip, and the report on it; the clip is looked at once.

        Raises InvalidAudio and its kin.
        """
        intake = self._take_in(reference)
        return self._sent_voice(reference, intake), intake.quality

    def _named_voice(self, name: str) -> VoicePrompt:
        voice = self._voices.find(name)
        if isinstance(voice, ClipVoice):
            return self._clip_voice(voice.audio, voice.content_hash, voice.transcript)
        return _speaker_prompt(voice)

    def _take_in(self, reference: ReferenceClip) -> Intake:
        clip = decode(reference.audio, self._config.min_reference_s, self._config.max_reference_s)
        return take_in(clip, _words(reference.transcript), reference.denoise, self._activity)

    def _sent_voice(self, reference: ReferenceClip, intake: Intake | None = None) -> VoicePrompt:
        """The prompt of a clip that came with a request: mended, unlike a built-in voice, which is as it should be."""
        words = _words(reference.transcript)
        key = self._key("sent", content_hash(reference.audio), words, reference.denoise)

        def make() -> VoicePrompt:
            clip = (intake or self._take_in(reference)).clip
            return self._builder.build(clip, self._tokenizer.encode(_spoken(words)), key)

        return self._prompts.get(key, make)

    def _key(self, *parts: str) -> str:
        limits = (f"{self._config.min_reference_s:g}", f"{self._config.max_reference_s:g}")
        return hashlib.sha256("\0".join((_RECIPE, *parts, *limits)).encode()).hexdigest()

    def _clip_voice(self, audio: bytes, audio_hash: str, transcript: str) -> VoicePrompt:
        """The prompt of a clip, from the cache if it was ever made of the same bytes and words."""
        words = _words(transcript)
        key = self._key("built-in", audio_hash, words)

        def make() -> VoicePrompt:
            clip = decode(audio, self._config.min_reference_s, self._config.max_reference_s)
            return self._builder.build(clip, self._tokenizer.encode(_spoken(words)), key)

        return self._prompts.get(key, make)


def _words(transcript: str) -> str:
    """A transcript as one clean line."""
    return clean(transcript).text.replace("\n", " ")


def _spoken(transcript: str) -> str:
    """A transcript as it was said: figures and signs in words, and an end to the sentence."""
    return normalize(clean(transcript)).text.replace("\n", " ")


def _speaker_prompt(voice: SpeakerVoice) -> VoicePrompt:
    return VoicePrompt(
        key=hashlib.sha256(b"speaker\0" + voice.speaker.tobytes()).hexdigest(),
        transcript_ids=_NO_IDS,
        speech_ids=_NO_IDS,
        mel=np.zeros((0, 80), np.float32),
        speaker=voice.speaker,
    )
