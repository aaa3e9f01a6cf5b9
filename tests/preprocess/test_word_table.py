"""The word table against the tokenizers library's own sequence of replacements."""

import random
from pathlib import Path

from tokenizers import NormalizedString, Tokenizer, normalizers

from serve_app.preprocess.word_table import WordTable, shorten

DEMO = Path(__file__).parents[2] / "pretrained_models/cosyvoice2-demo/CosyVoice-BlankEN/tokenizer.json"


def random_string(rng: random.Random, letters: str, longest: int, shortest: int = 0) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(shortest, longest)))


def test_it_does_what_the_whole_sequence_does() -> None:
    """Short words over few letters: replacements delete, overlap, feed later ones and undo earlier ones."""
    rng = random.Random(0)
    for _ in range(40):
        inert = rng.choice(["", "XYZ"])
        pairs = [
            (random_string(rng, "ab '", 4, 1), random_string(rng, inert or "ab '", 3))
            for _ in range(rng.randint(1, 60))
        ]
        table = WordTable(pairs)
        sequence = normalizers.Sequence([normalizers.Replace(*pair) for pair in pairs])
        for _ in range(20):
            text = random_string(rng, "aabb 'c", 30)
            ours = NormalizedString(text)
            table.normalize(ours)
            assert ours.normalized == sequence.normalize_str(text), (text, pairs)


def test_a_word_may_be_made_by_an_earlier_one_but_not_by_a_later_one() -> None:
    assert WordTable([("a", "b"), ("b", "c")]).steps("a") == [0, 1]
    assert WordTable([("b", "c"), ("a", "b")]).steps("a") == [1]
    assert WordTable([("x", ""), ("ab", "c")]).steps("axb") == [0, 1]
    assert WordTable([("ab", "A"), ("b", "B")]).steps("ab") == [0]
    assert WordTable([("a", "1"), ("a", "2")]).steps("a") == [0]


def test_only_the_words_of_a_text_are_replaced() -> None:
    words = {f" word{number} ": f" W{number} " for number in range(1000)}
    table = WordTable(list(words.items()))
    assert table.steps(" word7  word7  other  word12 ") == [7, 12]


def test_the_demo_tokenizer_gives_the_same_ids_at_the_same_places() -> None:
    whole, short = (Tokenizer.from_file(str(DEMO)) for _ in range(2))
    shorten(short)
    assert isinstance(whole.normalizer, normalizers.Sequence) and len(whole.normalizer) > 50_000
    assert isinstance(short.normalizer, normalizers.Sequence) and len(short.normalizer) < 200
    rng = random.Random(1)
    known = "the a of don't I'm two-fold winter's read naïve Ångström q xyzzy [breath] <strong> AND, and; 42% … ' '' --"
    pieces = [*known.split(), " ", "\n", "  ", ".", "!?", "你好", "😀", "e\u0301", "\x00"]
    texts = ["", " ", "The weather is fine today, isn't it?", "the the the"]
    texts += [" ".join(rng.choices(pieces, k=rng.randint(1, 15))) for _ in range(30)]
    texts += ["".join(rng.choices(pieces, k=rng.randint(1, 15))) for _ in range(30)]
    for text in texts:
        wanted, got = whole.encode(text), short.encode(text)
        assert (got.ids, got.offsets) == (wanted.ids, wanted.offsets), repr(text)


def test_a_tokenizer_without_a_lexicon_is_left_alone() -> None:
    backend = Tokenizer.from_str(
        '{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]},'
        '"normalizer":{"type":"NFC"}}'
    )
    shorten(backend)
    assert isinstance(backend.normalizer, normalizers.NFC)
