"""Hostile input by families, against the real parsers, the real decoders and the real HTTP edge: outcomes are counted.

A family draws its inputs from a seed and says what became of each one. What must never be is an outcome of its own:
`5xx`, `hang`, `leak`, `crash`. Deliberate refusals (4xx, 503, 507, our own errors) are as good as success.
"""

import asyncio
import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from serve_app.errors import InvalidAudio, InvalidVoiceName, SpeechError
from serve_app.model.faults import CheckpointFault
from serve_app.model.plain_yaml import PlainYaml
from serve_app.preprocess.markup import read_markup
from serve_app.preprocess.normalize import clean, normalize
from serve_app.preprocess.reference_audio import decode
from serve_app.preprocess.voice_name import accepted_name
from tests.chaos.hostile_http import abused_api
from tests.chaos.hostile_text import nasty_name, nasty_ssml, nasty_text, nasty_yaml
from tests.chaos.listeners import until_served
from tests.chaos.results import Table
from tests.chaos.target import running
from tests.preprocess.bombs import matroska_with_packed_track, mp3_with_packed_tag, wav_with_packed_tag

BAD = ("5xx", "hang", "leak", "crash", "escaped")
MAX_REAL = 150
SLOW_S = 20.0
"""Far above what any input here takes, also on a busy machine: what takes longer hangs."""


@dataclass
class Family:
    """What became of one family's inputs."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    culprits: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.outcomes.total()

    @property
    def num_bad(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith(BAD))

    def judge(
        self, case: str, act: Callable[[], object], expected: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        """Runs one input: it is taken, refused as expected, or one of the outcomes that must never be."""
        started_s = time.monotonic()
        try:
            act()
            outcome = "taken"
        except expected as error:
            outcome = f"refused: {type(error).__name__}"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome = f"crash: {type(error).__name__}"
        if time.monotonic() - started_s > SLOW_S:
            outcome = "hang"
        self.outcomes[outcome] += 1
        if outcome.startswith(BAD):
            self.culprits.append(f"{outcome} {case[:200]!r}")


def decoders(number: int, seed: int = 0) -> Family:
    """Sound files of every container we take, cut, spliced, bit-flipped, with lengths that lie, and bombs."""
    family = Family("audio decoders: mutated files, bombs")
    draw = random.Random(seed)
    originals = sound_files()
    for index in range(number):
        name, data = originals[index % len(originals)]
        mutant = mutated(data, draw)
        family.judge(f"{name} {index}", lambda mutant=mutant: decode(mutant), InvalidAudio)  # type: ignore[misc]
    for name, bomb in bombs():
        family.judge(name, lambda bomb=bomb: decode(bomb), InvalidAudio)  # type: ignore[misc]
    return family


def sound_files() -> list[tuple[str, bytes]]:
    """A second of noise in each coding that libsndfile can write, and what PyAV writes besides."""
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    files = []
    for container, subtype in (
        *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_16")),
        *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("W64", "PCM_16"), ("AIFF", "PCM_16")),
    ):
        file = io.BytesIO()
        soundfile.write(file, samples, 16_000, format=container, subtype=subtype)
        files.append((f"{container} {subtype}", file.getvalue()))
    return files


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to eight changes, most of them where the headers are."""
    raw = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(min(len(raw), 200) if draw.random() < 0.7 else len(raw))
        kind = draw.randrange(6)
        if kind == 0:
            raw[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            raw[place : place + 4] = draw.choice(
                [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff\x7f"]
            )
        elif kind == 2:
            del raw[place:]
        elif kind == 3:
            raw[place:place] = draw.randbytes(draw.randint(1, 64))
        elif kind == 4:
            del raw[place : place + draw.randint(1, 64)]
        else:
            raw += raw[: draw.randint(1, len(raw) or 1)]
        if not raw:
            return b""
    return bytes(raw)


def bombs() -> list[tuple[str, bytes]]:
    """Small files that unpack to hours, playlists that name addresses, and archives."""
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(192_000 * 600, np.int16), 192_000, format="FLAC")
    tiny = io.BytesIO()
    soundfile.write(tiny, np.zeros(8_000, np.int16), 8_000, format="WAV")
    claims_hours = bytearray(tiny.getvalue())
    claims_hours[40:44] = b"\xf0\xff\xff\xff"
    return [
        ("flac of ten silent minutes", silence.getvalue()),
        ("wav that claims 4 GiB", bytes(claims_hours)),
        ("hls playlist", b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/secret\n"),
        ("concat list", b"ffconcat version 1.0\nfile '/etc/passwd'\n"),
        ("xml bomb", b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]><l>&b;</l>'),
        ("zip", b"PK\x03\x04" + bytes(1000)),
        ("gzip", b"\x1f\x8b\x08" + bytes(1000)),
        ("mp3 whose tag unpacks to 268 MB", mp3_with_packed_tag(1)),
        ("wav whose tag unpacks to 268 MB", wav_with_packed_tag()),
        ("matroska whose second track unpacks to 180 MB", matroska_with_packed_track(20)),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    ]


def texts(number: int, seed: int = 0) -> Family:
    """Markup, SSML and the readings of figures, from text of every script, broken tags and endless repetitions."""
    family = Family("text and SSML parsers")
    draw = random.Random(seed)
    for index in range(number):
        text = nasty_ssml(draw) if index % 2 else nasty_text(draw)

        def read(text: str = text) -> None:
            cleaned = clean(text)
            read_markup(cleaned)
            normalize(cleaned)

        family.judge(text, read, SpeechError)
    return family


def yaml_files(folder: Path, number: int, seed: int = 0) -> Family:
    """A checkpoint's YAML: tags that would construct objects, arithmetic that would run code, aliases that explode."""
    family = Family("checkpoint YAML")
    draw = random.Random(seed)
    canary = folder / "canary"
    for _ in range(number):
        text = nasty_yaml(draw, canary)
        path = folder / "cosyvoice2.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        family.judge(text, lambda path=path: read_all(path), CheckpointFault)  # type: ignore[misc]
        if canary.exists():
            family.outcomes["escaped: code ran"] += 1
            family.culprits.append(text)
            canary.unlink()
    return family


def read_all(path: Path) -> None:
    """Every kind of value, as the checkpoint reader asks for them. Raises the first fault, after all were asked for."""
    recipe = PlainYaml.read(path)
    faults = []
    for place in ("x", "a", "e.0", "llm.in_features"):
        for ask in (recipe.integer, recipe.number, recipe.text, recipe.integers, recipe.integer_lists):
            try:
                ask(place)
            except CheckpointFault as fault:
                faults.append(fault)
    if faults:
        raise faults[0]


def names(number: int, seed: int = 0) -> Family:
    """Names of voices: what is accepted is never a path, a control or a format character."""
    family = Family("voice names: traversal, unicode, surrogates")
    draw = random.Random(seed)

    def check(name: str) -> None:
        accepted = accepted_name(name)
        harmless = "/" not in accepted and "\\" not in accepted and ".." not in accepted and accepted.isprintable()
        assert harmless, "a name that is a path"

    for _ in range(number):
        name = nasty_name(draw)
        family.judge(name, lambda name=name: check(name), InvalidVoiceName)  # type: ignore[misc]
    return family


def hostile_table(number: int, seed: int) -> Table:
    """The empty table."""
    columns = ("family", "tried", "crash, hang, leak, escape, 5xx", "outcomes", "seconds")
    return Table("Hostile input", f"python -m tests.chaos hostile --number {number} --seed {seed}", columns)


def run_hostile(number: int, seed: int, table: Table) -> None:
    """A row for each family, `number` inputs each (the HTTP ones as many as there are shapes, repeated): against the
    parsers, against our edge alone, and at most `MAX_REAL` through Ray's own proxy against a whole service.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        makers: tuple[Callable[[], list[Family]], ...] = (
            lambda: [decoders(number, seed)],
            lambda: [texts(number, seed)],
            lambda: [yaml_files(Path(folder), number, seed)],
            lambda: [names(number, seed)],
            lambda: [counted(f"our edge: {name}", found) for name, found in at_edge(number, seed).items()],
            lambda: [counted(f"Ray's proxy: {name}", found) for name, found in at_service(number, seed).items()],
        )
        for make in makers:
            started_s = time.monotonic()
            made = make()
            for family in made:
                add_family(family, (time.monotonic() - started_s) / len(made), table)
    table.remarks.append("Where rows share their origin (our edge, Ray's proxy), so do they the time that they took.")


def add_family(family: Family, seconds: float, table: Table) -> None:
    """One row. What must never be is a broken bound, with the first of its culprits."""
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in family.outcomes.most_common())
    table.add(family.name, family.tried, family.num_bad, outcomes, f"{seconds:.0f}")
    for culprit in family.culprits[:5]:
        table.require(False, culprit)


def at_edge(number: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """The HTTP families against our edge over a fake service."""
    return asyncio.run(abused_api(number, seed))


def at_service(number: int, seed: int) -> dict[str, list[tuple[str, str]]]:
    """The HTTP families against a whole service, which afterwards holds what it held before and speaks."""
    with running() as service:
        found = asyncio.run(abused_api(min(number, MAX_REAL), seed, service.url))
        num_open = service.num_open_streams()  # raises if a slot is lost
        asyncio.run(until_served(service.url, time.monotonic(), timeout_s=SLOW_S))
        found["streams left open"] = [("after everything", "leak" if num_open else "none")]
    return found


def counted(name: str, outcomes: list[tuple[str, str]]) -> Family:
    """A family from pairs of case and outcome."""
    family = Family(name, Counter(outcome for _, outcome in outcomes))
    family.culprits = [f"{outcome} {case[:200]!r}" for case, outcome in outcomes if outcome.startswith(BAD)]
    return family
