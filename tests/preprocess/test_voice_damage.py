"""Damaged files in the voice store: named, set aside, and of no harm to other voices."""

import json

import pytest

from serve_app.errors import VoiceExists, VoiceNotFound
from serve_app.preprocess.voice_folder import Folder
from serve_app.preprocess.voice_store import VoiceStore
from tests.preprocess.stored_voices import same, voice


def damage(folder: Folder, path: str) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(folder.read(path))
    data[len(data) // 2] ^= 1
    folder.write(path, bytes(data))


def only_record(folder: Folder) -> str:
    (name,) = folder.entries("records")
    return f"records/{name}"


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
    later = json.dumps({"format": 3, "sounds": "better"}).encode()
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
