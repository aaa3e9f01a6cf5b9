"""The language model against transformers' Qwen2 on the same random weights, and against itself: whole = chunked,
batched = alone, a used slot = a fresh one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from serve_app.model.dims import LanguageModelDims
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import BACKBONE, LanguageModel, expected_tensors

DIMS = LanguageModelDims(
    hidden=64,
    layers=2,
    query_heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    rms_eps=1e-3,  # large enough to matter
    rope_theta=1e6,
    text_vocab=50,
    speech_vocab=40,
)
TOLERANCE = 1e-4
TEXT = torch.tensor([3, 14, 15, 9, 26, 5])
PROMPT = torch.tensor([2, 7, 1, 8])


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    made = {}
    for name, shape in expected_tensors(DIMS).items():
        scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
        made[name] = torch.randn(shape, generator=generator) * scale + (1.0 if "norm" in name else 0.0)
    return made


@pytest.fixture(scope="module")
def model(tensors: dict[str, Tensor]) -> LanguageModel:
    return LanguageModel.from_tensors(DIMS, tensors)


@pytest.fixture
def cache() -> KVCache:
    return KVCache.allocate(DIMS, num_slots=4, max_positions=300, poison=True)


def qwen2_logits(tensors: dict[str, Tensor], embeddings: Tensor) -> Tensor:
    """transformers' Qwen2 and a linear head. embeddings: [S, hidden] -> [S, V]."""
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=DIMS.text_vocab,
        hidden_size=DIMS.hidden,
        intermediate_size=DIMS.ffn,
        num_hidden_layers=DIMS.layers,
        num_attention_heads=DIMS.query_heads,
        num_key_value_heads=DIMS.kv_heads,
        rms_norm_eps=DIMS.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": DIMS.rope_theta},
    )
    reference = transformers.Qwen2Model(config).eval()
    reference.load_state_dict(
        {name.removeprefix(BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
    )
    with torch.inference_mode():
        hidden: Tensor = reference(inputs_embeds=embeddings[None]).last_hidden_state[0]
    return F.linear(hidden, tensors["llm_decoder.weight"], tensors["llm_decoder.bias"])


def test_prefill_and_decode_equal_transformers(
    model: LanguageModel, tensors: dict[str, Tensor], cache: KVCache
) -> None:
    tokens = torch.randint(0, DIMS.speech_vocab, (122,), generator=torch.Generator().manual_seed(1))
    prefix = model.embed_prefix(TEXT, PROMPT)
    expected = qwen2_logits(tensors, torch.cat((prefix, model.embed_speech(tokens))))
    slot = cache.take()

    assert (model.prefill(prefix, cache, slot, 0) - expected[len(prefix) - 1]).abs().max() < TOLERANCE
    # 122 tokens after the prefix: the read span grows from 128 to 256 on the way.
    for step, token in enumerate(tokens):
        position = len(prefix) + step
        logits = model.decode(token[None], cache, torch.tensor([slot]), torch.tensor([position]))[0]
        assert (logits - expected[position]).abs().max() < TOLERANCE


def test_prefix_is_start_text_task_speech(model: LanguageModel, tensors: dict[str, Tensor]) -> None:
    expected = torch.cat(
        (
            tensors["llm_embedding.weight"][:1],
            tensors[f"{BACKBONE}embed_tokens.weight"][TEXT],
            tensors["llm_embedding.weight"][1:],
            tensors["speech_embedding.weight"][PROMPT],
        )
    )
    assert torch.equal(model.embed_prefix(TEXT, PROMPT), expected)
    assert len(model.embed_prefix(TEXT, PROMPT[:0])) == len(TEXT) + 2


@pytest.mark.parametrize("sizes", [(1, 11), (5, 7), (4, 4, 4), (11, 1)])
def test_prefill_in_parts_equals_whole(model: LanguageModel, cache: KVCache, sizes: tuple[int, ...]) -> None:
    embeddings = model.embed_prefix(TEXT, PROMPT)
    whole = model.prefill(embeddings, cache, cache.take(), 0)
    slot, position = cache.take(), 0
    logits = torch.empty(0)
    for part in torch.split(embeddings, list(sizes)):
        logits = model.prefill(part, cache, slot, position)
        position += len(part)
    assert position == len(embeddings)
    assert (logits - whole).abs().max() < TOLERANCE


def test_text_fed_later_equals_text_in_one_sequence(
    model: LanguageModel, tensors: dict[str, Tensor], cache: KVCache
) -> None:
    """Text streaming: text, speech, then more text at a later position."""
    first, speech, second = model.embed_text(TEXT[:3]), PROMPT, model.embed_text(TEXT[3:])
    expected = qwen2_logits(tensors, torch.cat((first, model.embed_speech(speech), second)))
    slot = cache.take()
    model.prefill(first, cache, slot, 0)
    for step, token in enumerate(speech):
        model.decode(token[None], cache, torch.tensor([slot]), torch.tensor([3 + step]))
    logits = model.prefill(second, cache, slot, 3 + len(speech))
    assert (logits - expected[-1]).abs().max() < TOLERANCE


def test_batched_decode_equals_alone(model: LanguageModel, cache: KVCache) -> None:
    """Three streams at different positions, one of them beyond the first span, in slots out of order."""
    generator = torch.Generator().manual_seed(2)
    prefixes = [model.embed_prefix(TEXT, torch.randint(0, 40, (n,), generator=generator)) for n in (0, 140, 30)]
    steps = torch.randint(0, 40, (5, 3), generator=generator)

    alone = []
    for row, prefix in enumerate(prefixes):
        slot = cache.take()
        model.prefill(prefix, cache, slot, 0)
        positions = [torch.tensor([len(prefix) + step]) for step in range(len(steps))]
        alone.append(
            [
                model.decode(steps[step, row, None], cache, torch.tensor([slot]), at)[0]
                for step, at in enumerate(positions)
            ]
        )
        cache.give_back(slot)

    filler, *slots = [cache.take() for _ in range(4)]
    for slot, prefix in zip(slots, prefixes, strict=True):
        model.prefill(prefix, cache, slot, 0)
    for step, tokens in enumerate(steps):
        positions_now = torch.tensor([len(prefix) + step for prefix in prefixes])
        logits = model.decode(tokens, cache, torch.tensor(slots), positions_now)
        for row in range(3):
            assert (logits[row] - alone[row][step]).abs().max() < TOLERANCE
        # Again, in fixed shapes: the same entries are written, and a row of another slot fills the batch up.
        fixed = model.decode_span(
            torch.cat((tokens, tokens[:1])),
            cache,
            torch.tensor([*slots, filler]),
            torch.cat((positions_now, torch.zeros(1, dtype=torch.int64))),
            cache.span(int(positions_now.max()) + 1),
        )
        assert (fixed[:3] - logits).abs().max() < TOLERANCE


def test_in_bf16_norms_head_and_speech_embeddings_stay_exact(model: LanguageModel, tensors: dict[str, Tensor]) -> None:
    reduced = LanguageModel.from_tensors(DIMS, tensors).reduce(torch.bfloat16)
    assert reduced.text_embedding.dtype is torch.bfloat16
    for layer in reduced.layers:
        exact = {id(norm) for norm in (layer.attention_norm, layer.mlp_norm)}
        assert {weight.dtype for weight in layer.parameters() if id(weight) not in exact} == {torch.bfloat16}
    kept = dict(model.named_parameters())
    for name, weight in reduced.named_parameters():
        assert weight.dtype is torch.bfloat16 or torch.equal(weight, kept[name])
    prefix = torch.arange(4)
    logits = []
    for each, dtype in ((model, torch.float32), (reduced, torch.bfloat16)):
        cache = KVCache.allocate(DIMS, 1, 16, dtype)
        logits.append(each.prefill(each.embed_prefix(prefix, prefix[:0]), cache, cache.take(), 0))
    assert logits[1].dtype is torch.float32
    assert 0 < (logits[0] - logits[1]).abs().max() < 0.05 * logits[0].abs().max()


def test_used_slot_equals_fresh_slot(model: LanguageModel, tensors: dict[str, Tensor]) -> None:
    cache = KVCache.allocate(DIMS, num_slots=1, max_positions=64, poison=True)
    results = []
    for length in (3, 50, 3):
        slot = cache.take()
        prefix = model.embed_prefix(TEXT, torch.arange(length) % 40)
        model.prefill(prefix, cache, slot, 0)
        results.append(model.decode(PROMPT[:1], cache, torch.tensor([slot]), torch.tensor([len(prefix)]))[0])
        cache.give_back(slot)
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_reading_a_free_slot_fails_loudly(model: LanguageModel, cache: KVCache) -> None:
    slot = cache.take()
    prefix = model.embed_prefix(TEXT, PROMPT)
    model.prefill(prefix, cache, slot, 0)
    cache.give_back(slot)
    assert model.decode(PROMPT[:1], cache, torch.tensor([slot]), torch.tensor([len(prefix)])).isnan().all()


def test_a_broken_stream_leaves_nothing_in_its_slot(model: LanguageModel) -> None:
    """Even without poisoning, infinities and NaN of one stream never reach the next."""
    cache = KVCache.allocate(DIMS, num_slots=1, max_positions=64)
    slot = cache.take()
    model.prefill(torch.full((40, DIMS.hidden), torch.nan), cache, slot, 0)
    cache.give_back(slot)
    slot = cache.take()
    model.prefill(model.embed_prefix(TEXT, PROMPT), cache, slot, 0)
    assert model.decode(PROMPT[:1], cache, torch.tensor([slot]), torch.tensor([12])).isfinite().all()


def test_decode_touches_only_the_needed_positions(model: LanguageModel) -> None:
    cache = KVCache.allocate(DIMS, num_slots=1, max_positions=1000)
    slot = cache.take()
    prefix = model.embed_prefix(TEXT, PROMPT)
    model.prefill(prefix, cache, slot, 0)
    cache.keys[:, :, :, 128:] = torch.nan
    cache.values[:, :, :, 128:] = torch.nan
    assert model.decode(PROMPT[:1], cache, torch.tensor([slot]), torch.tensor([len(prefix)])).isfinite().all()


def test_full_slot_is_refused(model: LanguageModel) -> None:
    cache = KVCache.allocate(DIMS, num_slots=1, max_positions=12)
    slot = cache.take()
    model.prefill(model.embed_prefix(TEXT, PROMPT), cache, slot, 0)
    with pytest.raises(ValueError, match="13 positions do not fit a slot of 12"):
        model.decode(PROMPT[:1], cache, torch.tensor([slot]), torch.tensor([12]))
    with pytest.raises(ValueError, match="13 positions do not fit a slot of 12"):
        model.prefill(model.embed_text(TEXT[:1]), cache, slot, 12)


def test_slots_are_taken_once_and_returned_once(cache: KVCache) -> None:
    taken = {cache.take() for _ in range(4)}
    assert taken == {0, 1, 2, 3}
    assert cache.num_free == 0
    with pytest.raises(IndexError):
        cache.take()
    cache.give_back(2)
    assert cache.num_free == 1
    for wrong in (2, 4, -1):
        with pytest.raises(ValueError, match="not taken"):
            cache.give_back(wrong)
    assert cache.take() == 2


def test_real_size_names_and_shapes_are_upstreams() -> None:
    """Against the listing of the real checkpoint's state dict, for its first layer and all outside the layers."""
    real = LanguageModelDims(
        hidden=896,
        layers=24,
        query_heads=14,
        kv_heads=2,
        head_dim=64,
        ffn=4864,
        rms_eps=1e-6,
        rope_theta=1e6,
        text_vocab=151936,
    )
    expected = expected_tensors(real)
    assert len(expected) == 294  # of the 295 in llm.pt, all but the unused text head
    assert expected[f"{BACKBONE}layers.23.mlp.down_proj.weight"] == (896, 4864)
    assert expected[f"{BACKBONE}layers.0.self_attn.k_proj.bias"] == (128,)
    assert expected["llm_decoder.weight"] == (6564, 896)
    assert sum(torch.Size(shape).numel() for shape in expected.values()) == 505_803_812
