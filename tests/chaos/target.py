"""The service under attack: started as users start it, on loopback, in a Ray of its own, and ended with the block."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, Service, local_settings, start_service

DEMO = ROOT / "pretrained_models/cosyvoice2-demo"


@contextmanager
def running(
    *,
    checkpoint: Path = DEMO,
    faulty: bool = False,
    api: dict[str, Any] | None = None,
    synthesis: dict[str, Any] | None = None,
    deployments: dict[str, dict[str, Any]] | None = None,
) -> Iterator[Service]:
    """`configs/local.yaml` over `checkpoint`, its voice store in a scratch folder.

    faulty: with the engine of `faulty_app`. api, synthesis: settings in `args:`. deployments: options by name.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        settings = local_settings(checkpoint)
        [application] = settings["applications"]
        arguments = application["args"]
        arguments["preprocess"]["voice_store"] = str(Path(scratch) / "voices")
        arguments["api"] = {**arguments.get("api", {}), **(api or {})}
        arguments["synthesis"] = {**arguments["synthesis"], **(synthesis or {})}
        for deployment in application["deployments"]:
            deployment.update((deployments or {}).get(deployment["name"], {}))
        if faulty:
            application["import_path"] = "tests.chaos.faulty_app:build"
            os.environ["PYTHONPATH"] = str(ROOT)  # replicas import it, and it is not installed
        service = start_service(Path(scratch), settings)
        try:
            service.wait_until_ready()
            yield service
        finally:
            service.stop()
