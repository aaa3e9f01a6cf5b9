"""Speaker vectors of spk2info.pt become a file that needs no torch to read."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.model.faults import CheckpointFault
from serve_app.model.speakers import CONVERTED_FILE, SOURCE_FILE, convert_speakers


def save(directory: Path, **voices: object) -> None:
    torch.save(voices, directory / SOURCE_FILE)


def converted(directory: Path) -> dict[str, np.ndarray]:
    with np.load(directory / CONVERTED_FILE, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_vectors_are_written_once_as_they_are(tmp_path: Path) -> None:
    vector = torch.randn(1, 192)
    save(tmp_path, lin={"embedding": vector.half(), "speech_feat": torch.zeros(1, 3, 80)}, 中文女={"embedding": vector})
    assert convert_speakers(tmp_path)
    voices = converted(tmp_path)
    assert set(voices) == {"lin", "中文女"}
    np.testing.assert_array_equal(voices["中文女"], vector[0].numpy())
    assert voices["lin"].shape == (192,) and voices["lin"].dtype == np.float32
    written = (tmp_path / CONVERTED_FILE).stat().st_mtime_ns
    assert convert_speakers(tmp_path) and (tmp_path / CONVERTED_FILE).stat().st_mtime_ns == written


def test_a_newer_source_is_converted_again(tmp_path: Path) -> None:
    save(tmp_path, a={"embedding": torch.zeros(192)})
    convert_speakers(tmp_path)
    save(tmp_path, b={"embedding": torch.zeros(192)})
    os.utime(tmp_path / CONVERTED_FILE, ns=(0, 0))
    assert convert_speakers(tmp_path) and set(converted(tmp_path)) == {"b"}


def test_a_checkpoint_without_such_voices_is_left_alone(tmp_path: Path) -> None:
    assert not convert_speakers(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [3, {"speech_token": torch.zeros(1)}, {"embedding": [0.0]}])
def test_a_voice_without_a_vector_is_named(tmp_path: Path, value: object) -> None:
    save(tmp_path, strange=value)
    with pytest.raises(CheckpointFault, match="strange has no speaker vector"):
        convert_speakers(tmp_path)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("payload-ran",))


def test_a_pickle_payload_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"voice": Payload()}, tmp_path / SOURCE_FILE)
    with pytest.raises(CheckpointFault, match="cannot be read safely"):
        convert_speakers(tmp_path)
    assert not Path("payload-ran").exists()
    pickle.loads(pickle.dumps(Payload()))  # a working one: the unrestricted unpickler runs it
    assert Path("payload-ran").is_dir()
