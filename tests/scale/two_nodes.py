"""One of two nodes is removed under open-loop load: `python -m tests.scale.two_nodes`.

Replicas of every deployment are on both. What was spoken on the removed node breaks, visibly; every other request is
answered; what was lost is started again where there is room; a voice registered before is still there.
"""

import asyncio
import io
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from serve_app.loadtest.driver import OpenLoop
from serve_app.loadtest.schedule import poisson
from serve_app.loadtest.session import Run, Session
from serve_app.loadtest.target import Target, endpoint_of
from tests.scale.cluster import ServedCluster, deployment, served_cluster, settings_of, toy_checkpoint, wait_until
from tests.scale.listeners import Listener
from tests.scale.program import Figures, run_program

RATE_HZ = 0.6
BEFORE_S = 12.0
LOAD_S = 45.0
TEXT = "The train leaves at half past seven."
GRAPH = ("Ingress", "Preprocess", "Synthesis")
VOICES = ("clara", "helen", "martin", "nora")


def remove_a_node(scratch: Path) -> Figures:
    checkpoint = toy_checkpoint(scratch)
    with served_cluster({"num_cpus": 8}, {"num_cpus": 8}) as cluster:
        cluster.deploy(two_of_each(checkpoint, scratch / "voices"))
        cluster.wait_until_ready()
        for name in GRAPH:
            cluster.wait_for_replicas(name, 2)
        (victim,) = cluster.nodes.worker_nodes
        before = cluster.replicas()
        on_both = all(len({r.node for r in before if r.deployment == name}) == 2 for name in GRAPH)
        print(f"{len(before)} replicas; every deployment on both nodes: {on_both}", flush=True)
        voice = register_voice(cluster)
        long = [Listener(cluster.url, voice=each) for each in VOICES]  # some of them on the node that goes
        wait_until(lambda: all(each.is_listening for each in long), "long streams have begun", 120)
        loading = Loading(cluster.url)
        time.sleep(BEFORE_S)
        removed_s = loading.elapsed_s()
        cluster.nodes.remove_node(victim, allow_graceful=False)
        print(f"{removed_s:5.1f} s  node removed", flush=True)
        alive = {replica.node for replica in before} - {victim.node_id}
        wait_until(lambda: whole_again(cluster, alive), "two of each on the node that is left", 300)
        recovered_s = loading.elapsed_s() - removed_s
        print(f"{recovered_s + removed_s:5.1f} s  two of each again, on the node that is left", flush=True)
        run = loading.result()
        for each in long:
            each.leave()
            each.wait()
        long_broken = [each.problem for each in long if each.problem]
        print(f"{len(long)} long streams, broken: {long_broken}", flush=True)
        voices = [voice["name"] for voice in httpx.get(cluster.url + "/v1/audio/voices").json()["data"]]
        spoken = httpx.post(cluster.url + "/v1/audio/speech", json={"input": "Still here.", "voice": voice}, timeout=60)
    figures = told(run, removed_s)
    return figures | {
        "on_both_nodes": on_both,
        "long_streams": len(long),
        "long_broken": len(long_broken),
        "long_ended_too_soon": sum(each.ended for each in long),
        "recovered_s": round(recovered_s, 1),
        "voice_is_listed": voice in voices,
        "voice_speaks": spoken.status_code == 200 and len(spoken.content) > 1000,
    }


def two_of_each(checkpoint: Path, store: Path) -> dict[str, Any]:
    """`configs/cluster.yaml` with two replicas of everything at fractions of a CPU, and listeners in real time."""
    settings = settings_of("cluster.yaml", checkpoint, store)
    settings["proxy_location"] = "HeadOnly"  # both nodes have one address here
    arguments = settings["applications"][0]["args"]
    arguments["api"] = {}
    # this machine is not the subject: nobody is refused for its being slow
    arguments["synthesis"] |= {"max_lead_s": 1.0, "max_load": None, "threads": 1}
    for name in GRAPH:
        options = deployment(settings, name)
        options.pop("autoscaling_config")
        options |= {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}, "graceful_shutdown_timeout_s": 20}
    return settings


def register_voice(cluster: ServedCluster) -> str:
    clip = Path("configs/voices/clara.wav").read_bytes()
    form = {"name": "Anna", "ref_text": "The words that are spoken in this clip.", "language": "en"}
    reply = httpx.post(cluster.url + "/v1/audio/voices", data=form, files={"audio_sample": clip}, timeout=60)
    assert reply.status_code == 200, reply.text
    return "Anna"


def whole_again(cluster: ServedCluster, alive: set[str]) -> bool:
    replicas = cluster.replicas()
    return all(
        [(r.state, r.node in alive) for r in replicas if r.deployment == name] == [("RUNNING", True)] * 2
        for name in GRAPH
    )


class Loading:
    """Open-loop load in a thread of its own, for as long as it lasts."""

    def __init__(self, url: str) -> None:
        self._session = Session(Target(endpoint_of(url), timeout_s=60), (TEXT,), 200.0, Console(file=io.StringIO()))
        self._run: Run | None = None
        self._thread = threading.Thread(target=self._load)
        self._started_s = time.monotonic()
        self._thread.start()

    def _load(self) -> None:
        load = OpenLoop(poisson(RATE_HZ, LOAD_S, 1000, seed=1), "Poisson")
        self._run = asyncio.run(self._session.run(load))

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def result(self) -> Run:
        self._thread.join()
        assert self._run is not None
        return self._run


def told(run: Run, removed_s: float) -> Figures:
    """Figures. in_flight: open when the node went away; others: everything else."""
    in_flight = [r for r in run.records if r.sent_s <= removed_s <= r.due_s + r.ended_s]
    others = [r for r in run.records if r not in in_flight]
    waits = sorted(r.figures.ttfp_s for r in others if r.figures is not None and r.sent_s > removed_s)
    figures = {
        "requests": len(run.records),
        "in_flight": len(in_flight),
        "in_flight_broken": dict(Counter(r.error for r in in_flight if r.error)),
        "others": len(others),
        "others_failed": dict(Counter(r.error for r in others if r.error)),
        "after_removal_first_packet_ms": {
            "p50": round(1000 * waits[len(waits) // 2]),
            "worst": round(1000 * waits[-1]),
        },
    }
    for record in run.records:
        if record.error:
            print(
                f"due {record.due_s:5.1f} s  ended {record.due_s + record.ended_s:5.1f} s  {record.error}: "
                f"{record.error_detail}"
            )
    return figures


def bounds(figures: Figures) -> dict[str, bool]:
    return {
        "every deployment is on both nodes": figures["on_both_nodes"],
        "no other request fails": figures["others"] >= 10 and figures["others_failed"] == {},
        "streams break visibly, never as if they were whole": set(figures["in_flight_broken"]) <= {"broken_body"}
        and figures["long_ended_too_soon"] == 0,
        "the streams of the other node go on": figures["long_broken"] < figures["long_streams"],
        "the voice is still there": figures["voice_is_listed"] and figures["voice_speaks"],
    }


if __name__ == "__main__":
    run_program(__doc__, remove_a_node, bounds)
