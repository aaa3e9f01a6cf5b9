"""Synthesis grows from one replica to three and back as listeners come and go: `python -m tests.scale.growth`.

A replica takes four listeners here, each in real time. They come one by one, and none comes before the fleet has the
size that its policy wants for those who are there: so whoever comes must find room, and nobody may be refused.
"""

import time
from pathlib import Path
from typing import Any

from tests.scale.cluster import ServedCluster, deployment, served_cluster, settings_of, toy_checkpoint, wait_until
from tests.scale.listeners import Listener
from tests.scale.program import Figures, run_program

STREAMS_EACH = 4
LISTENERS = 8
POLICY = {"spare_share": 0.25, "down_share": 0.6}


def grow_and_shrink(scratch: Path) -> Figures:
    checkpoint = toy_checkpoint(scratch)
    with served_cluster({"num_cpus": 8}) as cluster:
        cluster.deploy(autoscaled(checkpoint, scratch / "voices"))
        cluster.wait_until_ready()
        listeners: list[Listener] = []
        steps: list[dict[str, Any]] = []
        most = 1
        for number in range(1, LISTENERS + 1):
            listeners.append(Listener(cluster.url))
            wait_until(lambda: listeners[-1].status is not None, "an answer", 120)
            waited_s = wait_for_spare(cluster, number)
            most = max(most, len(cluster.running("Synthesis")))
            steps.append({"listeners": number, "replicas": most, "waited_s": round(waited_s, 1)})
            print(f"{number} listeners  {most} replicas  {waited_s:4.1f} s until there were enough", flush=True)
        for listener in listeners:
            listener.leave()
        for listener in listeners:
            listener.wait()
        left_s = time.monotonic()
        cluster.wait_for_replicas("Synthesis", 1)
        shrunk_s = time.monotonic() - left_s
        print(f"1 replica again {shrunk_s:.1f} s after the last listener left", flush=True)
    return {
        "statuses": [listener.status for listener in listeners],
        "problems": [listener.problem for listener in listeners if listener.problem],
        "most_replicas": most,
        "steps": steps,
        "back_to_one_s": round(shrunk_s, 1),
        "stalled_s": [round(listener.stalled_s(), 2) for listener in listeners],
    }


def wait_for_spare(cluster: ServedCluster, listeners: int) -> float:
    """Seconds until a quarter of all streams is spare, as the policy wants it."""
    needed = 1 + (listeners > 3) + (listeners > 6)
    return wait_until(lambda: len(cluster.running("Synthesis")) >= needed, f"{needed} replicas", 300)


def autoscaled(checkpoint: Path, store: Path) -> dict[str, Any]:
    """`configs/cluster.yaml` at fractions of a CPU, with short delays."""
    settings = settings_of("cluster.yaml", checkpoint, store)
    settings["proxy_location"] = "HeadOnly"
    arguments = settings["applications"][0]["args"]
    arguments["api"] = {}
    arguments["synthesis"] |= {"max_streams": STREAMS_EACH, "max_lead_s": 1.0, "max_load": None, "threads": 1}
    for name in ("Ingress", "Preprocess"):
        deployment(settings, name)["autoscaling_config"]["min_replicas"] = 1
        deployment(settings, name)["ray_actor_options"] = {"num_cpus": 0.2}
    synthesis = deployment(settings, "Synthesis")
    synthesis["ray_actor_options"] = {"num_cpus": 0.2}
    synthesis["autoscaling_config"] |= {
        "max_replicas": 3,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 2,
        "look_back_period_s": 2,
    }
    assert synthesis["autoscaling_config"]["policy"]["policy_kwargs"] == POLICY, "what the file ships is what is tested"
    return settings


def bounds(figures: Figures) -> dict[str, bool]:
    return {
        "nobody is refused": set(figures["statuses"]) == {200},
        "no stream breaks": figures["problems"] == [],
        "it grows to three": figures["most_replicas"] == 3,
    }


if __name__ == "__main__":
    run_program(__doc__, grow_and_shrink, bounds)
