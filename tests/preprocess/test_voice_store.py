"""The voice store, in a folder and in a bucket: what is stored is found, by everybody, whole, until it is deleted."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import NotReady, VoiceExists, VoiceNotFound
from serve_app.preprocess.voice_folder import DiskFolder, Folder
from serve_app.preprocess.voice_records import POLL_S
from serve_app.preprocess.voice_store import ORPHAN_AGE_S, VoiceStore
from tests.preprocess.stored_voices import same, voice, whole_voices


class Watched:
    """A folder that counts what it is asked; `out_of_reach` makes every answer a failure."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.asked: Counter[str] = Counter()
        self.out_of_reach = False

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        if self.out_of_reach:
            raise TimeoutError("no answer")
        return getattr(self._folder, name)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_is_stored_is_found_by_id_and_name_in_another_replica(folder: Folder) -> None:
    new, prompt = voice("Ünal", 1)
    added = VoiceStore(folder).add(new, prompt)
    other = VoiceStore(folder)
    card = other.find("Ünal")
    assert card == added == other.find(added.id)
    assert other.cards() == (added,)
    assert other.clip(card) == new.audio
    assert same(other.prompt(card, prompt.key), prompt)
    assert other.prompt(card, "0" * 64) is None
    info = card.info
    assert (info.id, info.name, info.builtin, info.language) == (added.id, "Ünal", False, "en")
    assert "nal" not in card.id, "an id says nothing of the name"
    with pytest.raises(VoiceNotFound):
        other.find("unal")


def test_names_differ_in_more_than_case_and_accents_written_otherwise(folder: Folder) -> None:
    store = VoiceStore(folder)
    store.add(*voice("Straße é"))
    for name in ("straße é", "STRASSE É", "Stra\u00dfe e\u0301"):
        with pytest.raises(VoiceExists):
            store.add(*voice(name, 1))
        with pytest.raises(VoiceExists):
            store.check_free(name)
    store.add(*voice("Strase é", 2))
    assert whole_voices(store) == {"Straße é", "Strase é"}


def test_an_id_wins_over_a_name(folder: Folder) -> None:
    store = VoiceStore(folder)
    first = store.add(*voice("Anna", 1))
    second = store.add(*voice(first.id, 2))
    assert store.find(first.id) == first
    store.remove(first.id)
    assert store.find(first.id) == second


def test_a_deleted_voice_is_gone_with_its_files_and_its_name_is_free(folder: Folder) -> None:
    store, other = VoiceStore(folder), VoiceStore(folder)
    store.add(*voice("Anna", 1))
    kept = store.add(*voice("Bob", 2))
    other.remove("Anna")
    assert list(folder.entries("data")) == [kept.id]
    for either in (store, other):
        assert either.cards() == (kept,)
        with pytest.raises(VoiceNotFound):
            either.remove("Anna")
    again = other.add(*voice("Anna", 3))
    assert store.find("Anna") == again


def test_others_changes_are_seen_within_a_second_at_one_look_a_poll(folder: Folder) -> None:
    clock, watched = Clock(), Watched(folder)
    store, other = VoiceStore(watched, clock), VoiceStore(folder)
    card = other.add(*voice("Anna", 1))
    for _ in range(50):
        assert store.find("Anna") == card
    assert watched.asked["entries"] == 1
    assert watched.asked["read"] == 1
    new = other.add(*voice("Bob", 2))
    assert store.find("Bob") == new, "what is missing is looked for again at once"
    other.remove("Anna")
    assert store.find("Anna") == card
    clock.now_s += POLL_S + 0.01
    with pytest.raises(VoiceNotFound):
        store.find("Anna")
    assert store.find("Bob") == new
    assert watched.asked["read"] == 2, "a card that has not changed is not read again"
    assert POLL_S <= 0.6


def test_a_voice_replaced_under_the_same_name_is_seen(folder: Folder) -> None:
    clock = Clock()
    store, other = VoiceStore(folder, clock), VoiceStore(folder)
    other.add(*voice("Anna", 1))
    store.find("Anna")
    other.remove("Anna")
    newer = other.add(*voice("Anna", 2))
    clock.now_s += POLL_S + 0.01
    assert store.find("Anna") == newer


def test_a_store_out_of_reach_keeps_known_voices_and_denies_none(folder: Folder) -> None:
    clock, watched = Clock(), Watched(folder)
    store = VoiceStore(watched, clock)
    watched.out_of_reach = True
    for ask in (store.cards, lambda: store.find("Anna"), lambda: store.add(*voice("Anna"))):
        with pytest.raises(NotReady):
            ask()
    watched.out_of_reach = False
    card = store.add(*voice("Anna"))
    assert store.find("Anna") == card
    watched.out_of_reach = True
    for _ in range(3):
        clock.now_s += POLL_S + 0.01
        assert store.find("Anna") == card
        assert store.cards() == (card,)
        with pytest.raises(NotReady):
            store.find("Bob")
    with pytest.raises(NotReady):
        store.remove("Anna")
    watched.out_of_reach = False
    store.remove("Anna")


def test_the_sweep_takes_what_crashes_left_a_day_ago_and_nothing_else(tmp_path: Path) -> None:
    folder = DiskFolder(tmp_path)
    store = VoiceStore(folder)
    kept = store.add(*voice("Anna", 1))
    for path in ("data/voice_old/clip.bin", "data/voice_new/clip.bin", "incoming/old", "incoming/new"):
        folder.write(path, b"left")
    (tmp_path / "data/voice_empty").mkdir()
    long_ago_s = folder.age_s("incoming/old") + ORPHAN_AGE_S + 60
    for name in ("data/voice_old/clip.bin", "data/voice_old", "data/voice_empty", "incoming/old", f"data/{kept.id}"):
        at_s = (tmp_path / name).stat().st_mtime - long_ago_s
        for aged in [tmp_path / name, *(tmp_path / name).glob("*")]:
            os.utime(aged, (at_s, at_s))
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine/some").write_bytes(b"{")
    VoiceStore(folder).sweep()
    assert set(folder.entries("data")) == {"voice_old", "voice_new", "voice_empty", kept.id}
    (tmp_path / "quarantine/some").unlink()
    VoiceStore(folder).sweep()
    assert set(folder.entries("data")) == {"voice_new", kept.id}
    assert set(folder.entries("incoming")) == {"new"}
    assert whole_voices(store) == {"Anna"}


def test_a_sweep_that_cannot_work_stops_nobody(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(folder)
    watched.out_of_reach = True
    VoiceStore(watched).sweep()
    assert "tidied up" in caplog.text
