"""Text tokens to speech tokens: Qwen2 between CosyVoice2's embeddings and its speech head, inference only."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.dims import LanguageModelDims
from serve_app.model.kv_cache import KVCache
from serve_app.model.layers import frozen
from serve_app.model.transformer import DecoderLayer, Reading, Rotary, RowReading, SpanReading

BACKBONE = "llm.model.model."
"""Where the names of Qwen2's own tensors start."""

UNUSED_TENSORS = frozenset({"llm.model.lm_head.weight"})
"""Qwen2's text head: in the checkpoint, 151936 ways wide, and never used for speech."""

_SOS, _TASK = 0, 1


def expected_tensors(dims: LanguageModelDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that is used of llm.pt."""
    query, key_value = dims.query_heads * dims.head_dim, dims.kv_heads * dims.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "llm_embedding.weight": (2, dims.hidden),
        "speech_embedding.weight": (dims.num_logits, dims.hidden),
        "llm_decoder.weight": (dims.num_logits, dims.hidden),
        "llm_decoder.bias": (dims.num_logits,),
        f"{BACKBONE}embed_tokens.weight": (dims.text_vocab, dims.hidden),
        f"{BACKBONE}norm.weight": (dims.hidden,),
    }
    for layer in range(dims.layers):
        prefix = f"{BACKBONE}layers.{layer}."
        for name, width in (("q", query), ("k", key_value), ("v", key_value)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (width, dims.hidden)
            shapes[f"{prefix}self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (dims.hidden, query)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (dims.ffn, dims.hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (dims.ffn, dims.hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (dims.hidden, dims.ffn)
        shapes[f"{prefix}input_layernorm.weight"] = (dims.hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (dims.hidden,)
    return shapes


class LanguageModel(nn.Module):
    """Qwen2 with CosyVoice2's embeddings and head. All state is in the `KVCache` that is passed in.

    The caller keeps track of positions: a stream's position is how many entries of its slot are written.
    """

    def __init__(self, dims: LanguageModelDims, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.dims = dims
        self.layers = nn.ModuleList(
            DecoderLayer(dims, tensors, f"{BACKBONE}layers.{layer}.") for layer in range(dims.layers)
        )
        self.norm = frozen(tensors[f"{BACKBONE}norm.weight"])
        self.text_embedding = frozen(tensors[f"{BACKBONE}embed_tokens.weight"])
        self.mark_embedding = frozen(tensors["llm_embedding.weight"])
        self.speech_embedding = frozen(tensors["speech_embedding.weight"])
        self.head_weight = frozen(tensors["llm_decoder.weight"])
        self.head_bias = frozen(tensors["llm_decoder.bias"])

    @classmethod
    def from_tensors(cls, dims: LanguageModelDims, tensors: Mapping[str, Tensor]) -> "LanguageModel":
        """tensors: as `expected_tensors` says."""
        return cls(dims, tensors).eval()

    def reduce(self, dtype: torch.dtype) -> "LanguageModel":
        """The products of the layers, and the text's embeddings, in another precision. What is added up from layer to
        layer, the norms and the head stay as they are: they cost little, and where two tokens are nearly as likely
        it is their rounding that chooses."""
        norms = [norm for layer in self.layers if isinstance(layer, DecoderLayer) for norm in layer.norms]
        exact = (*norms, self.norm, self.head_weight, self.head_bias, self.speech_embedding, self.mark_embedding)
        kept = [weight.data for weight in exact]
        self.to(dtype)
        for weight, data in zip(exact, kept, strict=True):
            weight.data = data
        return self

    @torch.inference_mode()
    def embed_text(self, ids: Tensor) -> Tensor:
        """ids: [T] text tokens, on any device -> [T, hidden]."""
        return F.embedding(ids.to(self.text_embedding.device), self.text_embedding)

    @torch.inference_mode()
    def embed_speech(self, ids: Tensor) -> Tensor:
        """ids: [N] speech tokens, on any device -> [N, hidden]."""
        return F.embedding(ids.to(self.speech_embedding.device), self.speech_embedding)

    @torch.inference_mode()
    def embed_marks(self, ids: Tensor) -> Tensor:
        """ids: [M], 0 = start of the sequence, 1 = "speak now", on any device -> [M, hidden]."""
        return F.embedding(ids.to(self.mark_embedding.device), self.mark_embedding)

    @torch.inference_mode()
    def embed_prefix(self, text_ids: Tensor, speech_ids: Tensor) -> Tensor:
        """What the model reads before it speaks: start, text, "speak now", the prompt's speech.

        text_ids: [T], prompt text and text; speech_ids: [N] -> [T + N + 2, hidden].
        """
        return torch.cat(
            (
                self.mark_embedding[_SOS, None],
                self.embed_text(text_ids),
                self.mark_embedding[_TASK, None],
                self.embed_speech(speech_ids),
            )
        )

    @torch.inference_mode()
    def prefill(self, embeddings: Tensor, cache: KVCache, slot: int, position: int) -> Tensor:
        """Reads S more entries of one stream.

        embeddings: [S, hidden], S >= 1; position: entries already in the slot -> logits [V] after the last one.
        Raises ValueError when the slot does not hold position + S entries.
        """
        count = len(embeddings)
        cache.span(position + count)
        places = torch.arange(position, position + count, device=embeddings.device)
        mask = torch.arange(position + count, device=embeddings.device) <= places[:, None]
        rotary = self._rotary(places)
        x = embeddings.to(self.norm.dtype)
        for index, (layer, keys, values) in enumerate(zip(self.layers, cache.keys, cache.values, strict=True)):
            assert isinstance(layer, DecoderLayer)
            # Of the last layer all keys and values are needed, but only one output.
            num_wanted = 1 if index == len(self.layers) - 1 else count
            x = layer.prefill(x, rotary, mask, keys[slot], values[slot], position, num_wanted)
        return self._logits(x)[0]

    @torch.inference_mode()
    def decode(self, speech_ids: Tensor, cache: KVCache, slots: Tensor, positions: Tensor) -> Tensor:
        """Reads one speech token of each of B streams.

        speech_ids, slots, positions: [B] each, the slots distinct; positions on the CPU, so that finding the longest
        stream does not wait for a GPU -> logits [B, V].
        Raises ValueError when a slot is full.
        """
        span = cache.span(int(positions.max()) + 1)
        device = self.speech_embedding.device
        if device.type != "cpu":
            return self.decode_span(speech_ids.to(device), cache, slots.to(device), positions.to(device), span)
        rows = [(slot, position + 1) for slot, position in zip(slots.tolist(), positions.tolist(), strict=True)]
        return self._decode(speech_ids, cache, RowReading(slots, positions, rows))

    @torch.inference_mode()
    def decode_span(self, speech_ids: Tensor, cache: KVCache, slots: Tensor, positions: Tensor, span: int) -> Tensor:
        """`decode` with everything on the model's device and the cache read up to `span`: no data is looked at."""
        places = torch.arange(span, device=positions.device)
        mask = (places <= positions[:, None])[:, None, None]
        return self._decode(speech_ids, cache, SpanReading(slots, positions, mask))

    def _decode(self, speech_ids: Tensor, cache: KVCache, reading: Reading) -> Tensor:
        rotary = self._rotary(reading.positions)
        x = self.embed_speech(speech_ids)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            assert isinstance(layer, DecoderLayer)
            x = layer.decode(x, rotary, keys, values, reading)
        return self._logits(x)

    def _rotary(self, positions: Tensor) -> Rotary:
        return Rotary.at(positions, self.dims.head_dim, self.dims.rope_theta)

    def _logits(self, x: Tensor) -> Tensor:
        """x: [N, hidden] -> [N, V], in the head's precision."""
        normed = F.rms_norm(x, (self.dims.hidden,), self.norm, self.dims.rms_eps)
        return F.linear(normed, self.head_weight, self.head_bias)
