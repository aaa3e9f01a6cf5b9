"""What the real service shows of itself: metrics on the node's port, lines in the log, spans; joined by request."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Service, local_settings, start_service
from tests.promql import Wanted, alert_expressions, dashboard_queries, variable_queries, wanted

pytestmark = pytest.mark.service

SENTENCE = "The train leaves the station at half past seven every morning. "
GIVEN_BY_PROMETHEUS = {"instance"}
SPOKEN = {"told-pcm": {"response_format": "pcm"}, "told-mp3": {}, "told-sse": {"stream_format": "sse"}}
DEADLINE_S = 60

Samples = dict[str, list[tuple[dict[str, str], float]]]


@dataclass(frozen=True)
class Watched:
    """The service after a few requests, and what its metrics port then said."""

    service: Service
    samples: Samples
    num_heard: int

    def total(self, name: str, **labels: str) -> float:
        return sum(value for given, value in self.samples[name] if labels.items() <= given.items())

    def has_settled(self) -> bool:
        """Whether everything that was asked has ended, and been collected."""
        ended = self.total("ray_cosyserve_speeches_total") == len(SPOKEN) + 3  # invalid, refused, left
        idle = self.total("ray_cosyserve_in_flight") == self.total("ray_cosyserve_streams") == 0
        return ended and idle and self.total("ray_cosyserve_prefix_cache_total") >= self.num_heard

    def logs(self) -> Path:
        [folder] = Path(self.service.ray_folder).glob("**/session_latest/logs")
        return folder

    def lines_of(self, speech_id: str) -> dict[str, dict[str, Any]]:
        """Stage -> its line about a request."""
        found: dict[str, dict[str, Any]] = {}
        for path in self.logs().glob("serve/replica_*.log"):
            for line in path.read_text().splitlines():
                told = json.loads(line)
                if told.get("speech_id") == speech_id:
                    # Who is refused by the replica that knows the voice is put to the least loaded: told twice.
                    assert told["stage"] not in found or told["end"] == found[told["stage"]]["end"] == "refused"
                    found[told["stage"]] = told
        return found


def metrics_url(service: Service) -> str:
    """Where Ray's only node exports its metrics."""
    question = (
        f"import ray; ray.init({service.ray_address()!r}, namespace='serve', logging_level='error');"
        "[node] = ray.nodes();"
        "print('at', node['NodeManagerAddress'], node['MetricsExportPort'])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", question],
        check=True,
        env=service.ray_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    host, port = answer.stdout.split()[-2:]
    return f"http://{host}:{port}/metrics"


def scraped(url: str) -> Samples:
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(httpx.get(url, timeout=30, trust_env=False).text):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def ask(client: httpx.Client, speech_id: str, **fields: Any) -> httpx.Response:
    body = {"input": SENTENCE, "seed": 7, **fields}
    return client.post("/v1/audio/speech", json=body, headers={"x-request-id": speech_id})


def ask_while_another_listens(client: httpx.Client) -> None:
    """Its replica has one stream: the other has it."""
    heard, leave = threading.Event(), threading.Event()

    def listen() -> None:
        body = {"input": SENTENCE * 60, "response_format": "pcm"}
        with client.stream("POST", "/v1/audio/speech", json=body, headers={"x-request-id": "told-left"}) as response:
            for _ in response.iter_raw():
                heard.set()
                leave.wait(DEADLINE_S)
                return

    listening = threading.Thread(target=listen)
    listening.start()
    assert heard.wait(DEADLINE_S)
    assert ask(client, "told-refused", response_format="pcm").status_code == 429
    leave.set()
    listening.join()


@pytest.fixture(scope="module")
def watched(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    settings = local_settings(toy_checkpoint)
    settings["logging_config"] = {"encoding": "JSON", "enable_access_log": False}
    settings["tracing_config"] = {
        "enabled": True,
        "exporter_import_path": "serve_app.tracing:exporters",
        "sampling_ratio": 1.0,
    }
    settings["applications"][0]["args"]["synthesis"]["max_streams"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_EXPORTER", "console")
        service = start_service(tmp_path_factory.mktemp("watched"), settings)
    try:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, timeout=120) as client:
            for speech_id, fields in SPOKEN.items():
                assert ask(client, speech_id, **fields).status_code == 200
            assert ask(client, "told-invalid", voice="nobody").status_code == 400
            ask_while_another_listens(client)
        url, deadline = metrics_url(service), time.monotonic() + DEADLINE_S
        while True:  # Ray collects every few seconds
            watching = Watched(service, scraped(url), num_heard=len(SPOKEN) + 1)
            if watching.has_settled():
                break
            assert time.monotonic() < deadline, sorted(name for name in watching.samples if "cosyserve" in name)
            time.sleep(1)
        yield watching
    finally:
        service.stop()


def assert_exported(read: Wanted, samples: Samples) -> None:
    assert read.name in samples, f"nothing exports {read.name}"
    for labels, _ in samples[read.name]:
        assert read.labels - GIVEN_BY_PROMETHEUS <= set(labels), f"{read.name} has {set(labels)}"


def test_every_query_of_the_dashboard_reads_what_is_exported(watched: Watched) -> None:
    for query in dashboard_queries():
        for read in wanted(query):
            assert_exported(read, watched.samples)
    for match in variable_queries():
        assert_exported(Wanted(match[1], frozenset({match[2]})), watched.samples)


def test_every_alert_reads_what_is_exported(watched: Watched) -> None:
    for expression in alert_expressions().values():
        for read in wanted(expression):
            assert_exported(read, watched.samples)


def test_figures_are_those_of_the_requests(watched: Watched) -> None:
    assert watched.total("ray_cosyserve_ttfa_seconds_count") == watched.num_heard
    assert watched.total("ray_cosyserve_speeches_total", end="spoken") == len(SPOKEN)
    for end in ("invalid", "refused", "left"):
        assert watched.total("ray_cosyserve_speeches_total", end=end) == 1
    assert watched.total("ray_cosyserve_refusals_total", reason="Overloaded") == 1
    assert watched.total("ray_cosyserve_errors_total", code="voice_not_found") == 1
    route = "/v1/audio/speech"
    assert watched.total("ray_cosyserve_requests_total", endpoint=route, format="mp3", status="200") == 1
    assert watched.total("ray_cosyserve_requests_total", endpoint=route, status="429") == 1
    mean_s = watched.total("ray_cosyserve_ttfa_seconds_sum") / watched.num_heard
    assert 0 < mean_s < DEADLINE_S
    assert watched.total("ray_cosyserve_in_flight") == watched.total("ray_cosyserve_streams") == 0
    assert watched.total("ray_cosyserve_engine_up") == 1
    assert watched.total("ray_cosyserve_audio_seconds_total") > watched.num_heard
    caches = (
        watched.total("ray_cosyserve_prefix_cache_total", result="hit"),
        watched.total("ray_cosyserve_prefix_cache_total", result="miss"),
    )
    assert caches[1] == 1 and caches[0] >= watched.num_heard - 1, "one voice, read once"


def test_no_label_holds_a_request(watched: Watched) -> None:
    values = {
        value
        for name, samples in watched.samples.items()
        if name.startswith("ray_cosyserve_")
        for labels, _ in samples
        for value in labels.values()
    }
    assert not [value for value in values if "told-" in value or "train" in value]


def test_the_lines_of_a_request_are_joined_by_its_id(watched: Watched) -> None:
    for speech_id in SPOKEN:
        lines = watched.lines_of(speech_id)
        assert {stage: line["end"] for stage, line in lines.items()} == {
            "ingress": "spoken",
            "preprocess": "prepared",
            "synthesis": "spoken",
        }
        assert {line["request_id"] for line in lines.values()} == {speech_id}, "Ray's own id is the same"
        assert lines["ingress"]["audio_s"] == lines["synthesis"]["audio_s"] > 1
        assert lines["ingress"]["ttfa_s"] >= lines["synthesis"]["first_sound_s"] > 0
        assert lines["ingress"]["prepare_s"] >= lines["preprocess"]["work_s"] > 0


def test_what_went_wrong_is_told_with_its_reason_and_nothing_of_the_text(watched: Watched) -> None:
    invalid, refused = watched.lines_of("told-invalid"), watched.lines_of("told-refused")
    assert invalid["preprocess"]["reason"] == invalid["ingress"]["reason"] == "VoiceNotFound"
    assert refused["synthesis"]["end"] == refused["ingress"]["end"] == "refused"
    assert invalid["http"]["code"] == "voice_not_found" and refused["http"]["code"] == "overloaded"
    assert watched.lines_of("told-left")["ingress"]["end"] == "left"
    everything = "".join(path.read_text() for path in watched.logs().glob("serve/replica_*.log"))
    assert "station" not in everything and "nobody" not in everything


def test_spans_of_a_request_are_of_one_trace(watched: Watched) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:  # they are exported in batches
        printed = "".join(path.read_text() for path in watched.logs().glob("worker-*.out"))
        spans = [json.loads(text) for text in re.findall(r"^\{.*?^\}", printed, re.MULTILINE | re.DOTALL)]
        ours = {span["name"]: span for span in spans if span["attributes"].get("cosyserve.speech_id") == "told-pcm"}
        if {"prepare", "speak"} <= set(ours):
            break
        assert time.monotonic() < deadline, sorted({span["name"] for span in spans})
        time.sleep(1)
    traces = {span["context"]["trace_id"] for span in ours.values()}
    assert len(traces) == 1
    handled = {span["name"] for span in spans if span["context"]["trace_id"] in traces}
    assert any("Preprocess prepare" in name for name in handled)
    assert any("Synthesis speak" in name for name in handled)
