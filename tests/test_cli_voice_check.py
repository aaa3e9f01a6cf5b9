"""`cosyserve voices check`: the report on a clip, without a service."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from tests.preprocess.sounds import encoded
from tests.preprocess.spoiled import VOICES, mixed, noise, voice

WORDS = voice("clara")[1]


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["voices", "check", *arguments])


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    speech, _ = voice("clara")
    path = tmp_path / "noisy clip.wav"
    path.write_bytes(encoded(mixed(speech, noise("white", len(speech)), 5), 24_000))
    return path


def test_a_good_clip() -> None:
    ended = check(str(VOICES / "clara.wav"), "--transcript", WORDS, "--strict")
    assert ended.exit_code == 0, ended.output
    figures, verdict = ended.stdout.splitlines()
    assert figures.split(", ")[0].endswith(" s of speech")
    assert verdict == "no faults found"
    assert ended.stderr == ""


def test_a_noisy_clip_is_a_warning_in_plain_words(noisy: Path) -> None:
    ended = check(str(noisy), "--ref-text", WORDS)
    figures, *warnings = ended.stdout.splitlines()
    assert ended.exit_code == 0
    assert figures.endswith("denoised")
    assert any(line.startswith("warning: There is background noise") for line in warnings)
    assert check(str(noisy), "--strict").exit_code == 1


def test_json_is_one_line_for_each_clip(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text("#EXTM3U\nhttp://example.invalid/a.wav\n")
    paths = [str(VOICES / "clara.wav"), str(noisy), str(tmp_path / "list.m3u8"), str(tmp_path / "nowhere.wav")]
    ended = check("--json", "--denoise", "off", *paths)
    reports = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.exit_code == 1
    assert [report["clip"] for report in reports] == paths
    clean, spoiled, playlist, nowhere = reports
    assert (clean["warnings"], clean["denoised"], clean["second_speaker"]) == ([], False, False)
    assert clean["speech_s"] > 2 and clean["snr_db"] > 30 > spoiled["snr_db"]
    assert len(spoiled["warnings"]) == 1 and not spoiled["denoised"]
    assert "not an audio file" in playlist["error"]
    assert nowhere["error"] == "cannot be read: No such file or directory"


def test_several_clips_are_told_apart_and_one_that_cannot_be_used_fails(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "short.wav").write_bytes(encoded(np.full(2400, 0.1, np.float32), 24_000))
    ended = check(str(noisy), str(tmp_path / "short.wav"))
    assert ended.exit_code == 1
    assert all(line.startswith(f"{noisy}: ") for line in ended.stdout.splitlines())
    assert ended.stderr == (
        f"cosyserve: {tmp_path / 'short.wav'}: The reference clip lasts 0.10 s; at least 0.5 s are needed.\n"
    )


def test_wrong_usage(noisy: Path) -> None:
    assert check().exit_code == 2
    assert check(str(noisy), "--denoise", "perhaps").exit_code == 2
    ended = check(str(noisy), str(noisy), "--transcript", "words")
    assert ended.exit_code == 2 and "a transcript is of one clip" in ended.stderr


def test_it_works_in_a_pipe() -> None:
    command = [sys.executable, "-m", "serve_app.cli", "voices", "check", "-", "--json", "--transcript", WORDS]
    with (VOICES / "clara.wav").open("rb") as clip:
        ended = subprocess.run(command, stdin=clip, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stderr == ""
    report = json.loads(ended.stdout)
    assert (report["clip"], report["warnings"]) == ("-", [])


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.wav").open("wb") as file:
        file.truncate(2**40)
    ended = check(str(tmp_path / "huge.wav"))
    assert (ended.exit_code, ended.stderr.count("larger than 10 MiB")) == (1, 1)


def test_help_has_an_example() -> None:
    ended = check("--help")
    assert ended.exit_code == 0
    assert "cosyserve voices check anna.wav" in ended.stdout
    assert "Exit status" in ended.stdout
