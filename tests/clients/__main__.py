"""Real clients that are too heavy for every test run, each in an environment of its own, against the real service.

    python -m tests.clients                     # starts the service over a toy checkpoint, and ends it
    python -m tests.clients --url http://...    # against one that runs
    python -m tests.clients livekit             # one of them

The environments are made once, in ~/.cache/cosyvoice-serve/clients or --folder. Ends with 1 if a client failed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.conftest import ROOT, local_settings, start_service

CLIENTS = {
    "livekit": ("livekit-agents==1.8.9", "livekit-plugins-openai==1.8.9"),
    "pipecat": ("pipecat-ai[openai]==1.14.0",),
}
TIMEOUT_S = 300


def environment(name: str, folder: Path) -> Path:
    """The Python of the environment that has a client's packages; made if it is not there."""
    packages = CLIENTS[name]
    place = folder / f"{name}-{hashlib.sha256(' '.join((sys.version, *packages)).encode()).hexdigest()[:8]}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"{name}: installing {', '.join(packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (place / "complete").touch()
    return python


@contextmanager
def service() -> Iterator[str]:
    """The URL of the real service over a toy checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "toy"
        command = [sys.executable, "-m", "serve_app.cli", "toy-checkpoint", str(checkpoint)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        running = start_service(folder, local_settings(checkpoint))
        try:
            running.wait_until_ready()
            yield running.url
        finally:
            running.stop()


def run(name: str, url: str, folder: Path) -> bool:
    """Whether a client got what it should have."""
    script = Path(__file__).parent / f"{name}_client.py"
    command = [str(environment(name, folder)), str(script), url]
    quiet = {**os.environ, "LOGURU_LEVEL": "ERROR"}
    ended = subprocess.run(command, check=False, timeout=TIMEOUT_S, env=quiet)
    print(f"{name}: {'ok' if ended.returncode == 0 else 'FAILED'}", flush=True)
    return ended.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", help=f"of {', '.join(CLIENTS)}; all of them if absent")
    parser.add_argument("--url", help="a service that runs; absent: one is started")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    parser.add_argument("--folder", type=Path, default=cache / "cosyvoice-serve" / "clients")
    options = parser.parse_args()
    names = options.clients or list(CLIENTS)
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    for name in names:
        environment(name, options.folder)
    with nullcontext(options.url) if options.url else service() as url:
        ended = {name: run(name, url, options.folder) for name in names}
    return 0 if all(ended.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
