"""One parser under atheris: `python -m tests.chaos.fuzz_target NAME SECONDS FOLDER`. libFuzzer ends the process."""

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["serve_app"]):
    from serve_app.api.error_table import ApiError
    from serve_app.api.schema import parse_speech
    from serve_app.config import ApiConfig
    from serve_app.errors import InvalidAudio, SpeechError
    from serve_app.model.faults import CheckpointFault
    from serve_app.preprocess.markup import read_markup
    from serve_app.preprocess.normalize import clean, normalize
    from serve_app.preprocess.reference_audio import decode
    from tests.chaos.hostile import bombs, read_all, sound_files
    from tests.chaos.hostile_http import bodies
    from tests.chaos.hostile_text import nasty_ssml, nasty_text, nasty_yaml

NUM_SEEDS = 40
Target = tuple[Callable[[bytes], None], list[bytes]]


def text_target(draw: random.Random) -> Target:
    """Markup, SSML and the reading of figures."""

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "surrogatepass" if data[:1] < b"\x80" else "replace")[:1000]
        cleaned = clean(text)
        read_markup(cleaned)
        normalize(cleaned)

    seeds = [make(draw).encode("utf-8", "surrogatepass") for make in (nasty_text, nasty_ssml) for _ in range(NUM_SEEDS)]
    return allowing((SpeechError, UnicodeDecodeError), read), seeds


def yaml_target(draw: random.Random, folder: Path) -> Target:
    """A checkpoint's YAML."""
    path = folder / "cosyvoice2.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_all(path)

    seeds = [nasty_yaml(draw, folder / "canary").encode("utf-8", "surrogatepass") for _ in range(NUM_SEEDS)]
    return allowing((CheckpointFault,), read), seeds


def body_target(draw: random.Random) -> Target:
    """The JSON of a request for speech."""
    config = ApiConfig()
    return allowing((SpeechError, ApiError), lambda data: parse_speech(data, config, "id")), bodies(draw)


def audio_target() -> Target:
    """Sound files; of the decoders only what is Python is watched."""
    seeds = [data for _, data in sound_files()] + [data for name, data in bombs() if len(data) < 100_000]
    return allowing((InvalidAudio,), decode), seeds


def allowing(expected: tuple[type[Exception], ...], act: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The act, whose refusals are no crashes."""

    def once(data: bytes) -> None:
        try:
            act(data)
        except expected:
            return

    return once


def main(name: str, seconds: int, folder: Path) -> None:
    draw = random.Random(0)
    makers: dict[str, Callable[[], Target]] = {
        "text": lambda: text_target(draw),
        "yaml": lambda: yaml_target(draw, folder),
        "body": lambda: body_target(draw),
        "audio": audio_target,
    }
    act, seeds = makers[name]()
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=100000", "-seed=1"]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={folder}/", str(corpus)], act)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
