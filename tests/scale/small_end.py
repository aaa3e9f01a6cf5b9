"""Sizing at its small end: listeners come to one replica until it refuses one. `python -m tests.scale.small_end`.

What it should hold is computed beforehand, from the cost table that the engine's bench measures on this machine. Then
`configs/local.yaml` serves the demo checkpoint, listeners take their speech in real time, and each comes when the one
before has been listening for a while. Those who are in must not stall.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from serve_app.synthesis.capacity import Capacity
from serve_app.synthesis.scheduler import Limits
from serve_app.synthesis.simulate import read_costs
from tests.conftest import ROOT
from tests.scale.cluster import served_cluster, settings_of, wait_until
from tests.scale.listeners import Listener
from tests.scale.program import Figures, run_program

DEMO = ROOT / "pretrained_models/cosyvoice2-demo"
BETWEEN_S = 4.0
STAY_S = 15.0
MOST = 32


def fill(scratch: Path) -> Figures:
    settings = settings_of("local.yaml", DEMO, scratch / "voices")
    synthesis = settings["applications"][0]["args"]["synthesis"]
    synthesis |= {"max_streams": MOST, "max_lead_s": 1.0}  # the engine's time alone decides; in real time
    costs = measured_costs(scratch / "costs.json", synthesis["threads"])
    capacity = Capacity(read_costs(costs), Limits(), synthesis["max_load"])
    predicted = capacity.spare(0)
    print(f"predicted: {predicted} listeners, load {capacity.load(predicted):.2f} of {capacity.max_load}", flush=True)
    with served_cluster({"num_cpus": 8}) as cluster:
        cluster.deploy(settings)
        cluster.wait_until_ready()
        listeners: list[Listener] = []
        for _ in range(MOST):
            listener = Listener(cluster.url, voice="clara")
            wait_until(lambda last=listener: last.status is not None, "an answer", 60)  # type: ignore[misc]
            if listener.status != 200:
                break
            listeners.append(listener)
            time.sleep(BETWEEN_S)
        print(f"held: {len(listeners)} listeners, the next one got {listener.status}", flush=True)
        time.sleep(STAY_S)
        stalled_s = [round(each.stalled_s(), 2) for each in listeners]
        for each in listeners:
            each.leave()
        for each in listeners:
            each.wait()
    return {
        "predicted": predicted,
        "held": len(listeners),
        "next_status": listener.status,
        "stalled_s": stalled_s,
        "problems": [each.problem for each in listeners if each.problem],
        "costs": json.loads(costs.read_text()),
    }


def measured_costs(path: Path, threads: int) -> Path:
    """The cost table of the engine alone, as the bench writes it."""
    command = [sys.executable, "-m", "serve_app.synthesis.bench", "--checkpoint", str(DEMO), "--costs", str(path)]
    command += ["--threads", str(threads), "--streams", "1", "4", "8", "--seconds", "5", "--repeat", "2", "--json"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return path


def bounds(figures: Figures) -> dict[str, bool]:
    return {
        "whoever is taken hears all of it": figures["problems"] == [],
        "who comes on top is refused": figures["next_status"] == 429,
        "at least one is held": figures["held"] >= 1,
    }


if __name__ == "__main__":
    run_program(__doc__, fill, bounds)
