"""The cards of all registered voices, as one replica sees them: read from the shared folder when they change.

Each is a file `records/<key of the name>.json`. A damaged one is moved to `quarantine/` and named in the log; the
others are not affected.
"""

import errno
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve_app.errors import NotReady, StorageFull
from serve_app.preprocess.voice_card import DamagedCard, NewerFormat, VoiceCard, card_from_bytes
from serve_app.preprocess.voice_folder import Folder
from serve_app.preprocess.voice_name import name_key

POLL_S = 0.5
"""A listing older than this is renewed when it is used: so a change elsewhere is seen within a second."""
RECORDS, QUARANTINE = "records", "quarantine"

log = logging.getLogger(__name__)


def record_name(card: VoiceCard) -> str:
    """File name of a voice's card: two of one owner cannot have the same name, because they would be the same file."""
    return f"{name_key(card.name, card.owner)}.json"


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at the records. cards: by file name, each with the text that changes when the file does. by_name: by
    owner and name.

    num_records: files there, also those that hold no card of ours.
    """

    cards: dict[str, tuple[str, VoiceCard]] = field(default_factory=dict)
    by_name: dict[tuple[str, str], VoiceCard] = field(default_factory=dict)
    by_id: dict[str, VoiceCard] = field(default_factory=dict)
    num_records: int = 0

    def find(self, wanted: str, owner: str) -> VoiceCard | None:
        """The voice of that id, else of that name; the owner's own name goes before everybody's."""
        card = self.by_id.get(wanted)
        if card is not None and card.may_be_seen_by(owner):
            return card
        return self.by_name.get((owner, wanted)) or self.by_name.get(("", wanted))

    def seen_by(self, owner: str) -> list[VoiceCard]:
        """Every voice that this owner may use; one of their own hides everybody's of the same name."""
        seen = [card for card in self.by_id.values() if card.may_be_seen_by(owner)]
        return [card for card in seen if card.owner == owner or (owner, card.name) not in self.by_name]


class VoiceRecords:
    """Safe to share between threads. clock: monotonic seconds."""

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._listed_at_s = self._tried_at_s = -float("inf")
        self._skipped: dict[str, str] = {}

    def recent(self) -> Listing:
        """A listing at most `POLL_S` old; the last one while another thread renews it or the store is out of reach.

        Raises NotReady when the store was never reached.
        """
        listing = self._listing
        if listing is None:
            return self.fresh()
        if self._clock() - self._tried_at_s > POLL_S and self._lock.acquire(blocking=False):
            try:
                listing = self._look()
            except NotReady:
                log.warning("voice store: out of reach, so voices are those of the last listing")
            finally:
                self._lock.release()
        return listing

    def fresh(self) -> Listing:
        """A listing begun after this call: all who wait for one share it. Raises NotReady."""
        asked_at_s = self._clock()
        with self._lock:
            if self._listing is not None and self._listed_at_s > asked_at_s:
                return self._listing
            return self._look()

    def expire(self) -> None:
        """Makes the next use look again: this replica has changed something."""
        self._tried_at_s = -float("inf")

    def quarantine(self, name: str, data: bytes, fault: str) -> None:
        """Sets a record aside, if it still holds `data`, and so frees its voice's name."""
        path, aside = f"{RECORDS}/{name}", f"{QUARANTINE}/{name}.{secrets.token_hex(4)}"
        log.error("voice store: the voice of %s is damaged (%s): set aside as %s", path, fault, aside)
        try:
            if self._folder.read(path) == data:
                self._folder.write(aside, data)
                self._folder.remove(path)
        except FileNotFoundError:
            pass  # another replica was faster
        except OSError as error:
            log.error("voice store: %s stays where it is: %s", path, error)

    def _look(self) -> Listing:
        """A new look, kept; only files that are new or changed are read. The lock is held."""
        known = self._listing or Listing()
        self._tried_at_s = began_at_s = self._clock()
        with plainly("read"):
            found = self._folder.entries(RECORDS)
        entries = {name: state for name, state in found.items() if name.endswith(".json")}
        listing = Listing(num_records=len(entries))
        for name, state in entries.items():
            old = known.cards.get(name)
            card = old[1] if old is not None and old[0] == state else self._read(name, state)
            if card is not None:
                listing.cards[name] = (state, card)
                listing.by_name[card.owner, card.name] = listing.by_id[card.id] = card
        self._listing, self._listed_at_s = listing, began_at_s
        return listing

    def _read(self, name: str, state: str) -> VoiceCard | None:
        if self._skipped.get(name) == state:
            return None
        try:
            data = self._folder.read(f"{RECORDS}/{name}")
            card = card_from_bytes(data)
            if record_name(card) == name:
                return card
            fault = "it belongs to another name"
        except FileNotFoundError:
            return None
        except OSError as error:  # tried again at the next look
            log.error("voice store: %s/%s cannot be read: %s", RECORDS, name, error)
            return None
        except NewerFormat:
            log.warning("voice store: %s/%s was written by a later version and is left alone", RECORDS, name)
            self._skipped[name] = state
            return None
        except DamagedCard as error:
            fault = str(error)
        self._skipped[name] = state
        self.quarantine(name, data, fault)
        return None


@contextmanager
def plainly(done: str, *answers: type[OSError]) -> Iterator[None]:
    """A failure of the storage as our own error; `answers` are no failures and pass. Raises StorageFull, NotReady."""
    try:
        yield
    except answers:
        raise
    except OSError as error:
        log.error("voice store: cannot be %s: %s", done, error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The voice store is full; delete a voice, or give it more room.") from error
        raise NotReady(f"The voice store cannot be {done} now; try again.") from error
