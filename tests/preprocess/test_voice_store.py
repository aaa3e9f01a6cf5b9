"""The voice store, in a folder and in a bucket: what is stored is found, by everybody, whole, until it is deleted."""

import json
import logging
import os
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from serve_app.errors import CheckpointError, InvalidVoiceName, NotReady, VoiceExists, VoiceNotFound
from serve_app.messages import VoicePrompt
from serve_app.preprocess.prompt_file import DamagedPrompt, prompt_from_bytes, prompt_to_bytes
from serve_app.preprocess.voice_folder import BucketFolder, DiskFolder, Folder, open_folder
from serve_app.preprocess.voice_name import accepted_name, name_key
from serve_app.preprocess.voice_records import POLL_S
from serve_app.preprocess.voice_store import ORPHAN_AGE_S, VoiceStore
from tests.preprocess.stored_voices import same, voice, whole_voices


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return DiskFolder(tmp_path / "deep" / "voices")
    return open_folder(f"memory://voices-{uuid.uuid4()}/deep")


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


def damage(folder: Folder, path: str) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(folder.read(path))
    data[len(data) // 2] ^= 1
    folder.write(path, bytes(data))


def only_record(folder: Folder) -> str:
    (name,) = folder.entries("records")
    return f"records/{name}"


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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 1, "id": "../../etc"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_set_aside_and_named_and_frees_its_name(
    folder: Folder, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    store, other = VoiceStore(folder), VoiceStore(folder)
    store.add(*voice("Anna", 1))
    path = only_record(folder)
    folder.write(path, content)
    kept = store.add(*voice("Bob", 2))
    assert other.cards() == store.cards() == (kept,)
    assert path in caplog.text
    (aside,) = folder.entries("quarantine")
    assert folder.read(f"quarantine/{aside}") == content
    assert store.find(store.add(*voice("Anna", 3)).id).name == "Anna"


def test_a_record_that_names_another_voices_files_is_damaged(folder: Folder) -> None:
    store = VoiceStore(folder)
    card = store.add(*voice("Anna", 1))
    path = only_record(folder)
    hostile = json.loads(folder.read(path)) | {"id": "../../../../etc/passwd-in-32-chars"}
    folder.write(path, json.dumps(hostile).encode())
    assert VoiceStore(folder).cards() == ()
    folder.write(path, card.model_copy(update={"name": "Bob"}).to_bytes())
    assert VoiceStore(folder).cards() == ()
    assert len(folder.entries("quarantine")) == 2


def test_a_record_of_a_later_version_is_left_alone(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    store = VoiceStore(folder)
    store.add(*voice("Anna", 1))
    path = only_record(folder)
    later = json.dumps({"format": 2, "sounds": "better"}).encode()
    folder.write(path, later)
    other = VoiceStore(folder)
    assert other.cards() == other.cards() == ()
    assert caplog.text.count("later version") == 1
    assert folder.read(path) == later
    with pytest.raises(VoiceExists):
        other.add(*voice("Anna", 2))
    assert len(folder.entries("data")) == 1, "what could not be stored was taken away"


def test_a_damaged_prompt_is_made_anew_from_the_clip(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    store = VoiceStore(folder)
    new, prompt = voice("Anna")
    card = store.add(new, prompt)
    path = f"data/{card.id}/prompt-{prompt.key}.safetensors"
    damage(folder, path)
    assert store.prompt(card, prompt.key) is None
    assert path in caplog.text
    assert store.clip(card) == new.audio
    store.add_prompt(card, prompt)
    assert same(store.prompt(card, prompt.key), prompt)


def test_a_voice_whose_clip_is_damaged_or_missing_is_set_aside(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    store = VoiceStore(folder)
    damaged, missing, kept = (store.add(*voice(name, seed)) for seed, name in enumerate(("Anna", "Bob", "Carla")))
    damage(folder, f"data/{damaged.id}/clip.bin")
    folder.remove(f"data/{missing.id}/clip.bin")
    for card in (damaged, missing):
        with pytest.raises(VoiceNotFound, match="damaged"):
            store.clip(card)
        assert card.id in caplog.text
    assert store.cards() == VoiceStore(folder).cards() == (kept,)
    assert len(folder.entries("quarantine")) == 2
    assert set(folder.entries("data")) == {damaged.id, missing.id, kept.id}, "nothing is thrown away"


def test_a_voice_deleted_while_it_is_used_is_not_found(folder: Folder) -> None:
    store = VoiceStore(folder)
    card = store.add(*voice("Anna"))
    VoiceStore(folder).remove("Anna")
    assert store.prompt(card, card.prompt_key) is None
    with pytest.raises(VoiceNotFound, match="no voice"):
        store.clip(card)
    assert folder.entries("quarantine") == {}


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


def test_ages_and_removals_in_both_kinds_of_folder(folder: Folder) -> None:
    folder.write("data/a/1", b"x")
    assert -5 < folder.age_s("data/a") < 60
    assert -5 < folder.age_s("data/a/1") < 60
    with pytest.raises(FileNotFoundError):
        folder.age_s("data/b")
    folder.remove_all("data/b")
    folder.remove_all("data/a")
    assert folder.entries("data") == {}
    with pytest.raises(FileNotFoundError):
        folder.remove("data/a/1")


def test_a_bucket_driver_that_loses_against_itself_has_won() -> None:
    """A conditional write that is repeated after a lost answer is told that the object exists: it is its own."""
    files = fsspec.filesystem("memory")

    class Repeats:
        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

        def pipe_file(self, path: str, data: bytes, mode: str) -> None:
            files.pipe_file(path, data, mode=mode)
            raise OSError(22, "precondition failed")

    root = f"/repeats/{uuid.uuid4()}"
    BucketFolder(Repeats(), root).create("records/a", b"mine")
    with pytest.raises(FileExistsError):
        BucketFolder(Repeats(), root).create("records/a", b"yours")
    assert BucketFolder(files, root).read("records/a") == b"mine"


def test_a_cloud_clients_own_errors_are_failures_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    class Unreachable:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no credentials")

    with caplog.at_level(logging.ERROR), pytest.raises(NotReady):
        VoiceStore(BucketFolder(Unreachable(), "bucket/voices")).cards()
    assert "no credentials" in caplog.text


def test_urls(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        folder = open_folder(url)
        assert isinstance(folder, DiskFolder)
        folder.write("a/b", b"c")
    assert (tmp_path / "a/b").read_bytes() == b"c"
    with pytest.raises(CheckpointError, match="voice store"):
        open_folder("nosuchprotocol://bucket")


@pytest.mark.parametrize("name", ["a", "Anna B.", "Ünal", "小红", "Señor-1_x", "x" * 64, "v1.2", "e\u0301"])
def test_names(name: str) -> None:
    accepted = accepted_name(name)
    assert name_key(accepted) == name_key(name) == name_key(accepted.upper().lower())


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", " a", "a ", ".", "..", "a..b", "a/b", "a\\b", "x" * 65, "a\n", "\na", "a\tb", "a\0b", "a\u200bb"),
        *("\u202ea", "a\u00a0b", "a\u2028b", "\ud800", "a:b", "a%2fb", "😀", "a\u0301\u0301", "\ufeffa", "a\x7f"),
    ],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidVoiceName):
        accepted_name(name)


def test_every_bit_of_a_prompt_file_counts() -> None:
    _, prompt = voice("Anna")
    data = prompt_to_bytes(prompt)
    assert same(prompt_from_bytes(data, prompt.key), prompt)
    rng = np.random.default_rng(0)
    for position in [0, 7, *rng.integers(8, len(data), 60)]:
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        if bytes(changed) != data:
            with pytest.raises(DamagedPrompt):
                prompt_from_bytes(bytes(changed), prompt.key)
    for wrong, key in ((data[:-1], prompt.key), (b"", prompt.key), (data, "0" * 64)):
        with pytest.raises(DamagedPrompt):
            prompt_from_bytes(wrong, key)


def test_a_prompt_of_wrong_shapes_is_damaged() -> None:
    _, prompt = voice("Anna")
    short = VoicePrompt(prompt.key, prompt.transcript_ids, prompt.speech_ids[:2], prompt.mel, prompt.speaker)
    with pytest.raises(DamagedPrompt, match="shapes"):
        prompt_from_bytes(prompt_to_bytes(short), prompt.key)
