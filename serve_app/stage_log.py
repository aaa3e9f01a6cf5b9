"""One line in the log for each stage of each request: its id, how it ended, its figures. No text, key or audio.

The lines go to Ray Serve's logger. With `logging_config: {encoding: JSON}` they are JSON objects in the replica's file,
with the fields `stage`, `speech_id`, `end` and the figures; otherwise the same as text.
"""

import logging

logger = logging.getLogger("ray.serve.cosyserve")
"""A child of Serve's own logger, which its handlers and `logging_config` cover."""


def log_stage(stage: str, speech_id: str, end: str, **figures: float | str | None) -> None:
    """One line; a warning for what was refused or failed.

    stage: `ingress`, `preprocess` or `synthesis`. speech_id: the request's id in all three. Figures that are None are
    left out; names carry units.
    """
    known = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in figures.items()
        if value is not None
    }
    words = " ".join(f"{name}={value}" for name, value in known.items())
    level = logging.WARNING if end in ("refused", "failed") else logging.INFO
    extra = {"stage": stage, "speech_id": speech_id, "end": end, **known}
    logger.log(level, "%s %s %s %s", stage, speech_id, end, words, extra=extra)
