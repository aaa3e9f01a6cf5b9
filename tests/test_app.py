"""Settings that each make sense and together do not."""

import warnings
from pathlib import Path

import pytest

from serve_app.config import AppConfig, SynthesisConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own use of pydantic is deprecated
    from serve_app.app import build


def test_the_reference_engine_does_not_stream_text(tmp_path: Path) -> None:
    config = AppConfig(checkpoint=tmp_path, synthesis=SynthesisConfig(engine="reference"))
    with pytest.raises(ValueError, match="text_streaming: sentence"):
        build(config)
