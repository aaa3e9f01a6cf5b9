"""What the voice store is made of: folders on disks and in buckets, names, and files of prompts."""

import logging
import uuid
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from serve_app.errors import CheckpointError, InvalidVoiceName, NotReady
from serve_app.messages import VoicePrompt
from serve_app.preprocess.prompt_file import DamagedPrompt, prompt_from_bytes, prompt_to_bytes
from serve_app.preprocess.voice_folder import BucketFolder, DiskFolder, Folder, open_folder
from serve_app.preprocess.voice_name import accepted_name, name_key
from serve_app.preprocess.voice_store import VoiceStore
from tests.preprocess.stored_voices import same, voice


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
