"""`cosyserve evaluate`: what is refused before anything is loaded, and the settings that are used."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.errors import CheckpointError
from serve_app.evaluate.command import EngineName, read_settings, read_stages
from serve_app.evaluate.speakers import read_speakers

LOCAL = Path(__file__).parents[2] / "configs/local.yaml"


def test_the_yaml_decides_unless_the_command_line_does(tmp_path: Path) -> None:
    plain = read_settings(LOCAL, None, None, None, tmp_path)
    assert plain.checkpoint == Path("pretrained_models/cosyvoice2-demo")
    assert (plain.synthesis.engine, plain.synthesis.threads) == ("streaming", 1)
    other = read_settings(LOCAL, tmp_path, EngineName.reference, 2, tmp_path)
    assert (other.checkpoint, other.synthesis.engine, other.synthesis.threads) == (tmp_path, "reference", 2)
    assert other.synthesis.max_streams == plain.synthesis.max_streams
    assert Path(other.preprocess.voice_store).is_relative_to(tmp_path)


@pytest.mark.parametrize("content", ["", "applications: []", "applications: [{args: {chekpoint: x}}]", "{", "[1]"])
def test_a_yaml_that_is_not_sound_is_one_line(tmp_path: Path, content: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(content)
    result = CliRunner().invoke(app, ["evaluate", "--config", str(config)])
    assert result.exit_code == 1
    assert "cosyserve check" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_wrong_usage_has_its_own_status(tmp_path: Path) -> None:
    for arguments in (["--config", str(tmp_path / "none.yaml")], ["--sentences", "-1"], ["--speakers", "none"]):
        assert CliRunner().invoke(app, ["evaluate", *arguments]).exit_code == 2


def test_a_checkpoint_that_is_not_one_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--config", str(LOCAL), "--checkpoint", str(tmp_path)])
    assert result.exit_code == 1 and "cosyserve: " in result.stderr and "Traceback" not in result.output


def test_speakers_are_read_with_their_transcripts(tmp_path: Path) -> None:
    (tmp_path / "ann.yaml").write_text(yaml.safe_dump({"transcript": "Hello."}))
    with pytest.raises(CheckpointError, match=r"ann\.wav"):
        read_speakers(tmp_path)
    (tmp_path / "ann.ogg").write_bytes(b"sound")
    (speaker,) = read_speakers(tmp_path)
    assert (speaker.name, speaker.reference.transcript, speaker.reference.audio) == ("ann", "Hello.", b"sound")
    (tmp_path / "bob.yaml").write_text("words: none")
    (tmp_path / "bob.wav").write_bytes(b"sound")
    with pytest.raises(CheckpointError, match=r"bob\.yaml"):
        read_speakers(tmp_path)
    with pytest.raises(CheckpointError, match="no speakers"):
        read_speakers(tmp_path / "empty")


def test_stages_of_the_recipe_are_optional(tmp_path: Path) -> None:
    assert read_stages(tmp_path) == {"teacher_wer": None, "tokens_wer": None, "stages_date": None}
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/stages.json").write_text(
        '{"teacher_wer": 0.02, "tokens_wer": 0.1, "stages_date": "2026-11-22"}'
    )
    assert read_stages(tmp_path)["teacher_wer"] == 0.02
