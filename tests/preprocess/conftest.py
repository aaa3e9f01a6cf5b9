"""Fixtures for the front end: one toy checkpoint for the whole run."""

from pathlib import Path

import pytest

from serve_app.preprocess.toy_frontend import write_frontend


@pytest.fixture(scope="session")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory with the front end's files alone."""
    directory = tmp_path_factory.mktemp("frontend")
    write_frontend(directory, "toy")
    return directory
