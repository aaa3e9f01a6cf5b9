"""Speech tokens for a batch of streams: gather, forward, scatter."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.synthesis.guards import is_stuck
from serve_app.synthesis.sampling import Sampler, uniforms
from serve_app.synthesis.stream import SpeechStream


class LanguageStage:
    """Owns the language model's cache slots."""

    def __init__(self, model: LanguageModel, cache: KVCache, sampler: Sampler, first_stop_id: int) -> None:
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._first_stop_id = first_stop_id

    @property
    def num_free_slots(self) -> int:
        return self._cache.num_free

    def num_positions(self, stream: SpeechStream) -> int:
        """Cache positions the utterance may need: sos, prefix, text, task, speech prefix and every new token."""
        utterance = stream.utterance
        prompt = 2 + len(utterance.prefix_ids) + len(utterance.text_ids) + len(utterance.speech_prefix_ids)
        return prompt + stream.max_tokens

    def open(self, stream: SpeechStream) -> None:
        """Takes a slot. The caller has checked that one is free and that the utterance fits."""
        stream.slot = self._cache.take()

    def close(self, stream: SpeechStream) -> None:
        """Returns the slot; idempotent."""
        if stream.slot is not None:
            self._cache.give_back(stream.slot)
            stream.slot = None

    def prefill(self, stream: SpeechStream) -> None:
        """Reads prompt and text, and draws the first token."""
        assert stream.slot is not None
        utterance = stream.utterance
        text = np.concatenate((utterance.prefix_ids, utterance.text_ids))
        embeddings = self._model.embed_prefix(_ids(text), _ids(utterance.speech_prefix_ids))
        logits = self._model.prefill(embeddings, self._cache, stream.slot, 0)
        stream.position = len(embeddings)
        stream.progress.prefilled = True
        self._draw([stream], logits[None])

    def decode(self, streams: Sequence[SpeechStream]) -> None:
        """One more token for each stream; streams whose utterance ends are marked and lose their slot."""
        last = torch.tensor([stream.tokens[-1] for stream in streams])
        slots = torch.tensor([stream.slot for stream in streams])
        positions = torch.tensor([stream.position for stream in streams])
        logits = self._model.decode(last, self._cache, slots, positions)
        for stream in streams:
            stream.position += 1
        self._draw(streams, logits)

    def _draw(self, streams: Sequence[SpeechStream], logits: Tensor) -> None:
        seeds = np.array([stream.seed for stream in streams], dtype=np.uint64)
        steps = np.array([len(stream.tokens) for stream in streams], dtype=np.uint64)
        window = self._sampler.dims.win_size
        recent = torch.full((len(streams), window), -1)
        for row, stream in enumerate(streams):
            tail = stream.tokens[-window:]
            recent[row, : len(tail)] = torch.tensor(tail, dtype=torch.int64)
        allowed = torch.tensor([len(stream.tokens) >= stream.min_tokens for stream in streams])
        random = torch.from_numpy(uniforms(seeds, steps, 2))
        device = logits.device
        tokens = self._sampler(logits, recent.to(device), allowed.to(device), random.to(device))
        drawn: list[int] = tokens.tolist()
        for stream, token in zip(streams, drawn, strict=True):
            if token >= self._first_stop_id:
                self._end(stream)
                continue
            stream.tokens.append(token)
            if len(stream.tokens) >= stream.max_tokens or is_stuck(stream.tokens):
                self._end(stream)

    def _end(self, stream: SpeechStream) -> None:
        stream.progress.generated = True
        self.close(stream)


def _ids(array: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
