"""Repetition-aware sampling: its rule, its distribution, and that a stream's draws are its own."""

import numpy as np
import torch
from torch import Tensor

from serve_app.model.dims import SamplingDims
from serve_app.synthesis.sampling import Sampler, uniforms, utterance_seed

RAS = SamplingDims(top_p=0.8, top_k=25, win_size=10, tau_r=0.1)
NOTHING_RECENT = torch.full((1, 10), -1)
ALLOWED = torch.tensor([[True, True, True]])


def draws(logits: Tensor, recent: Tensor, num: int, dims: SamplingDims = RAS) -> Tensor:
    """`num` draws from one row of logits."""
    random = torch.from_numpy(uniforms(np.full(num, 7, np.uint64), np.arange(num, dtype=np.uint64), 2))
    rows = logits.expand(num, -1)
    return Sampler(dims)(rows, recent.expand(num, -1), ALLOWED.expand(num, -1), random)


def log_probabilities(*values: float) -> Tensor:
    """Logits of the given probabilities, then the three stop ids, which never occur."""
    return torch.cat((torch.tensor(values).log(), torch.full((3,), -torch.inf)))[None]


def test_the_nucleus_keeps_the_token_that_crosses_top_p_and_nothing_after_it() -> None:
    drawn = draws(log_probabilities(0.5, 0.2, 0.2, 0.1), NOTHING_RECENT, 20_000)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(shares[:3], torch.tensor([0.5, 0.2, 0.2]) / 0.9, atol=0.015, rtol=0)
    assert shares[3] == 0


def test_top_k_bounds_the_nucleus() -> None:
    drawn = draws(torch.zeros(1, 100), NOTHING_RECENT, 5_000, SamplingDims(top_p=0.99, top_k=4, win_size=10, tau_r=0.1))
    assert len(set(drawn.tolist())) == 4


def test_a_recent_token_is_replaced_by_one_from_the_full_distribution() -> None:
    recent = NOTHING_RECENT.clone()
    recent[0, 4] = 0
    drawn = draws(log_probabilities(0.9, 0.06, 0.04), recent, 20_000)
    shares = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.6, 0.4]), atol=0.015, rtol=0)


def test_a_token_outside_the_window_is_not_recent() -> None:
    assert (draws(log_probabilities(1.0, 0.0), NOTHING_RECENT, 10) == 0).all()


def test_the_only_possible_token_is_kept_even_if_recent() -> None:
    recent = torch.zeros(1, 10, dtype=torch.int64)
    assert (draws(log_probabilities(1.0, 0.0), recent, 10) == 0).all()


def test_stops_are_masked_until_they_are_allowed() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0, 9.0, 9.0]])
    random = torch.tensor([[0.99, 0.99]])
    assert Sampler(RAS)(logits, NOTHING_RECENT, ~ALLOWED, random).item() < 2
    assert Sampler(RAS)(logits, NOTHING_RECENT, ALLOWED, random).item() >= 2


def test_a_row_draws_the_same_in_any_company() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 300, generator=generator) * 3
    recent = torch.randint(0, 300, (16, 10), generator=generator)
    allowed = (torch.arange(16) % 2 == 0)[:, None].expand(-1, 3)
    seeds, steps = np.arange(16, dtype=np.uint64), np.arange(16, dtype=np.uint64) * np.uint64(3)
    together = Sampler(RAS)(logits, recent, allowed, torch.from_numpy(uniforms(seeds, steps, 2)))
    for row in range(16):
        one = slice(row, row + 1)
        random = torch.from_numpy(uniforms(seeds[one], steps[one], 2))
        assert Sampler(RAS)(logits[one], recent[one], allowed[one], random).item() == together[row].item()


def test_uniforms_are_uniform_and_differ_by_seed_step_and_draw() -> None:
    seeds = np.repeat(np.arange(100, dtype=np.uint64), 100)
    steps = np.tile(np.arange(100, dtype=np.uint64), 100)
    numbers = uniforms(seeds, steps, 2)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(numbers.var() - 1 / 12) < 0.005
    assert len(np.unique(numbers)) > 0.99 * numbers.size
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.03


def test_equal_sentences_of_a_request_get_different_seeds() -> None:
    assert len({utterance_seed(5, index) for index in range(100)}) == 100
    assert utterance_seed(2**63 - 1, 3) != utterance_seed(2**63 - 2, 3)
