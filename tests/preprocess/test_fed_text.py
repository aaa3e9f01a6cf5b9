"""Text that arrives while it is spoken gives the ids of the whole sentence, whatever the size of its parts."""

import random
from pathlib import Path

import numpy as np
import pytest

from serve_app.config import PreprocessConfig
from serve_app.errors import VoiceNotFound
from serve_app.messages import FedText, Int32Array, SpeechRequest
from serve_app.preprocess.fed_text import next_text, settled_end
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.preprocess.speakable import speakable
from serve_app.preprocess.tokenizer import Tokenizer
from tests.conftest import ROOT
from tests.preprocess.spoiled import VOICES

SENTENCES = [
    "The quick brown fox jumps over the lazy dog and then it runs away into the forest.",
    "Please call me back when you have the time, because there is a lot to talk about!",
    "Don't say **bold things** about “quoted words” — she said — or it's over; really?",
    "It costs $3.50 for the whole day and 5 dollars more on May 5, 2024, as Dr. Smith told us.",
    "On 3 June 2023 at 5 p.m. he ran 10 km in 45 min and drank 2 l of water, no. 7 of the team",
    "Ich möchte heute gern mit Ihnen über das Wetter und die Reise sprechen, wenn Sie Zeit haben.",
    "Der Zug fährt um 7:30 Uhr ab und kostet 12,50 Euro für alle, die mitkommen wollen.",
    "你好，今天天气怎么样我们一起去公园走走吧，收到好友从远方寄来的生日礼物真高兴。",
    "我有3个苹果和5个梨，2024年5月我们去北京旅游，票价是￥350。",
    "我爱用 Python 写代码，因为它很好用而且很容易学会",
    "今日はとても良い天気ですから、散歩に行きましょう。",
    "안녕하세요 오늘 날씨가 정말 좋네요 산책하러 갑시다.",
]
NO_LIMIT = 1000
NO_IDS = np.zeros(0, np.int32)


@pytest.fixture(scope="module")
def tokenizer(frontend: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(frontend)


def fed(text: str, ends: list[int], tokenizer: Tokenizer, max_tokens: int = NO_LIMIT) -> list[tuple[str, Int32Array]]:
    """What is given out after each of `ends`; the last of them is the end of the text."""
    parts: list[tuple[str, Int32Array]] = []
    ids, text_end = NO_IDS, 0
    for end in ends:
        given = next_text(FedText(text[:end], text_end, ids, final=end == len(text)), tokenizer, max_tokens)
        assert given.text_end >= text_end
        parts.append((text[text_end : given.text_end], given.ids))
        ids, text_end = np.concatenate((ids, given.ids)), given.text_end
        if given.full:
            break
    return parts


def whole_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    (piece,) = speakable(text, True, tokenizer, NO_LIMIT).pieces
    return list(piece.ids)


@pytest.mark.parametrize("text", SENTENCES)
def test_parts_joined_are_the_whole(text: str, tokenizer: Tokenizer) -> None:
    whole = whole_ids(text, tokenizer)
    draw = random.Random(text)
    letters = list(range(1, len(text) + 1))
    words = [end for end in letters if end == len(text) or text[end] == " "]
    some = sorted({*draw.sample(letters, len(text) // 4), len(text)})
    for ends in (letters, words, some, [len(text)]):
        parts = fed(text, ends, tokenizer)
        assert "".join(part for part, _ in parts) == text
        assert [token for _, ids in parts for token in ids] == whole


@pytest.mark.parametrize(
    ("text", "num_characters"),
    [
        ("", 0),
        ("H", 0),
        ("Hello", 0),
        ("Hello ", 5),
        ("Hello there", 5),
        ("Hello there, ", 12),
        ("He paid $3.50 ", 7),
        ("He paid $3.50 for the ", 7),
        ("He paid $3.50 for the whole ", 27),
        ("I met Dr. ", 5),
        ("I met Dr. Smith ", 15),
        ("on Mon ", 2),
        ("a b c ", 0),
        ("你好", 0),
        ("你好今天天气", 2),
        ("我有3个苹果好", 1),
        ("我有3个苹果好吃得很多人都", 9),
    ],
)
def test_what_may_still_change_is_held_back(text: str, num_characters: int) -> None:
    assert settled_end(text) == num_characters


def test_a_word_is_given_when_the_next_one_begins(tokenizer: Tokenizer) -> None:
    text = "Three plain words here."
    parts = fed(text, [5, 6, 11, 12, 17, 18, len(text)], tokenizer)
    assert [part for part, _ in parts] == ["", "Three", "", " plain", "", " words", " here."]
    assert [tokenizer.decode(ids) for _, ids in parts if len(ids)] == ["Three", " plain", " words", " here."]


def test_what_was_fed_stands_even_if_the_rest_would_have_changed_it(tokenizer: Tokenizer) -> None:
    said = tokenizer.encode("Something else")
    given = next_text(FedText("Hello there my friend", 11, said, final=True), tokenizer, NO_LIMIT)
    assert tokenizer.decode(given.ids) == " my friend."


def test_text_without_a_word_has_no_ids(tokenizer: Tokenizer) -> None:
    for text in ("", " ... ", "—", "😀"):
        given = next_text(FedText(text, 0, NO_IDS, final=True), tokenizer, NO_LIMIT)
        assert len(given.ids) == 0 and given.text_end == len(text)


def test_a_text_taken_as_it_is_is_not_put_into_words(tokenizer: Tokenizer) -> None:
    given = next_text(FedText("It costs $3.50", 0, NO_IDS, final=True, normalize=False), tokenizer, NO_LIMIT)
    assert tokenizer.decode(given.ids) == "It costs $3.50"


@pytest.mark.parametrize("unit", ["some more words, ", "more words ", "我们去公园走走，", "走走公园", "x", "in 2024 "])
def test_a_long_one_ends_in_time_and_the_next_goes_on(unit: str, tokenizer: Tokenizer) -> None:
    text = unit * (400 // len(unit))
    rest, pieces = text, []
    while rest:
        parts = fed(rest, [*range(7, len(rest), 7), len(rest)], tokenizer, 80)
        piece = "".join(part for part, _ in parts)
        num_ids = sum(len(ids) for _, ids in parts)
        assert piece and 0 < num_ids <= 80
        if ("," in unit or "，" in unit) and len(piece) < len(rest):
            assert piece.rstrip()[-1] in ",，" and num_ids >= 40
        pieces.append(piece)
        rest = rest[len(piece) :]
    assert "".join(pieces) == text and len(pieces) > 1


def test_a_tokenizer_with_a_lexicon_loses_nothing() -> None:
    """The demo checkpoint's: its tokens stand at the ends of the words that they replace."""
    tokenizer = Tokenizer.from_checkpoint(ROOT / "pretrained_models" / "cosyvoice2-demo")
    for text in SENTENCES[:4]:
        parts = fed(text, [*range(1, len(text)), len(text)], tokenizer)
        assert [token for _, ids in parts for token in ids] == whole_ids(text, tokenizer)
    rest = "some more words and then some others, " * 8 + "and an end."
    while rest:
        parts = fed(rest, [*range(7, len(rest), 7), len(rest)], tokenizer, 20)
        piece = "".join(part for part, _ in parts)
        assert [token for _, ids in parts for token in ids] == tokenizer.encode(piece.strip()).tolist()
        rest = rest[len(piece) :]


def test_a_fed_request_has_its_voice_and_its_first_words(frontend: Path) -> None:
    preprocessor = Preprocessor(frontend, PreprocessConfig(voices_dir=VOICES))
    whole = preprocessor.prepare(SpeechRequest("r", "Hello there my friend.", seed=5, speed=1.5))
    prepared = preprocessor.prepare_fed(SpeechRequest("r", "Hello there my fri", seed=5, speed=1.5))
    assert prepared.fed and not whole.fed
    assert (prepared.seed, prepared.speed, prepared.voice.key) == (5, 1.5, whole.voice.key)
    (utterance,), (expected,) = prepared.utterances, whole.utterances
    assert "Hello there my fri"[: utterance.text_end] == "Hello there my"
    assert utterance.prefix_ids is expected.prefix_ids
    rest = preprocessor.next_text(FedText("Hello there my friend.", utterance.text_end, utterance.text_ids, final=True))
    assert [*utterance.text_ids, *rest.ids] == expected.text_ids.tolist()
    assert len(preprocessor.prepare_fed(SpeechRequest("r", "He")).utterances[0].text_ids) == 0
    with pytest.raises(VoiceNotFound):
        preprocessor.prepare_fed(SpeechRequest("r", "Hello there ", voice="nobody"))
