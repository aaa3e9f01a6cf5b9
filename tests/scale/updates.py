"""Streams in flight while the service changes under them: `python -m tests.scale.updates`.

First its `user_config`, which takes effect at once; then its arguments, which replaces every replica; then fewer
replicas. Every stream that had begun ends whole: as long as the same request's when nothing happens.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.scale.cluster import ServedCluster, deployment, served_cluster, settings_of, toy_checkpoint, wait_until
from tests.scale.listeners import SENTENCE, Listener
from tests.scale.program import Figures, run_program

STREAMS = 3
CHANGES = ("hot", "redeploy", "fewer")
TEXT = SENTENCE * 10


def change(scratch: Path) -> Figures:
    settings = small(toy_checkpoint(scratch), scratch / "voices")
    with served_cluster({"num_cpus": 8}) as cluster:
        cluster.deploy(settings)
        cluster.wait_until_ready()
        undisturbed = listening(cluster, 1)
        first = names(cluster)
        before = answer(cluster)
        size = sizes(undisturbed)[0]

        hot = listening(cluster, STREAMS)
        deployment(settings, "Ingress")["user_config"] = {"default_voice": "nora"}
        deployment(settings, "Synthesis")["user_config"] = {"max_lead_s": 1.5}
        cluster.deploy(settings)
        changed_s = wait_until(lambda: another_voice(cluster, before), "the other default voice speaks", 120)
        open_then = sum(listener.is_listening for listener in hot)
        hot_sizes = sizes(hot)
        same = names(cluster) == first
        print(f"user_config: in effect {changed_s:.1f} s later, with {open_then} streams open", flush=True)

        settings["applications"][0]["args"]["synthesis"]["flow_cache_mib"] = 64
        cluster.deploy(settings)
        cold = listening(cluster, STREAMS)  # by the old replicas: new ones are still loading
        meanwhile = statuses_while(cluster, lambda: any(listener.is_listening for listener in cold))
        cold_sizes = sizes(cold)
        replaced_s = wait_until(lambda: not first & names(cluster), "every replica is a new one", 300)
        print(f"redeploy: answers meanwhile {meanwhile}; all new {replaced_s:.1f} s after the last stream", flush=True)

        cluster.wait_for_replicas("Synthesis", 2)
        fewer = listening(cluster, STREAMS)
        deployment(settings, "Synthesis")["num_replicas"] = 1
        cluster.deploy(settings)
        fewer_sizes = sizes(fewer)
        cluster.wait_for_replicas("Synthesis", 1)
    return {
        "whole_bytes": size,
        "hot_bytes": hot_sizes,
        "hot_open_when_in_effect": open_then,
        "hot_same_replicas": same,
        "redeploy_bytes": cold_sizes,
        "redeploy_meanwhile": meanwhile,
        "fewer_bytes": fewer_sizes,
    }


def small(checkpoint: Path, store: Path) -> dict[str, Any]:
    """`configs/cluster.yaml` with two synthesis replicas at fractions of a CPU, and listeners in real time."""
    settings = settings_of("cluster.yaml", checkpoint, store)
    settings["proxy_location"] = "HeadOnly"
    arguments = settings["applications"][0]["args"]
    arguments["api"] = {}
    arguments["synthesis"] |= {"max_lead_s": 1.0, "max_load": None, "threads": 1}
    for name in ("Ingress", "Preprocess", "Synthesis"):
        options = deployment(settings, name)
        options.pop("autoscaling_config")
        options |= {"num_replicas": 1 + (name == "Synthesis"), "ray_actor_options": {"num_cpus": 0.2}}
    return settings


def names(cluster: ServedCluster) -> set[str]:
    return {replica.name for replica in cluster.replicas()}


def listening(cluster: ServedCluster, number: int) -> list[Listener]:
    """So many streams that have begun."""
    listeners = [Listener(cluster.url, TEXT, voice="clara") for _ in range(number)]
    wait_until(lambda: all(listener.is_listening for listener in listeners), "every stream has begun", 120)
    return listeners


def sizes(listeners: list[Listener]) -> list[int]:
    """Bytes of the streams that ended as they should, once all have ended; -1 of those that did not."""
    for listener in listeners:
        listener.wait()
    return [sum(size for _, size in each.received) if each.ended else -1 for each in listeners]


def answer(cluster: ServedCluster) -> tuple[int, bytes]:
    """Status and body of one short request."""
    body = {"input": "Hello there.", "response_format": "pcm", "seed": 7}
    reply = httpx.post(cluster.url + "/v1/audio/speech", json=body, timeout=60)
    return reply.status_code, reply.content if reply.status_code == 200 else b""


def another_voice(cluster: ServedCluster, before: tuple[int, bytes]) -> bool:
    status, sound = answer(cluster)
    return status == 200 and sound != before[1]


def statuses_while(cluster: ServedCluster, condition: Callable[[], bool]) -> dict[int, int]:
    """How often each status was the answer of short requests, one after the other."""
    statuses: Counter[int] = Counter()
    while condition():
        statuses[answer(cluster)[0]] += 1
        time.sleep(0.5)
    return dict(statuses)


def bounds(figures: Figures) -> dict[str, bool]:
    whole = figures["whole_bytes"]
    return {
        "a stream is long enough to be disturbed": whole > 100_000,
        **{f"{each}: every stream ends whole": figures[f"{each}_bytes"] == [whole] * STREAMS for each in CHANGES},
        "a hot change replaces no replica": figures["hot_same_replicas"],
        "a hot change takes effect while streams are open": figures["hot_open_when_in_effect"] >= 1,
        "requests are answered during a redeploy": set(figures["redeploy_meanwhile"]) == {200},
    }


if __name__ == "__main__":
    run_program(__doc__, change, bounds)
