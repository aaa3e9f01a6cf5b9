"""Ray clusters of several nodes within this machine, and the service on them as `serve run` starts it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, environment, free_port

STOCK = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
THROUGHPUT = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class ReplicaPlace:
    """One replica: its deployment, its name, its state (Ray's words), and the node it is on."""

    deployment: str
    name: str
    state: str
    node: str


class ServedCluster:
    """A Ray cluster and the service on it. Made by `served_cluster`."""

    def __init__(self, nodes: Any, folder: Path) -> None:
        """nodes: a `ray.cluster_utils.Cluster`. folder: for files that end with it."""
        self.nodes = nodes
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def deploy(self, settings: dict[str, Any]) -> None:
        """`serve run`, as a user calls it; a second time it changes what runs. Returns when Ray has taken it."""
        settings["http_options"] = {**settings.get("http_options", {}), "host": "127.0.0.1", "port": self.port}
        config = self.folder / "service.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-W", "ignore", "-m", "ray.serve.scripts", "run", "--non-blocking", str(config)]
        ended = subprocess.run(
            [*command, "--address", self.nodes.address], check=False, cwd=ROOT, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/ready", timeout=3) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self) -> None:
        wait_until(self.is_ready, "the service is ready", 400)

    def replicas(self, deployment: str = "") -> list[ReplicaPlace]:
        """Those of every deployment, or of one, in whatever state."""
        from ray.serve.context import _get_global_client

        details = _get_global_client().get_serve_details()
        return [
            ReplicaPlace(name, replica["replica_id"], replica["state"].value, replica.get("node_id") or "")
            for application in details["applications"].values()
            for name, found in application["deployments"].items()
            for replica in found["replicas"]
            if deployment in ("", name)
        ]

    def running(self, deployment: str) -> list[ReplicaPlace]:
        return [replica for replica in self.replicas(deployment) if replica.state == "RUNNING"]

    def wait_for_replicas(self, deployment: str, number: int, timeout_s: float = 300) -> float:
        """Seconds until exactly so many run and none is in another state."""

        def settled() -> bool:
            states = [replica.state for replica in self.replicas(deployment)]
            return states == ["RUNNING"] * number

        return wait_until(settled, f"{number} replicas of {deployment}", timeout_s)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Seconds until it held. Raises AssertionError if it does not in time."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < timeout_s, f"not in {timeout_s} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - started_s


@contextmanager
def served_cluster(*nodes: Mapping[str, float], mode: dict[str, str] = STOCK) -> Iterator[ServedCluster]:
    """A cluster of so many nodes, without a service yet; ended, with everything on it, when the block ends.

    nodes: `num_cpus`, `num_gpus` and `resources` of each, the head first. mode: `STOCK` or `THROUGHPUT`. To be called
    once in a process and before Ray is imported in it: Ray reads its environment then.
    """
    assert "ray" not in sys.modules, "Ray has already read its environment"
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir="/tmp"))  # short: Ray's sockets have a path limit
    os.environ.clear()
    os.environ.update(environment_before | _ALWAYS | mode | {"RAY_TMPDIR": str(folder)})
    import ray
    from ray.cluster_utils import Cluster

    head = {**nodes[0], "include_dashboard": False, "dashboard_port": free_port()}  # 8265 may be another cluster's
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        for node in nodes[1:]:
            started.add_node(**node)
        ray.init(address=started.address, namespace="serve", logging_level="error", log_to_driver=False)
        yield ServedCluster(started, folder)
    finally:
        ray.shutdown()
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


environment_before = environment()


def settings_of(config: str, checkpoint: Path, store: Path) -> dict[str, Any]:
    """A file under configs/ with the checkpoint's path, and a voice store of its own."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs" / config).read_text())
    (application,) = settings["applications"]
    application["args"]["checkpoint"] = str(checkpoint)
    application["args"].setdefault("preprocess", {})["voice_store"] = str(store)
    return settings


def deployment(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """One deployment's settings, to be changed."""
    (found,) = (d for d in settings["applications"][0]["deployments"] if d["name"] == name)
    assert isinstance(found, dict)
    return found


def toy_checkpoint(folder: Path) -> Path:
    """Random weights of toy size, made by the command that users have."""
    path = folder / "toy"
    subprocess.run([sys.executable, "-m", "serve_app.cli", "toy-checkpoint", str(path)], check=True, cwd=ROOT)
    return path
