"""What several test folders share: one toy checkpoint, and one running service."""

import contextlib
import ctypes
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent

# Whoever runs in the background of a shell ignores Ctrl-C, and would hand that on to the services that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


MOST_RESIDENT_BYTES = 3 * 2**30


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Engines that ended stay in reference cycles until Python looks for them, which it does the more rarely the more
    tests have run, and what glibc has in store it keeps: together they once took all of a machine's 24 GiB."""
    yield
    if psutil.Process().memory_info().rss > MOST_RESIDENT_BYTES:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete CosyVoice2 directory of toy size with random weights, made by the command that users have."""
    directory = tmp_path_factory.mktemp("checkpoint") / "toy"
    subprocess.run([sys.executable, "-m", "serve_app.cli", "toy-checkpoint", str(directory)], check=True, cwd=ROOT)
    return directory


@dataclass(frozen=True)
class Service:
    """A running service: where it listens, its process, everything it printed so far, and its Ray's own folder."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    ray_folder: str

    def wait_until_ready(self, timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the service ended:\n{self.log.read_text()}"
            try:
                with urllib.request.urlopen(self.url + "/ready", timeout=2) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise AssertionError(f"the service was not ready in {timeout_s} s:\n{self.log.read_text()}")

    def num_open_streams(self) -> int:
        """Asks the synthesis replica, past HTTP: it answers only if its engine's slots add up (`Engine.check`)."""
        question = (
            "import ray; from ray import serve;"
            f"ray.init({self.ray_address()!r}, namespace='serve', logging_level='error');"
            "handle = serve.get_deployment_handle('Synthesis', 'speech');"
            "print('streams', handle.check_engine.remote().result(timeout_s=30))"
        )
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", question],
            check=False,
            env=self.ray_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stderr
        return int(answer.stdout.split("streams")[-1])

    def ray_environment(self) -> dict[str, str]:
        """For a process that joins this service's Ray, which asks for the token that is in the user's home."""
        return {**environment(), "RAY_TMPDIR": self.ray_folder, "RAY_AUTH_MODE": "token"}

    def ray_address(self) -> str:
        """Of this service's own Ray: `auto` would take any that runs on this machine."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found = re.search(r"--gcs-address=(\S+)", " ".join(process.cmdline()))
                if found:
                    return found[1]
        raise AssertionError("the service has no Ray")

    def stop(self) -> None:
        """Ctrl-C, as a user would end it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
        shutil.rmtree(self.ray_folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """This process's, less what would make Ray join a cluster that is not the test's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_service(directory: Path, settings: dict[str, Any]) -> Service:
    """`cosyserve serve` with the given Serve settings, on a free port, in a Ray of its own."""
    port = free_port()
    config = directory / "service.yaml"
    config.write_text(yaml.safe_dump(settings))
    log = directory / "service.log"
    ray_folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: Ray's sockets have a path limit
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.cli", "serve", str(config), "--port", str(port)],
            cwd=ROOT,
            env={**environment(), "RAY_TMPDIR": ray_folder},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(f"http://127.0.0.1:{port}", process, log, ray_folder)


def local_settings(checkpoint: Path) -> dict[str, Any]:
    """`configs/local.yaml` with another checkpoint, and a voice store of its own beside it.

    Nobody is refused for want of time: a test must not depend on how busy the machine is.
    """
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    settings["applications"][0]["args"]["checkpoint"] = str(checkpoint)
    settings["applications"][0]["args"]["preprocess"]["voice_store"] = str(checkpoint.parent / "voices")
    settings["applications"][0]["args"]["synthesis"]["max_load"] = None
    return settings


@pytest.fixture(scope="session")
def service(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service, as `make serve` starts it, over the toy checkpoint."""
    running = start_service(tmp_path_factory.mktemp("service"), local_settings(toy_checkpoint))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
