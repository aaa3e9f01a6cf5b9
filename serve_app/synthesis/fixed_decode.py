"""The language model's decode in calls of fixed shape, one for each (batch bucket, span), for CUDA graphs."""

import torch
from torch import Tensor

from serve_app.model.kv_cache import SPAN_STEP, KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.paged_chunks import BATCH_BUCKETS, bucket
from serve_app.synthesis.cuda_graphs import Graphs


class FixedDecode:
    """Fills a batch up to its bucket with rows that write to a slot of their own."""

    def __init__(self, model: LanguageModel, cache: KVCache, graphs: Graphs) -> None:
        self._model = model
        self._cache = cache
        self._spare_slot = cache.take()
        self._call = graphs.wrap(self._decode)
        self._device = cache.keys.device

    def __call__(self, speech_ids: Tensor, slots: Tensor, positions: Tensor) -> Tensor:
        """speech_ids, slots, positions: [B], on the CPU -> logits [B, V]. Raises ValueError when a slot is full."""
        span = self._cache.span(int(positions.max()) + 1)
        idle = bucket(len(speech_ids), BATCH_BUCKETS) - len(speech_ids)
        rows = torch.stack((speech_ids, slots, positions))
        filler = torch.tensor([[0], [self._spare_slot], [0]]).expand(3, idle)
        return self._run(torch.cat((rows, filler), dim=1), span)[: len(speech_ids)]

    def rehearse(self) -> None:
        """Every batch bucket that the slots can fill, at every span."""
        for batch in (size for size in BATCH_BUCKETS if size <= bucket(self._cache.num_slots - 1, BATCH_BUCKETS)):
            for end in range(SPAN_STEP, self._cache.max_positions + SPAN_STEP, SPAN_STEP):
                rows = torch.tensor([[0], [self._spare_slot], [0]]).expand(3, batch)
                self._run(rows, min(end, self._cache.max_positions))

    def _run(self, rows: Tensor, span: int) -> Tensor:
        """rows: [3, batch] -> [batch, V]. One copy takes all of a step to the device."""
        (logits,) = self._call(rows.to(self._device), torch.arange(span, device=self._device))
        return logits

    def _decode(self, rows: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """places: [span], whose length is what tells one captured call from another."""
        ids, slots, positions = rows.unbind()
        return (self._model.decode_span(ids, self._cache, slots, positions, len(places)),)
