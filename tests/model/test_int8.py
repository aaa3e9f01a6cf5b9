"""8-bit linear layers: near the exact ones, and a row's numbers never depend on its company."""

import pytest
import torch

from serve_app.model import int8
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.int8 import Int8Linear, use_int8
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.layers import Projection


def test_it_is_near_the_exact_layer() -> None:
    torch.manual_seed(0)
    linear = Projection(torch.randn(1152, 896), torch.randn(1152))
    x = torch.randn(8, 896)
    with torch.inference_mode():
        exact, eight_bits = linear(x), Int8Linear(linear)(x)
    assert (eight_bits - exact).std() < 0.02 * exact.std()


def test_a_row_is_the_same_in_any_company_to_the_last_bit() -> None:
    torch.manual_seed(0)
    linear = Int8Linear(Projection(torch.randn(300, 896), torch.randn(300)))
    x = torch.randn(16, 896) * torch.logspace(-3, 3, 16)[:, None]
    with torch.inference_mode():
        together = linear(x)
        for row in range(16):
            assert torch.equal(linear(x[row : row + 1])[0], together[row])
        assert torch.equal(linear(torch.zeros(2, 896)), linear(torch.zeros(1, 896)).expand(2, -1))


def test_the_language_model_says_nearly_the_same(toy_tensors: Checkpoint) -> None:
    dims = toy_tensors.dims.language_model
    exact = LanguageModel.from_tensors(dims, toy_tensors.language_model)
    eight_bits = LanguageModel.from_tensors(dims, toy_tensors.language_model)
    use_int8(eight_bits)
    text = torch.randint(0, dims.text_vocab, (40,), generator=torch.Generator().manual_seed(0))
    logits = []
    for model in (exact, eight_bits):
        cache = KVCache.allocate(dims, 1, 128)
        logits.append(model.prefill(model.embed_prefix(text, text[:0]), cache, cache.take(), 0))
    near, far = logits[1] - logits[0], logits[0] - logits[0].mean()
    assert 0 < near.std() < 0.1 * far.std()


def test_without_a_fast_exact_product_it_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    linear, x = Projection(torch.randn(300, 896), torch.randn(300)), torch.randn(5, 896)
    with torch.inference_mode():
        usual = Int8Linear(linear)(x)
        monkeypatch.setattr(int8, "packs_exactly", lambda: False)
        torch.testing.assert_close(Int8Linear(linear)(x), usual, rtol=1e-6, atol=1e-5)
