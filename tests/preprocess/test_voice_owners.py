"""Voices that belong to one owner: for everybody else they are not there, and what everybody has stays everybody's."""

import json
from dataclasses import replace

import pytest

from serve_app.errors import BuiltinVoice, VoiceExists, VoiceNotFound
from serve_app.preprocess.voice_card import VoiceCard
from serve_app.preprocess.voice_folder import Folder
from serve_app.preprocess.voice_records import RECORDS, record_name
from serve_app.preprocess.voice_store import VoiceStore
from tests.preprocess.stored_voices import voice

ANN, BEN, EVERYBODY = "owner-a", "owner-b", ""


def add(store: VoiceStore, name: str, owner: str, seed: int = 0) -> VoiceCard:
    new, prompt = voice(name, seed)
    return store.add(replace(new, owner=owner), prompt)


def names(store: VoiceStore, owner: str) -> list[str]:
    return [card.name for card in store.cards(owner)]


def test_an_owned_voice_is_there_for_its_owner_alone(folder: Folder) -> None:
    store = VoiceStore(folder)
    mine, shared = add(store, "Secret", ANN), add(store, "Shared", EVERYBODY)
    other = VoiceStore(folder)
    assert {card.id for card in other.cards(ANN)} == {mine.id, shared.id}
    assert other.find("Secret", ANN) == other.find(mine.id, ANN) == mine
    for stranger in (BEN, EVERYBODY):
        assert names(other, stranger) == ["Shared"]
        assert other.find("Shared", stranger) == shared
        for wanted in ("Secret", mine.id):
            with pytest.raises(VoiceNotFound) as unseen:
                other.find(wanted, stranger)
            with pytest.raises(VoiceNotFound) as absent:
                other.find("voice_never_was", stranger)
            assert unseen.value.message == absent.value.message
            with pytest.raises(VoiceNotFound):
                other.remove(wanted, stranger)
    assert names(store, ANN) == names(other, ANN)


def test_a_name_taken_by_another_owner_is_free(folder: Folder) -> None:
    store = VoiceStore(folder)
    of_ann, of_ben = add(store, "Anna", ANN, 1), add(store, "anna", BEN, 2)
    assert store.find("Anna", ANN) == of_ann
    assert store.find("anna", BEN) == of_ben
    with pytest.raises(VoiceExists):
        add(store, "ANNA", ANN, 3)
    add(store, "Anna", EVERYBODY, 4)
    assert store.find("Anna", ANN) == of_ann, "one's own goes first"
    assert names(store, ANN) == ["Anna"]
    store.remove("Anna", ANN)
    assert store.find("Anna", ANN).owner == EVERYBODY
    with pytest.raises(VoiceExists):
        add(store, "Anna", ANN, 5)


def test_what_is_everybodys_is_not_one_owners_to_delete(folder: Folder) -> None:
    store = VoiceStore(folder)
    shared = add(store, "Shared", EVERYBODY)
    for wanted in ("Shared", shared.id):
        with pytest.raises(BuiltinVoice):
            store.remove(wanted, ANN)
    store.remove("Shared", EVERYBODY)
    assert names(store, ANN) == []


def test_a_program_that_knows_no_owners_would_leave_the_card_alone(folder: Folder) -> None:
    store = VoiceStore(folder)
    owned, shared = add(store, "Mine", ANN), add(store, "Shared", EVERYBODY)
    assert json.loads(folder.read(f"{RECORDS}/{record_name(owned)}"))["format"] == 2
    assert json.loads(folder.read(f"{RECORDS}/{record_name(shared)}"))["format"] == 1
