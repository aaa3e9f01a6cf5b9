"""Fixtures for the front end: one toy checkpoint for the whole run, and places for a voice store."""

import uuid
from pathlib import Path

import pytest

from serve_app.preprocess.toy_frontend import write_frontend
from serve_app.preprocess.voice_folder import DiskFolder, Folder, open_folder


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory with the front end's files alone."""
    directory = tmp_path_factory.mktemp("frontend")
    write_frontend(directory, "toy")
    return directory


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A place for a voice store, of either kind."""
    if request.param == "disk":
        return DiskFolder(tmp_path / "deep" / "voices")
    return open_folder(f"memory://voices-{uuid.uuid4()}/deep")
