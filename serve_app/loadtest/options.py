"""What was asked for on the command line, and whether it makes sense together."""

from dataclasses import dataclass
from pathlib import Path

from serve_app.loadtest.faults import LoadTestError

MAX_CLIENTS = 900
MAX_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `cosyserve loadtest`; None is "not given". Every constructed one is consistent.

    Errors: `LoadTestError`, in words of the command line.
    """

    url: str
    clients: int | None = None
    rate: float | None = None
    burst: int | None = None
    ramp_to: float | None = None
    replay: Path | None = None
    requests: int | None = None
    seconds: float | None = None
    warmup: int = 0
    arrival_seed: int = 0
    goal: str | None = None
    search: bool = False
    preset: str | None = None
    text: str | None = None
    text_file: Path | None = None
    model: str = "tts-1"
    voice: str | None = None
    instructions: str = ""
    audio_format: str = "pcm"
    sample_rate: int = 24_000
    ref_audio: Path | None = None
    ref_text: str = ""
    api_key: str = ""
    timeout: float = 30.0
    prebuffer_ms: int = 0
    csv: Path | None = None
    plots: Path | None = None

    def __post_init__(self) -> None:
        given = [
            name
            for name, value in (("--clients", self.clients), ("--rate", self.rate), ("--replay", self.replay))
            if value is not None
        ]
        if len(given) > 1:
            raise LoadTestError(f"{' and '.join(given)} exclude each other")
        self._check_pattern()
        self._check_search()
        if self.preset is not None and (given or self.text is not None or self.text_file is not None):
            raise LoadTestError("--preset has its own clients and text; only its --requests and --seconds can be given")
        if self.text is not None and self.text_file is not None:
            raise LoadTestError("--text and --text-file exclude each other")
        if self.ref_text and self.ref_audio is None:
            raise LoadTestError("--ref-text is the transcript of --ref-audio, which is missing")
        if self.seconds is not None and not 0 < self.seconds <= MAX_SECONDS:
            raise LoadTestError("--seconds is above 0 and at most a day")
        if self.clients is not None and self.clients > MAX_CLIENTS:
            raise LoadTestError(f"--clients is at most {MAX_CLIENTS}; start several testers for more")

    def _check_pattern(self) -> None:
        if self.rate is None and (self.burst is not None or self.ramp_to is not None):
            raise LoadTestError("--burst and --ramp-to shape the arrivals of --rate, which is missing")
        if self.burst is not None and self.ramp_to is not None:
            raise LoadTestError("--burst and --ramp-to exclude each other")

    def _check_search(self) -> None:
        if not self.search:
            return
        if self.goal is None:
            raise LoadTestError("--search needs a --goal, such as 'p95 ttfa < 300ms, continuity >= 99%'")
        if self.preset is not None or self.replay is not None or self.ramp_to is not None:
            raise LoadTestError("--search varies --clients or --rate; it takes no --preset, --replay or --ramp-to")
