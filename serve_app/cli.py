"""`cosyserve`: the command line. Each command imports only what it needs, so that `--help` answers at once."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import yaml

from serve_app.download_command import download
from serve_app.evaluate.command import evaluate
from serve_app.loadtest.command import loadtest, loadtest_compare
from serve_app.say_command import say
from serve_app.terminal import EXIT_CODES, err, fail
from serve_app.voices_command import voices

if TYPE_CHECKING:
    from serve_app.schema_faults import Finding

app = typer.Typer(
    name="cosyserve",
    help="CosyVoice2 text-to-speech as a service.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("say")(say)
app.add_typer(voices)
app.command("download")(download)
app.command("evaluate")(evaluate)
app.command("loadtest")(loadtest)
app.command("loadtest-compare")(loadtest_compare)

# Read by Ray when it is imported; what the user has set stays.
_RAY_ENVIRONMENT = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_LOG_TO_STDERR": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # An unhealthy replica's engine has failed or hangs: nothing is gained by waiting for its streams to end.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # A dead proxy is started anew after three failed checks: ten seconds between them would be half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
}


class CheckpointSize(str, Enum):
    """Sizes of a random checkpoint."""

    toy = "toy"
    real = "real"


@app.callback()
def main() -> None:
    """CosyVoice2 text-to-speech as a service."""


@app.command("toy-checkpoint")
def toy_checkpoint(
    directory: Annotated[Path, typer.Argument(help="Folder to write; made if it does not exist.")],
    size: Annotated[CheckpointSize, typer.Option(help="toy: a few MB. real: CosyVoice2-0.5B's own sizes, 2.5 GB.")] = (
        CheckpointSize.toy
    ),
    seed: Annotated[int, typer.Option(help="Seed of the random weights.", min=0)] = 0,
) -> None:
    """Writes a complete CosyVoice2 directory with random weights: it makes noise, not speech.

    Example: cosyserve toy-checkpoint pretrained_models/toy
    """
    from serve_app.model.toy_checkpoint import write_networks
    from serve_app.preprocess.toy_frontend import write_frontend

    if directory.exists() and any(directory.iterdir()):
        fail(f"{directory} is not empty")
    # Written beside its final place and renamed, so that an interrupted run leaves no half checkpoint behind.
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        written = Path(scratch) / "checkpoint"
        with err.status("writing random weights"):
            written.mkdir()
            write_networks(written, size.value, seed)
            write_frontend(written, size.value, seed)
        if directory.exists():
            directory.rmdir()
        written.rename(directory)
    err.print(f"wrote {directory}")


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A Serve YAML.")] = Path("configs/local.yaml"),
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, instead of the YAML's.", min=1, max=65535)
    ] = None,
) -> None:
    """Starts a Ray of its own on this machine, runs `serve run CONFIG` in it, and says when it is ready.

    What `cosyserve check` would find ends it before anything starts. Ctrl-C ends everything it started and nothing
    else. To use a cluster that is already there, call `serve run` itself.

    Example: cosyserve serve configs/local.yaml --port 8080
    """
    settings = read_yaml(config)
    http_options = settings.setdefault("http_options", {})
    host = http_options.setdefault("host", "127.0.0.1")
    if port is not None:
        http_options["port"] = port
    address = (host, int(http_options.setdefault("port", 8000)))
    require_free(address)

    os.environ.pop("RAY_ADDRESS", None)
    set_ray_environment()
    require_sound(config)
    err.print(access_message(host, settings), soft_wrap=True)
    signal.signal(signal.SIGTERM, interrupt)
    with tempfile.TemporaryDirectory(prefix="cosyserve-") as scratch:
        effective = Path(scratch) / config.name
        effective.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        run_service(effective, address)


@app.command()
def check(
    configs: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Serve YAMLs, or RayService manifests.")],
    files: Annotated[bool, typer.Option(help="Look for the checkpoint and the other files that it names.")] = True,
) -> None:
    """Names every misspelt key, impossible value and missing file of a Serve YAML, all at once, and starts nothing.

    Ray Serve itself ignores keys that it does not know. Findings go to stdout, one a line; warnings alone do not fail.
    Paths are relative to this folder, as they are for `serve run`.

    Example: cosyserve check configs/local.yaml

    Exit status: 0 sound, 1 faults were found or a file cannot be read, 2 wrong usage.
    """
    set_ray_environment()
    num_faults = 0
    for config in configs:
        for finding in findings_in(config, files):
            num_faults += finding.is_fault
            typer.echo(f"{config}: {'' if finding.is_fault else 'warning: '}{finding}")
    if num_faults:
        fail(f"{num_faults} fault{'s' if num_faults > 1 else ''} found")
    err.print(f"{', '.join(map(str, configs))}: sound", markup=False, soft_wrap=True)


def findings_in(config: Path, look_at_files: bool) -> "list[Finding]":
    """What the strict check says of a file; ends with one clear line if it cannot be read."""
    from ray.runtime_env import RuntimeEnv
    from ray.serve.config import AutoscalingPolicy
    from ray.serve.schema import ServeDeploySchema

    from serve_app.yaml_check import Checker, this_machine

    known = frozenset(key for key in RuntimeEnv.known_fields if not key.startswith("_"))
    try:
        checker = Checker(ServeDeploySchema, AutoscalingPolicy, known, this_machine(), look_at_files)
        return checker.check_file(config)
    except OSError as error:
        fail(f"cannot read {config}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{config} is not UTF-8 text")


def require_sound(config: Path) -> None:
    """Prints what the strict check finds; ends here if there is a fault."""
    findings = findings_in(config, look_at_files=True)
    for finding in findings:
        line = f"{config}: {'' if finding.is_fault else 'warning: '}{finding}"
        err.print(line, style="red" if finding.is_fault else "yellow", markup=False, soft_wrap=True)
    if any(finding.is_fault for finding in findings):
        fail(f"{config} is not sound; nothing was started")


def access_message(host: str, settings: dict[str, Any]) -> str:
    """Who can use the service that is about to start."""
    from serve_app.yaml_check import has_keys, is_loopback

    keys = "API keys are asked for" if has_keys(settings) else "no API keys are configured"
    if is_loopback(host):
        return f"Listening on loopback only ({host}): nobody outside this machine can connect; {keys}."
    return f"Listening on {host}, which can be reached from outside; {keys}."


def set_ray_environment() -> None:
    """To be called before Ray is imported."""
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def run_service(config: Path, address: tuple[str, int]) -> None:
    """`serve run`, in this process, so that the Ray it starts ends with it."""
    import ray
    from ray import serve as ray_serve
    from ray.serve.scripts import cli as ray_serve_command

    outcome: list[str] = []

    def watch() -> None:
        """Says once that the service is ready; ends the process if it cannot start."""
        url = f"http://{'127.0.0.1' if address[0] == '0.0.0.0' else address[0]}:{address[1]}"
        while True:
            time.sleep(0.5)
            if is_ready(url):
                err.print(ready_message(url), soft_wrap=True)
                return
            if not ray.is_initialized():  # asking for the status would start a second Ray
                continue
            try:
                applications = ray_serve.status().applications
            except Exception:  # noqa: BLE001 - Ray is still starting, or already ending; it has no narrower error
                continue
            failed = [a.message for a in applications.values() if a.status == "DEPLOY_FAILED"]
            if failed:
                outcome.extend(failed)
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True, name="readiness").start()
    with contextlib.suppress(SystemExit):
        ray_serve_command.main(["run", "--address", "local", str(config)], standalone_mode=False)
    if outcome:
        fail("the service could not start: " + "\n".join(outcome))


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/ready", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ready_message(url: str) -> str:
    body = '{"input": "Hello! This is a test.", "response_format": "wav"}'
    command = f"curl -sS {url}/v1/audio/speech -H 'content-type: application/json' -d '{body}' -o hello.wav"
    return f"\n[bold green]Ready[/] at [bold]{url}[/]   Ctrl-C ends it.\nTry:\n\n  {command}\n".replace("[{", r"\[{")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ends with one clear line otherwise."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except yaml.YAMLError as error:
        fail(f"{path} is not YAML: {error}")
    if not isinstance(content, dict):
        fail(f"{path} holds no mapping")
    return content


def require_free(address: tuple[str, int]) -> None:
    """Ends with one clear line if something already listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            fail(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}; choose another with --port")


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(app())
