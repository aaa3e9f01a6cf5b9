"""The configuration for a GPU on one that is only counted: `python -m tests.scale.logical_gpus`.

Four replicas at a quarter each fill it; a fifth waits, and harms nobody; it starts when a second GPU comes.
"""

import time
from pathlib import Path

import httpx

from tests.scale.cluster import ServedCluster, deployment, served_cluster, settings_of, toy_checkpoint, wait_until
from tests.scale.program import Figures, run_program

WATCHED_S = 5.0


def fill(scratch: Path) -> Figures:
    settings = settings_of("gpu.yaml", toy_checkpoint(scratch), scratch / "voices")
    settings["applications"][0]["args"]["synthesis"]["device"] = "cpu"
    as_shipped = deployment(settings, "Synthesis")
    shipped = as_shipped["num_replicas"], as_shipped["ray_actor_options"]["num_gpus"]
    as_shipped["ray_actor_options"]["num_gpus"] = 0.25
    for name in ("Ingress", "Preprocess", "Synthesis"):
        deployment(settings, name)["ray_actor_options"]["num_cpus"] = 0.2
    as_shipped["num_replicas"] = 4
    with served_cluster({"num_cpus": 8, "num_gpus": 1}) as cluster:
        cluster.deploy(settings)
        cluster.wait_until_ready()
        cluster.wait_for_replicas("Synthesis", 4)
        used = used_gpus()
        print(f"4 replicas at 0.25: {used:g} of 1 GPU taken", flush=True)

        as_shipped["num_replicas"] = 5
        cluster.deploy(settings)
        wait_until(lambda: len(cluster.replicas("Synthesis")) == 5, "a fifth is asked for", 120)
        statuses = spoken_for(cluster, WATCHED_S)
        states = sorted(replica.state for replica in cluster.replicas("Synthesis"))
        print(f"a fifth: {states}; answers meanwhile {statuses}", flush=True)

        cluster.nodes.add_node(num_cpus=1, num_gpus=1)
        started_s = cluster.wait_for_replicas("Synthesis", 5)
        print(f"with another GPU it runs after {started_s:.1f} s", flush=True)
    return {
        "shipped_replicas": shipped[0],
        "shipped_num_gpus": shipped[1],
        "gpus_taken_by_four": used,
        "states_of_five": states,
        "answers_while_one_waits": statuses,
        "fifth_started_s": round(started_s, 1),
    }


def used_gpus() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0) - ray.available_resources().get("GPU", 0))


def spoken_for(cluster: ServedCluster, seconds: float) -> dict[int, int]:
    """How often each status was the answer of requests, one after the other, for so long."""
    statuses: dict[int, int] = {}
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        reply = httpx.post(cluster.url + "/v1/audio/speech", json={"input": "Hello there."}, timeout=60)
        statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
    return statuses


def bounds(figures: Figures) -> dict[str, bool]:
    return {
        "the file as shipped fills one GPU": figures["shipped_replicas"] * figures["shipped_num_gpus"] == 1,
        "four at a quarter each take one GPU": figures["gpus_taken_by_four"] == 1,
        "a fifth waits": figures["states_of_five"] == ["RUNNING"] * 4 + ["STARTING"],
        "and harms nobody": set(figures["answers_while_one_waits"]) == {200},
    }


if __name__ == "__main__":
    run_program(__doc__, fill, bounds)
