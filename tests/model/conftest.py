"""The three networks at toy size with random weights, on disk, for every test of `model/`."""

from pathlib import Path

import pytest

from serve_app.model.checkpoint import Checkpoint, load_checkpoint
from serve_app.model.toy_checkpoint import write_networks


@pytest.fixture(scope="session")
def toy_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory without tokenizer and ONNX files. Not to be changed by a test: copy it first."""
    directory = tmp_path_factory.mktemp("networks")
    write_networks(directory, "toy")
    return directory


@pytest.fixture(scope="session")
def toy_tensors(toy_networks: Path) -> Checkpoint:
    """The same, loaded."""
    return load_checkpoint(toy_networks)
