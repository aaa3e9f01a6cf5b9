"""Samples of a batch in one copy: each stream its own, and nothing that a CPU waits for."""

import numpy as np
import torch

from serve_app.synthesis.render_stage import Rendered
from serve_app.synthesis.sample_copy import send, start_copy


def test_each_stream_gets_its_own() -> None:
    parts = [torch.arange(5.0), torch.empty(0), torch.arange(7.0) + 100]
    rendered = Rendered([len(part) for part in parts], [False, True, False], start_copy(torch.cat(parts)))
    assert rendered.is_there()
    for (samples, last), part, expected in zip(rendered(), parts, (False, True, False), strict=True):
        np.testing.assert_array_equal(samples, part.numpy())
        assert last is expected


def test_on_a_cpu_nothing_is_sent() -> None:
    here = torch.arange(3)
    assert send(here, torch.device("cpu")) is here
