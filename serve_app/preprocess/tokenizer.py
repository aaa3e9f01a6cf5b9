"""Text to token ids with the tokenizer of a checkpoint directory: Qwen2's byte-level BPE and CosyVoice2's own tags."""

import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from serve_app.errors import CheckpointError
from serve_app.messages import Int32Array
from serve_app.preprocess.word_table import shorten

FOLDER = "CosyVoice-BlankEN"
SpanCount = Callable[[int, int], int]
"""From [start, end) in a text to about how many tokens stand there."""
_REMEMBERED_TEXTS, _REMEMBERED_LENGTH = 1024, 1000
VOCABULARY = tuple(f"{FOLDER}/{name}" for name in ("tokenizer.json", "vocab.json", "merges.txt"))
"""The files that decide which ids a text has; a checkpoint has the first, or the two others."""
END_OF_PROMPT = "<|endofprompt|>"
SPEECH_TAGS = (
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
)
"""Tags that the model performs instead of reading, in the order of their ids (upstream `CosyVoice2Tokenizer`)."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", END_OF_PROMPT, *SPEECH_TAGS)
"""In the order of their ids, which follow the BPE vocabulary's."""

# Qwen2's pre-tokenizer: contractions, words with one leading mark, single digits, marks, line ends, spaces.
_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoding:
    """ids: int32 [T]. starts: for each, the character of the text where it begins, in rising order."""

    ids: Int32Array
    starts: list[int]


class Tokenizer:
    """Encodes text as upstream's `CosyVoice2Tokenizer` does on the same files. Safe to share between threads."""

    def __init__(self, backend: Backend) -> None:
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
        shorten(backend)
        self._backend = backend
        self._remembered = lru_cache(maxsize=_REMEMBERED_TEXTS)(self._encode)
        self.end_of_prompt_id: int = backend.token_to_id(END_OF_PROMPT) or 0

    @classmethod
    def from_checkpoint(cls, directory: Path) -> "Tokenizer":
        """Loads `directory`/CosyVoice-BlankEN: tokenizer.json, or vocab.json and merges.txt.

        Raises CheckpointError when files are missing or cannot be read.
        """
        folder = directory / FOLDER
        try:
            if (folder / "tokenizer.json").is_file():
                return cls(Backend.from_file(str(folder / "tokenizer.json")))
            return cls(_from_slow_files(folder))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"The tokenizer is incomplete: {FOLDER}/{Path(error.filename).name} is missing."
            ) from error
        except CheckpointError:
            raise
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise CheckpointError(f"The tokenizer in {FOLDER} cannot be read: {error}") from error

    @property
    def num_ids(self) -> int:
        """One more than the largest id that `encode` can give."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> Int32Array:
        """int32 [T], T = 0 for an empty text; not writable. Tags and control tokens become their own ids."""
        return self._encoding(text).ids

    def _encoding(self, text: str) -> _Encoding:
        return self._remembered(text) if len(text) <= _REMEMBERED_LENGTH else self._encode(text)

    def _encode(self, text: str) -> _Encoding:
        encoding = self._backend.encode(text)
        ids = np.asarray(encoding.ids, dtype=np.int32)
        ids.flags.writeable = False
        return _Encoding(ids, sorted(start for start, _ in encoding.offsets))

    def spans(self, text: str) -> SpanCount:
        """About how many ids any part [start, end) of a text has, for one encoding of the whole.

        A splitter asks for many parts, and need not pay for encoding each. At a part's edges it may be one or two off.
        """
        starts = self._encoding(text).starts
        return lambda start, end: bisect_left(starts, end) - bisect_left(starts, start)

    def decode(self, ids: Int32Array) -> str:
        """The text of ids, special tokens included."""
        text: str = self._backend.decode([int(i) for i in ids], skip_special_tokens=False)
        return text


def _from_slow_files(folder: Path) -> Backend:
    """What transformers' Qwen2Tokenizer builds from vocab.json, merges.txt and tokenizer_config.json."""
    vocab: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    merges = [(left, right) for left, space, right in (line.partition(" ") for line in lines) if space]
    backend = Backend(BPE(vocab=vocab, merges=merges, fuse_unk=False, byte_fallback=False))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    config_path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    added = sorted((int(key), token["content"]) for key, token in config.get("added_tokens_decoder", {}).items())
    for token_id, content in added:
        backend.add_special_tokens([AddedToken(content, special=True, normalized=False)])
        if backend.token_to_id(content) != token_id:
            raise CheckpointError(f"The tokenizer's vocabulary does not leave id {token_id} free for an added token.")
    return backend
