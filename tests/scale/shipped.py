"""configs/cluster.yaml as it is, on two nodes in throughput mode: `python -m tests.scale.shipped`.

Nothing is edited but the model's path (and, on this one machine, where to listen). The nodes' GPUs are only counted;
the engine then takes the CPU, by itself.
"""

from pathlib import Path

import httpx
import yaml

from tests.conftest import ROOT
from tests.scale.cluster import THROUGHPUT, served_cluster, toy_checkpoint
from tests.scale.program import Figures, run_program

LEAST = {"Ingress": 2, "Preprocess": 2, "Synthesis": 1}


def serve(scratch: Path) -> Figures:
    settings = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())
    settings["applications"][0]["args"]["checkpoint"] = str(toy_checkpoint(scratch))
    node = {"num_cpus": 8, "num_gpus": 1}
    with served_cluster(node, node, mode=THROUGHPUT) as cluster:
        cluster.deploy(settings)
        cluster.wait_until_ready()
        for name, number in LEAST.items():
            cluster.wait_for_replicas(name, number)
        nodes = {name: len({replica.node for replica in cluster.running(name)}) for name in LEAST}
        reply = httpx.post(cluster.url + "/v1/audio/speech", json={"input": "Hello there."}, timeout=60)
        print(f"nodes with replicas: {nodes}; {reply.status_code}, {len(reply.content)} bytes", flush=True)
    return {"nodes": nodes, "status": reply.status_code, "bytes": len(reply.content)}


def bounds(figures: Figures) -> dict[str, bool]:
    nodes = figures["nodes"]
    return {
        "ingress and preprocessing are on both nodes": nodes["Ingress"] == nodes["Preprocess"] == 2,
        "it speaks": figures["status"] == 200 and figures["bytes"] > 1000,
    }


if __name__ == "__main__":
    run_program(__doc__, serve, bounds)
