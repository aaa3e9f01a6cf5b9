"""Speech tokens for a batch of streams: gather, forward, scatter."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from serve_app.errors import GenerationFailed, InputTooLong
from serve_app.messages import Int32Array
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.synthesis.cuda_graphs import Graphs
from serve_app.synthesis.fixed_decode import Drawn, FixedDecode, Turn
from serve_app.synthesis.guards import LengthRule, stuck_from
from serve_app.synthesis.interleave import Reading, Table
from serve_app.synthesis.sampling import Draw, uniforms, utterance_seed
from serve_app.synthesis.stream import SpeechStream


class LanguageStage:
    """Owns the language model's cache slots."""

    def __init__(
        self, model: LanguageModel, cache: KVCache, sampler: Draw, lengths: LengthRule, graphs: Graphs | None = None
    ) -> None:
        """graphs: decode batches in buckets, captured where there is a GPU; takes one slot for what fills them up."""
        self._decode_fixed = None if graphs is None else FixedDecode(model, cache, sampler, graphs)
        self._model = model
        self._cache = cache
        self._sampler = sampler
        self._lengths = lengths
        self._embeddings = {
            Table.MARK: model.embed_marks,
            Table.TEXT: model.embed_text,
            Table.SPEECH: model.embed_speech,
        }

    @property
    def num_free_slots(self) -> int:
        return self._cache.num_free

    def fits(self, stream: SpeechStream) -> bool:
        """Whether a slot holds what the stream may need: prompt, text and every new token, as far as they are known."""
        utterance = stream.utterance
        prompt = 2 + len(utterance.prefix_ids) + len(utterance.text_ids) + len(utterance.speech_prefix_ids)
        new = stream.max_tokens if stream.interleave is None else 1
        return prompt + new <= self._cache.max_positions

    def open(self, stream: SpeechStream) -> None:
        """Takes a slot. The caller has checked that one is free and that the utterance fits."""
        stream.slot = self._cache.take()
        if stream.interleave is not None:
            stream.max_tokens = self._cache.max_positions
            self._read_on(stream)
            return
        self._will_read(stream, self._embed_prompt(stream))

    def feed(self, stream: SpeechStream, text_ids: Int32Array) -> None:
        """More text, int32 [T], for a fed stream; ignored once its end was declared."""
        if stream.interleave is None or stream.interleave.ended:
            return
        stream.interleave.feed(text_ids.tolist())
        if stream.progress.waiting:
            self._read_on(stream)

    def end(self, stream: SpeechStream) -> None:
        """No text will follow. Idempotent."""
        if stream.interleave is None or stream.interleave.ended:
            return
        stream.interleave.ended = True
        if stream.progress.waiting:
            self._read_on(stream)

    def close(self, stream: SpeechStream) -> None:
        """Returns the slot; idempotent."""
        if stream.slot is not None:
            if self._decode_fixed is not None:
                self._decode_fixed.forget(stream.slot)
            self._cache.give_back(stream.slot)
            stream.slot = None

    def prefill(self, stream: SpeechStream, num_positions: int) -> None:
        """Reads the next positions of what the stream has to read, at most so many; after the last, draws a token."""
        assert stream.slot is not None and stream.unread is not None
        if stream.position + len(stream.unread) > self._cache.max_positions:
            self._outgrown(stream)
            return
        piece = stream.unread[:num_positions]
        logits = self._model.prefill(piece, self._cache, stream.slot, stream.position)
        stream.position += len(piece)
        stream.progress.unread -= len(piece)
        if stream.progress.unread:
            stream.unread = stream.unread[num_positions:]
        else:
            stream.unread = None
            self._draw([stream], logits[None])

    def decode(self, streams: Sequence[SpeechStream]) -> None:
        """One more token for each stream; streams whose utterance ends are marked and lose their slot."""
        fitting = []
        for stream in streams:
            if stream.position < self._cache.max_positions:
                fitting.append(stream)
            else:
                self._outgrown(stream)
        if not fitting:
            return
        if self._decode_fixed is not None:
            turns = [_turn(stream) for stream in fitting]
            drawn = self._decode_fixed(turns, list(map(self._next_turn, fitting)), [s.outputs for s in fitting])
            for stream in fitting:
                stream.position += 1
            self._receive(fitting, drawn)
            return
        last = torch.tensor([stream.tokens[-1] for stream in fitting])
        slots = torch.tensor([stream.slot for stream in fitting])
        positions = torch.tensor([stream.position for stream in fitting])
        logits = self._model.decode(last, self._cache, slots, positions)
        for stream in fitting:
            stream.position += 1
        self._draw(fitting, logits)

    def _next_turn(self, stream: SpeechStream) -> Turn | None:
        """The draw after the next one, if it is sure to come unless the model ends the utterance, or asks for text
        before its block of speech is full. Behind a full block fed text is read first; where all of it is, nothing is.
        """
        interleave = stream.interleave
        ends = len(stream.tokens) + 1 >= stream.max_tokens or stream.position + 1 >= self._cache.max_positions
        if interleave is not None and not interleave.complete:
            ends = ends or len(stream.outputs) + 1 >= interleave.next_fill
        return None if ends else _turn(stream, ahead=1)

    def rehearse(self) -> None:
        """Calls every bucket once where shapes are fixed: warm-up."""
        if self._decode_fixed is not None:
            self._decode_fixed.rehearse()

    @torch.inference_mode()
    def _draw(self, streams: Sequence[SpeechStream], logits: Tensor) -> None:
        """logits: [B, V], one row for each stream."""
        seeds = np.array([stream.seed for stream in streams], dtype=np.uint64)
        steps = np.array([len(stream.outputs) for stream in streams], dtype=np.uint64)
        window = self._sampler.window
        recent = np.full((len(streams), window), -1, dtype=np.int64)
        for row, stream in enumerate(streams):
            tail = stream.outputs[-window:]
            recent[row, : len(tail)] = tail
        allowed = torch.tensor([_stops_allowed(stream) for stream in streams])
        random = torch.from_numpy(uniforms(seeds, steps, 2))
        device = logits.device
        valid = logits.isfinite().all(dim=-1)
        # A row of NaN would make the sampler fail for everybody.
        logits = logits.masked_fill(~valid[:, None], 0.0)
        tokens = self._sampler(logits, torch.from_numpy(recent).to(device), allowed.to(device), random.to(device))
        self._receive(streams, torch.stack((tokens, valid), dim=1).tolist())

    def _receive(self, streams: Sequence[SpeechStream], drawn: Sequence[Drawn]) -> None:
        for stream, (token, is_valid) in zip(streams, drawn, strict=True):
            if is_valid:
                self._take(stream, token)
            else:
                stream.fault = GenerationFailed("the model produced no valid speech")

    def _take(self, stream: SpeechStream, token: int) -> None:
        dims = self._model.dims
        interleave = stream.interleave
        more_text = interleave is not None and not interleave.complete
        if token >= dims.eos_id:
            if more_text:
                self._ask_for_text(stream)
            else:
                self._end(stream)
            return
        stream.outputs.append(token)
        stream.tokens.append(token)
        stream.stuck_from = stuck_from(stream.tokens)
        if len(stream.tokens) >= stream.max_tokens or self._is_said(stream):
            self._end(stream)
        elif more_text and interleave is not None and len(stream.outputs) == interleave.next_fill:
            stream.unread_speech = (token,)
            self._ask_for_text(stream)

    def _is_said(self, stream: SpeechStream) -> bool:
        """Whether a stuck stream has spoken its text: then it ends here, and the listener hears some silence or drone
        after it, at most that of guards.py's window."""
        if stream.stuck_from is None:
            return False
        if stream.interleave is None:
            return self._lengths.is_said(stream.stuck_from, len(stream.utterance.text_ids))
        return stream.interleave.complete and self._lengths.is_said(stream.stuck_from, stream.interleave.num_text)

    def retry(self, stream: SpeechStream) -> None:
        """Takes a stuck stream back to where it was speech, to go on from another seed. Not for fed text."""
        assert stream.stuck_from is not None and stream.interleave is None
        utterance = stream.utterance
        num_prompt = 2 + len(utterance.prefix_ids) + len(utterance.text_ids) + len(utterance.speech_prefix_ids)
        # The last entry that stays is read again, for its logits.
        stream.position = num_prompt + stream.stuck_from - 1
        del stream.tokens[stream.stuck_from :]
        del stream.outputs[stream.stuck_from :]
        if not stream.tokens:
            self._will_read(stream, self._embed_prompt(stream)[-1:])
        stream.seed = utterance_seed(stream.seed, 0)
        stream.retried, stream.stuck_from = True, None

    def _embed_prompt(self, stream: SpeechStream) -> Tensor:
        utterance = stream.utterance
        text = np.concatenate((utterance.prefix_ids, utterance.text_ids))
        return self._model.embed_prefix(_ids(text), _ids(utterance.speech_prefix_ids))

    def _ask_for_text(self, stream: SpeechStream) -> None:
        """The model has spoken as much as the text that it has read allows."""
        assert stream.interleave is not None
        stream.outputs.append(self._model.dims.fill_id)
        stream.interleave.ask(len(stream.outputs))
        self._read_on(stream)

    def _read_on(self, stream: SpeechStream) -> None:
        """Lays out the text that a fed stream reads next, or marks it as waiting for more."""
        interleave = stream.interleave
        assert interleave is not None
        if interleave.ended and interleave.num_text == 0:
            self._end(stream)
            return
        spoken_last = [token for token in stream.outputs[-2:-1] if token < self._model.dims.eos_id]
        was_started = interleave.started
        reading = interleave.next_reading(spoken_last)
        stream.progress.waiting = reading is None
        if reading is None:
            return
        self._will_read(stream, self._embed(((Table.SPEECH, stream.unread_speech), *reading)))
        stream.unread_speech = ()
        if interleave.complete:
            stream.min_tokens, stream.max_tokens = self._lengths.bounds(interleave.num_text)
            if was_started:
                # Upstream masks the end no longer, and what is left of the text needs its own share of speech.
                stream.min_tokens = 0
                rest = self._lengths.bounds(len(interleave.held))[1]
                stream.max_tokens = max(stream.max_tokens, len(stream.tokens) + rest)

    def _embed(self, reading: Reading) -> Tensor:
        """Rows [S, hidden] of the model's input."""
        return torch.cat([self._embeddings[table](torch.tensor(ids, dtype=torch.int64)) for table, ids in reading])

    def _will_read(self, stream: SpeechStream, embeddings: Tensor) -> None:
        stream.unread = embeddings
        stream.progress.unread = len(embeddings)

    def _outgrown(self, stream: SpeechStream) -> None:
        stream.fault = InputTooLong("the text fed to one utterance is too long for the model")

    def _end(self, stream: SpeechStream) -> None:
        stream.progress.generated = True
        stream.progress.waiting = False
        self.close(stream)


def _turn(stream: SpeechStream, ahead: int = 0) -> Turn:
    """The stream's next draw, or the one so many after it."""
    assert stream.slot is not None
    allowed = _stops_allowed(stream, ahead)
    return Turn(stream.slot, stream.position + ahead, len(stream.outputs) + ahead, stream.seed, allowed)


def _stops_allowed(stream: SpeechStream, ahead: int = 0) -> tuple[bool, bool, bool]:
    """Which of the last three ids may be drawn: end, the unused one, fill; ahead: after so many more tokens."""
    if stream.interleave is not None and not stream.interleave.complete:
        return False, False, True
    late = len(stream.tokens) + ahead >= stream.min_tokens
    return late, late, late


def _ids(array: Int32Array) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
