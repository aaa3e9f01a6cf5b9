"""Registered voices, in a folder or a bucket that every replica shares. Its layout:

    records/<key of owner and name>.json    the voice's card: it is there if and only if the voice is
    data/<id>/clip.bin                      the clip, as it was uploaded
    data/<id>/prompt-<key>.safetensors      the prompt made of it; another checkpoint makes and adds another
    quarantine/<record>.<random>            cards of damaged voices, kept for a person to look at
    incoming/<random>                       files still being written (disks only)

A voice is written data first, card last, by one exclusive create: at that moment it exists and its name is taken, so
there is no claim that a crash could leave behind. It is deleted card first. A crash at any point leaves the old state
or the new one, and at most data without a card, which `sweep` removes a day later.
"""

import base64
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from serve_app.errors import BuiltinVoice, NotReady, VoiceExists, VoiceNotFound
from serve_app.messages import NewVoice, VoicePrompt
from serve_app.preprocess.prompt_file import DamagedPrompt, prompt_from_bytes, prompt_to_bytes
from serve_app.preprocess.voice_card import DamagedCard, NewerFormat, VoiceCard, card_from_bytes
from serve_app.preprocess.voice_folder import STAGING, Folder
from serve_app.preprocess.voice_name import accepted_name, name_key
from serve_app.preprocess.voice_records import QUARANTINE, RECORDS, VoiceRecords, plainly, record_name

DATA = "data"
ORPHAN_AGE_S = 24 * 3600.0

_NOT_FOUND = "There is no voice of that id or name; see the list of voices."
_TAKEN = "A voice of that name exists already."

log = logging.getLogger(__name__)


class VoiceStore:
    """Safe to share between threads, processes and machines. clock: monotonic seconds."""

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._records = VoiceRecords(folder, clock)

    def cards(self, owner: str = "") -> tuple[VoiceCard, ...]:
        """Every voice that this owner may use now, in the order of registration; those known last when the store is
        out of reach.

        Raises NotReady when it was never reached.
        """
        try:
            listing = self._records.fresh()
        except NotReady:
            listing = self._records.recent()
        return tuple(sorted(listing.seen_by(owner), key=lambda card: (card.created_at, card.id)))

    def find(self, wanted: str, owner: str = "") -> VoiceCard:
        """The voice of that id, else of that name. Raises VoiceNotFound, only after a fresh look; NotReady.

        Another owner's voice is not found, exactly as one that never was.
        """
        card = self._records.recent().find(wanted, owner) or self._records.fresh().find(wanted, owner)
        if card is None:
            raise VoiceNotFound(_NOT_FOUND)
        return card

    def check_free(self, name: str, owner: str = "") -> None:
        """Raises VoiceExists when the name, in any case, is taken now by this owner or for everybody;
        InvalidVoiceName; NotReady.
        """
        cards = self._records.fresh().cards
        if any(f"{name_key(accepted_name(name), whose)}.json" in cards for whose in ("", owner)):
            raise VoiceExists(_TAKEN)

    def add(self, new: NewVoice, prompt: VoicePrompt) -> VoiceCard:
        """Stores a voice; when this returns it survives a crash of every machine.

        Raises VoiceExists, also when somebody else takes the name meanwhile; InvalidVoiceName, StorageFull, NotReady.
        """
        self.check_free(new.name, new.owner)
        prompt_bytes = prompt_to_bytes(prompt)
        card = VoiceCard(
            format=2 if new.owner else 1,
            id="voice_" + base64.b32encode(secrets.token_bytes(15)).decode().lower(),
            name=accepted_name(new.name),
            language=new.language,
            transcript=new.transcript,
            denoise=new.denoise,
            created_at=int(time.time()),
            content_hash=hashlib.sha256(new.audio).hexdigest(),
            prompt_key=prompt.key,
            num_clip_bytes=len(new.audio),
            num_prompt_bytes=len(prompt_bytes),
            owner=new.owner,
        )
        try:
            with plainly("written", FileExistsError):
                self._folder.write(_clip_path(card), new.audio)
                self._folder.write(_prompt_path(card, prompt.key), prompt_bytes)
                self._folder.create(_record_path(card), card.to_bytes())
        except FileExistsError:
            self._discard(card)
            raise VoiceExists(_TAKEN) from None
        except BaseException:
            self._discard(card)
            raise
        self._records.expire()
        return card

    def remove(self, wanted: str, owner: str = "") -> None:
        """Deletes the voice of that id, else of that name. Raises VoiceNotFound, StorageFull or NotReady; BuiltinVoice
        when an owner asks for a voice that is everybody's.
        """
        card = self._records.fresh().find(wanted, owner)
        if card is None:
            raise VoiceNotFound(_NOT_FOUND)
        if card.owner != owner:
            raise BuiltinVoice("This voice belongs to everybody; one key cannot delete it.")
        try:
            with plainly("written", FileNotFoundError):
                self._folder.remove(_record_path(card))
        except FileNotFoundError:
            raise VoiceNotFound(_NOT_FOUND) from None
        finally:
            self._records.expire()
        with suppress(OSError):  # the voice is gone already; `sweep` takes what is left
            self._folder.remove_all(_data_path(card))

    def prompt(self, card: VoiceCard, key: str) -> VoicePrompt | None:
        """The stored prompt of that key, or None: it was never made, or its file is damaged (logged)."""
        path = _prompt_path(card, key)
        try:
            with plainly("read", FileNotFoundError):
                return prompt_from_bytes(self._folder.read(path), key)
        except FileNotFoundError:
            return None
        except DamagedPrompt as error:
            log.error("voice store: %s is damaged (%s): it is made anew from the clip", path, error)
            return None

    def add_prompt(self, card: VoiceCard, prompt: VoicePrompt) -> None:
        """Keeps another prompt of a voice. A store that cannot be written costs time later, and nothing else."""
        try:
            self._folder.write(_prompt_path(card, prompt.key), prompt_to_bytes(prompt))
        except OSError as error:
            log.warning("voice store: the prompt of %s cannot be kept: %s", card.id, error)

    def clip(self, card: VoiceCard) -> bytes:
        """The clip, as it was uploaded. A damaged one sends the voice to quarantine.

        Raises VoiceNotFound when the voice was deleted meanwhile, or is damaged; NotReady.
        """
        try:
            with plainly("read", FileNotFoundError):
                audio = self._folder.read(_clip_path(card))
            if hashlib.sha256(audio).hexdigest() == card.content_hash:
                return audio
            fault = "the clip's checksum differs"
        except FileNotFoundError:
            fault = "the clip is missing"
        record = self._record_of(card)
        if record is None:
            raise VoiceNotFound(_NOT_FOUND)
        self._records.quarantine(record_name(card), record, f"{card.id}: {fault}")
        self._records.expire()
        raise VoiceNotFound("The recording of this voice is damaged; register the voice again.")

    def sweep(self) -> None:
        """Removes what crashes left behind a day ago; for the start of a replica. Failures are only logged.

        Data without a card stays while any record is damaged, or newer than this program: it may be theirs.
        """
        try:
            # Data before records: what is registered in between has its card by the time the cards are read.
            data = self._folder.entries(DATA)
            listing = self._records.fresh()
            unclear = self._folder.entries(QUARANTINE) or listing.num_records > len(listing.cards)
            orphans = [] if unclear else [f"{DATA}/{name}" for name in data if name not in listing.by_id]
            for path in [*orphans, *(f"{STAGING}/{name}" for name in self._folder.entries(STAGING))]:
                with suppress(FileNotFoundError):
                    if self._folder.age_s(path) > ORPHAN_AGE_S:
                        self._folder.remove_all(path)
                        log.warning("voice store: removed %s, left behind by a crash", path)
        except (OSError, NotReady) as error:
            log.warning("voice store: nothing could be tidied up: %s", error)

    def _record_of(self, card: VoiceCard) -> bytes | None:
        """The bytes of the voice's record, or None when it is not there any more. Raises NotReady."""
        try:
            with plainly("read", FileNotFoundError):
                record = self._folder.read(_record_path(card))
            return record if card_from_bytes(record).id == card.id else None
        except (FileNotFoundError, DamagedCard, NewerFormat):
            return None

    def _discard(self, card: VoiceCard) -> None:
        """Undoes an unfinished `add`. The card first: it may be there though writing it was reported to fail."""
        with suppress(OSError):
            with suppress(FileNotFoundError):
                if self._folder.read(_record_path(card)) == card.to_bytes():
                    self._folder.remove(_record_path(card))
            self._folder.remove_all(_data_path(card))


def _record_path(card: VoiceCard) -> str:
    return f"{RECORDS}/{record_name(card)}"


def _data_path(card: VoiceCard) -> str:
    return f"{DATA}/{card.id}"


def _clip_path(card: VoiceCard) -> str:
    return f"{_data_path(card)}/clip.bin"


def _prompt_path(card: VoiceCard, key: str) -> str:
    return f"{_data_path(card)}/prompt-{key}.safetensors"
