"""Our tokenizer against transformers', set up as upstream sets it up, on the same files."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.errors import CheckpointError
from serve_app.preprocess.tokenizer import FOLDER, SPECIAL_TOKENS, SPEECH_TAGS, Tokenizer

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces  and\ttabs\n\nlines \r\n end ",
    "I'll say it's what they've DON'T 'd",
    "3.14159 and $3.50, 10% of 1,000,000",
    "收到好友从远方寄来的生日礼物，那份意外的惊喜。",
    "今天是2024年5月1日，Hello世界！",
    "😀 emoji 👩‍👩‍👧‍👦 and 🇩🇪 flags",
    "e\u0301 decomposed, é composed, \u1112\u1161\u11ab Hangul jamo",
    "[laughter]停下来[breath]，<strong>真的</strong>很<laughter>好笑</laughter>。",
    "Say it happily.<|endofprompt|>Hello",
    "<|im_start|>system<|im_end|><|endoftext|>",
    "[vocalized-noise][lipsmack] [mn] [quick_breath][clucking] [notatag] <strongest>",
    "日本語のテキスト。한국어 텍스트. Ελληνικά. العربية. עברית. ไทย",
    "zero\u200bwidth \ufeff bom \x00\x07 control \u2028 separator",
    "a" * 300,
    "!!!???...———「」『』《》",
]


def random_text(rng: random.Random) -> str:
    ranges = [(32, 126), (0x4E00, 0x9FFF), (0xA0, 0x24F), (0x1F300, 0x1F6FF), (9, 13), (0x300, 0x36F), (0x3040, 0x30FF)]
    parts = []
    for _ in range(rng.randint(1, 30)):
        if rng.random() < 0.15:
            parts.append(rng.choice(SPECIAL_TOKENS))
        low, high = rng.choice(ranges)
        parts.append(chr(rng.randint(low, high)))
    return "".join(parts)


def upstream_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer as upstream's CosyVoice2Tokenizer makes it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens(
        {
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        }
    )
    return tokenizer


def test_ids_equal_those_of_upstream(frontend: Path) -> None:
    theirs = upstream_tokenizer(frontend / FOLDER)
    ours = Tokenizer.from_checkpoint(frontend)
    rng = random.Random(0)
    for text in TEXTS + [random_text(rng) for _ in range(300)]:
        expected = theirs([text])["input_ids"][0]
        got = ours.encode(text)
        assert got.dtype == np.int32
        assert got.tolist() == expected, repr(text)
        assert ours.spans(text)(0, len(text)) == len(expected)


def test_a_tokenizer_json_gives_the_same_ids(frontend: Path, tmp_path: Path) -> None:
    ours = Tokenizer.from_checkpoint(frontend)
    (tmp_path / FOLDER).mkdir()
    upstream_tokenizer(frontend / FOLDER).backend_tokenizer.save(str(tmp_path / FOLDER / "tokenizer.json"))
    fast = Tokenizer.from_checkpoint(tmp_path)
    for text in TEXTS:
        assert fast.encode(text).tolist() == ours.encode(text).tolist()


def test_special_tokens_follow_the_vocabulary_in_order(frontend: Path) -> None:
    ours = Tokenizer.from_checkpoint(frontend)
    vocab_size = len(json.loads((frontend / FOLDER / "vocab.json").read_text(encoding="utf-8")))
    ids = [ours.encode(token).tolist() for token in SPECIAL_TOKENS]
    assert ids == [[vocab_size + i] for i in range(20)]
    assert ours.end_of_prompt_id == vocab_size + 3
    assert len(SPEECH_TAGS) == 16
    assert ours.num_ids == vocab_size + 20 <= 1024


def test_text_survives_a_round_trip(frontend: Path) -> None:
    ours = Tokenizer.from_checkpoint(frontend)
    text = "Hello [laughter] 你好，world 😀"
    assert ours.decode(ours.encode(text)) == text


def test_parts_of_a_text_are_counted_from_one_encoding(frontend: Path) -> None:
    ours = Tokenizer.from_checkpoint(frontend)
    text = "Hello there, how are you? [laughter] 你好，今天天气怎么样？ Fine 😀, thanks."
    count = ours.spans(text)
    edges = [0, *(i for i, character in enumerate(text) if character == " "), len(text)]
    for start, end in itertools.combinations(edges, 2):
        assert abs(count(start, end) - len(ours.encode(text[start:end].strip()))) <= 3, text[start:end]
    assert sum(count(a, b) for a, b in itertools.pairwise(edges)) == len(ours.encode(text))


def test_a_text_is_encoded_once_and_its_ids_cannot_be_changed(frontend: Path) -> None:
    ours = Tokenizer.from_checkpoint(frontend)
    ids = ours.encode("Hello there.")
    assert ours.encode("Hello there.") is ids
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 0


def test_merges_shorten_common_words(frontend: Path) -> None:
    assert len(Tokenizer.from_checkpoint(frontend).encode(" the weather and the service")) <= 8


def test_a_broken_tokenizer_is_named(frontend: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vocab\.json is missing"):
        Tokenizer.from_checkpoint(tmp_path)
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(CheckpointError, match=r"merges\.txt is missing"):
        Tokenizer.from_checkpoint(tmp_path)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"added_tokens_decoder": {"5": {"content": "<|endoftext|>"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="id 5"):
        Tokenizer.from_checkpoint(tmp_path)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Tokenizer.from_checkpoint(tmp_path)


def test_the_backend_is_bytes_complete(frontend: Path) -> None:
    vocab = json.loads((frontend / FOLDER / "vocab.json").read_text(encoding="utf-8"))
    assert sum(len(token) == 1 for token in vocab) == 256
