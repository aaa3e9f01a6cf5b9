"""How a prompt is cut for an early first sound."""

import pytest

from serve_app.synthesis.render_stage import MIN_PROMPT_TOKENS, cut_tokens


@pytest.mark.parametrize("first_hop", [1, 8, 12, 24, 25])
@pytest.mark.parametrize("num_tokens", [*range(74, 130), 750])
def test_a_cut_prompt_ends_the_first_hop_before_a_chunk_border(num_tokens: int, first_hop: int) -> None:
    cut = cut_tokens(num_tokens, 25, first_hop)
    assert 0 <= cut < 25
    assert (num_tokens - cut + first_hop) % 25 == 0


@pytest.mark.parametrize("num_tokens", range(MIN_PROMPT_TOKENS))
def test_a_short_prompt_is_kept_whole(num_tokens: int) -> None:
    assert cut_tokens(num_tokens, 25, 8) == 0
