"""From a request to arrays: the whole front end, synchronous, safe to call from several threads."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from serve_app.config import PreprocessConfig
from serve_app.errors import BuiltinVoice, CheckpointError, InvalidAudio, VoiceExists
from serve_app.messages import (
    SAMPLE_RATE_HZ,
    ClipPreview,
    ClipQuality,
    FedText,
    Int32Array,
    NewVoice,
    NextText,
    PreparedSpeech,
    PreparedUtterance,
    Reading,
    ReferenceClip,
    RegisteredVoice,
    SpeechRequest,
    VoiceInfo,
    VoicePrompt,
)
from serve_app.preprocess.denoise import warm_up
from serve_app.preprocess.fed_text import next_text
from serve_app.preprocess.intake import Intake, take_in
from serve_app.preprocess.normalize import clean
from serve_app.preprocess.prompt_cache import MadeVoice, PromptCache
from serve_app.preprocess.reading import reading_of
from serve_app.preprocess.reference_audio import decode, wav_file
from serve_app.preprocess.speakable import SpeakableText, speakable
from serve_app.preprocess.tokenizer import END_OF_PROMPT, VOCABULARY, Tokenizer
from serve_app.preprocess.transcript import as_spoken, one_line
from serve_app.preprocess.voice_activity import VoiceActivity
from serve_app.preprocess.voice_card import VoiceCard
from serve_app.preprocess.voice_folder import open_folder
from serve_app.preprocess.voice_name import accepted_name
from serve_app.preprocess.voice_prompt import SPEAKER_ENCODER, SPEECH_TOKENIZER, VoicePromptBuilder
from serve_app.preprocess.voice_store import VoiceStore
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
        self._store = VoiceStore(open_folder(config.voice_store))
        self._store.sweep()
        self._prompts: PromptCache[MadeVoice] = PromptCache(config.voice_cache_entries)
        self._front_end = _hash_of_files(checkpoint / name for name in (SPEAKER_ENCODER, SPEECH_TOKENIZER, *VOCABULARY))
        self._activity = VoiceActivity()
        warm_up()
        if self._voices.infos():
            try:
                self._named_voice(DEFAULT_VOICE)
            except InvalidAudio as error:
                raise CheckpointError(f"The default voice cannot be used. {error.message}") from error

    def voices(self, owner: str = "") -> tuple[VoiceInfo, ...]:
        """Every voice that this owner's requests may name: the built-in ones first. Raises NotReady."""
        return (*self._voices.infos(), *(card.info for card in self._store.cards(owner)))

    def register_voice(self, new: NewVoice) -> RegisteredVoice:
        """Checks a clip, makes its prompt and stores both: from then on every replica knows the voice.

        Raises InvalidVoiceName, VoiceExists, InvalidAudio and its kin, StorageFull or NotReady.
        """
        new = replace(new, name=accepted_name(new.name), transcript=one_line(new.transcript))
        if self._voices.holds(new.name):
            raise VoiceExists("A built-in voice has that name.")
        self._store.check_free(new.name, new.owner)  # also `add` does, but the clip is a second's work
        prompt, quality = self.make_voice(ReferenceClip(new.audio, new.transcript, new.denoise))
        return RegisteredVoice(self._store.add(new, prompt).info, quality)

    def delete_voice(self, id_or_name: str, owner: str = "") -> None:
        """Deletes a registered voice of this owner. Raises BuiltinVoice, VoiceNotFound or NotReady."""
        if self._voices.has(id_or_name):
            raise BuiltinVoice("A built-in voice cannot be deleted.")
        self._store.remove(id_or_name, owner)

    @property
    def prompt_lookups(self) -> tuple[int, int]:
        """How often a voice's prompt was at hand, and how often it had to be made, so far."""
        return self._prompts.hits, self._prompts.misses

    def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Pieces of text as token ids, and the voice to speak them with.

        Modes, as upstream's front end has them (`cosyvoice/cli/frontend.py`): instruct when there are instructions;
        else zero-shot when the voice's clip has a transcript; else cross-lingual (a clip alone) or sft (no clip).
        Raises EmptyInput, VoiceNotFound or InvalidAudio and its kin.
        """
        text = self._speakable(request.text, request.normalize, request.by_sentence)
        voice, prefix_ids, speech_ids = self._voice_and_prefixes(request)
        utterances = tuple(
            PreparedUtterance(
                spoken.ids, prefix_ids, speech_ids, spoken.piece.start, spoken.piece.end, spoken.pause_before_s
            )
            for spoken in text.pieces
        )
        seed = _seed_of(request)
        return PreparedSpeech(
            request.request_id, voice, utterances, seed, request.speed, text.pause_after_s, warnings=text.warnings
        )

    def prepare_fed(self, request: SpeechRequest) -> PreparedSpeech:
        """The same for the beginning of a sentence whose rest has not come: a fed request.

        Of its one utterance, text_ids may be empty, and text_end says how much of the text they stand for: `next_text`
        goes on there. Raises VoiceNotFound or InvalidAudio and its kin.
        """
        first = self.next_text(FedText(request.text, 0, _NO_IDS, normalize=request.normalize))
        voice, prefix_ids, speech_ids = self._voice_and_prefixes(request)
        utterance = PreparedUtterance(first.ids, prefix_ids, speech_ids, 0, first.text_end)
        return PreparedSpeech(request.request_id, voice, (utterance,), _seed_of(request), request.speed, fed=True)

    def next_text(self, fed: FedText) -> NextText:
        """What of a sentence that is still being written can be fed to its utterance now."""
        return next_text(fed, self._tokenizer, self._config.max_utterance_tokens)

    def _voice_and_prefixes(self, request: SpeechRequest) -> tuple[VoicePrompt, Int32Array, Int32Array]:
        """The voice, and the text and speech tokens that the language model reads before the request's own."""
        if request.reference is not None:
            voice = self._sent_voice(request.reference).prompt
        else:
            voice = self._named_voice(request.voice, request.owner)
        instructions = clean(request.instructions).text
        if instructions:
            return voice, self._tokenizer.encode(instructions + END_OF_PROMPT), _NO_IDS
        if len(voice.transcript_ids) == 0:
            return voice, _NO_IDS, _NO_IDS
        return voice, voice.transcript_ids, voice.speech_ids

    def reading(self, text: str, normalized: bool) -> Reading:
        """How `prepare` would read a text, without a voice. Raises EmptyInput."""
        return reading_of(text, self._speakable(text, normalized))

    def check(self, reference: ReferenceClip) -> ClipQuality:
        """The report on a clip. Raises InvalidAudio and its kin."""
        return self._take_in(reference).quality

    def preview(self, reference: ReferenceClip) -> ClipPreview:
        """The clip as `make_voice` would use it. Nothing is kept. Raises InvalidAudio and its kin."""
        intake = self._take_in(reference)
        return ClipPreview(wav_file(intake.clip.resampled(SAMPLE_RATE_HZ)), intake.quality)

    def make_voice(self, reference: ReferenceClip) -> tuple[VoicePrompt, ClipQuality]:
        """What a registration keeps: the prompt of a clip, and the report on it.

        A clip that was seen before is not looked at again, but for the report on one that was found in the store.
        Raises InvalidAudio and its kin.
        """
        made = self._sent_voice(reference)
        return made.prompt, made.quality or self.check(reference)

    def _speakable(self, text: str, normalized: bool, by_sentence: bool = False) -> SpeakableText:
        return speakable(text, normalized, self._tokenizer, self._config.max_utterance_tokens, by_sentence)

    def _named_voice(self, name: str, owner: str = "") -> VoicePrompt:
        if not self._voices.has(name):
            return self._stored_voice(self._store.find(name, owner))
        voice = self._voices.find(name)
        if isinstance(voice, ClipVoice):
            return self._clip_voice(voice.audio, voice.content_hash, voice.transcript)
        return _speaker_prompt(voice)

    def _take_in(self, reference: ReferenceClip) -> Intake:
        clip = decode(reference.audio, self._config.min_reference_s, self._config.max_reference_s)
        return take_in(clip, one_line(reference.transcript), reference.denoise, self._activity)

    def _sent_voice(self, reference: ReferenceClip) -> MadeVoice:
        """Of a clip that came with a request: mended, unlike a built-in voice, which is as it should be."""
        words = one_line(reference.transcript)
        key = self._key("sent", content_hash(reference.audio), words, reference.denoise)

        def make() -> MadeVoice:
            intake = self._take_in(reference)
            prompt = self._builder.build(intake.clip, self._tokenizer.encode(as_spoken(words)), key)
            return MadeVoice(prompt, intake.quality)

        return self._prompts.get(key, make)

    def _stored_voice(self, card: VoiceCard) -> VoicePrompt:
        """The prompt of a registered voice: as it was stored, unless another checkpoint or recipe made that one."""
        key = self._key("sent", card.content_hash, one_line(card.transcript), card.denoise)

        def make() -> MadeVoice:
            stored = self._store.prompt(card, key)
            if stored is not None:
                return MadeVoice(stored)
            intake = self._take_in(ReferenceClip(self._store.clip(card), card.transcript, card.denoise))
            made = self._builder.build(intake.clip, self._tokenizer.encode(as_spoken(card.transcript)), key)
            self._store.add_prompt(card, made)
            return MadeVoice(made, intake.quality)

        return self._prompts.get(key, make).prompt

    def _key(self, *parts: str) -> str:
        limits = (f"{self._config.min_reference_s:g}", f"{self._config.max_reference_s:g}")
        return hashlib.sha256("\0".join((_RECIPE, self._front_end, *parts, *limits)).encode()).hexdigest()

    def _clip_voice(self, audio: bytes, audio_hash: str, transcript: str) -> VoicePrompt:
        """The prompt of a clip, from the cache if it was ever made of the same bytes and words."""
        words = one_line(transcript)
        key = self._key("built-in", audio_hash, words)

        def make() -> MadeVoice:
            clip = decode(audio, self._config.min_reference_s, self._config.max_reference_s)
            return MadeVoice(self._builder.build(clip, self._tokenizer.encode(as_spoken(words)), key))

        return self._prompts.get(key, make).prompt


def _seed_of(request: SpeechRequest) -> int:
    return secrets.randbits(63) if request.seed is None else request.seed % 2**63


def _hash_of_files(paths: Iterable[Path]) -> str:
    """Hex digest of the contents of those files that exist; half a second for the published ones (BLAKE2b)."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        if not path.is_file():
            continue
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _speaker_prompt(voice: SpeakerVoice) -> VoicePrompt:
    return VoicePrompt(
        key=hashlib.sha256(b"speaker\0" + voice.speaker.tobytes()).hexdigest(),
        transcript_ids=_NO_IDS,
        speech_ids=_NO_IDS,
        mel=np.zeros((0, 80), np.float32),
        speaker=voice.speaker,
    )
