"""Pauses, SSML, Markdown and emoji."""

import pytest

from serve_app.preprocess.markup import MAX_PAUSE_S, Script, read_markup
from serve_app.preprocess.normalize import clean
from serve_app.preprocess.tokenizer import SPEECH_TAGS


def script(text: str, plain: bool = False) -> Script:
    return read_markup(clean(text), plain)


def parts(text: str, plain: bool = False) -> list[tuple[float, str]]:
    return [(p.pause_before_s, p.text.text.strip()) for p in script(text, plain).passages]


@pytest.mark.parametrize(
    ("mark", "seconds"),
    [
        ("[pause:1.5s]", 1.5),
        ("[pause: 500ms]", 0.5),
        ("[pause=2]", 2.0),
        ("[Pause 0.25s]", 0.25),
        ('<break time="500ms"/>', 0.5),
        ("<break time='1.5s' />", 1.5),
        ('<break time=".5s"></break>', 0.5),
        ("<break/>", 0.5),
        ('<break strength="x-strong"/>', 1.2),
        ('<break strength="none"/>', 0.0),
        ('<break strength="weak" time="3s"/>', 3.0),
        ("[pause:99999s]", MAX_PAUSE_S),
    ],
)
def test_pauses(mark: str, seconds: float) -> None:
    assert parts(f"One {mark} two") == [(0.0, "One"), (seconds, "two")]


@pytest.mark.parametrize(
    "mark", ["[pause]", "[pause:-1s]", "[pause:1h]", "[pause:]", "pause:1s", '<break time="soon"/>']
)
def test_what_is_no_pause(mark: str) -> None:
    assert all(seconds == 0.0 for seconds, _ in parts(f"One {mark} two"))


def test_pauses_at_the_ends_and_in_a_row() -> None:
    got = script("[pause:1s]One[pause:1s][pause:500ms] ... [pause:250ms]two.[pause:2s]")
    assert [p.pause_before_s for p in got.passages] == [1.0, 1.75]
    assert got.pause_after_s == 2.0


def test_pauses_are_bounded_together() -> None:
    got = script("a [pause:10s] " * 50)
    assert sum(p.pause_before_s for p in got.passages) + got.pause_after_s == 60.0
    assert got.warnings == ("Pauses are limited to 10 s each and 60 s together",)


def test_places_stay_those_of_the_request() -> None:
    text = 'One. <break time="1s"/> **Two** words.'
    second = script(text).passages[1].text
    start = second.text.index("Two")
    assert text[slice(*second.span(start, start + 3))] == "Two"
    start = second.text.index("words")
    assert text[slice(*second.span(start, start + 5))] == "words"


def test_ssml_is_stripped_with_a_warning() -> None:
    text = (
        '<?xml version="1.0"?><!DOCTYPE speak SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY a "boom">]>'
        '<speak version="1.1"><p>Hello <prosody rate="slow">there</prosody> &amp; &a; you</p><!-- no -->'
        '<audio src="file:///etc/passwd"/><unknown>word</unknown></speak>'
    )
    got = script(text)
    assert [" ".join(p.text.text.split()) for p in got.passages] == ["Hello there & you word"]
    assert len(got.warnings) == 3
    assert "<prosody>" in got.warnings[0]


def test_plain_ssml_gives_no_warning() -> None:
    got = script('<speak>Hello<break time="1s"/>you</speak>')
    assert [(p.pause_before_s, p.text.text) for p in got.passages] == [(0.0, "Hello"), (1.0, "you")]
    assert got.warnings == ()


def test_the_models_own_tags_pass() -> None:
    text = " a ".join(SPEECH_TAGS)
    assert parts(text) == [(0.0, text)]
    assert parts(f"<speak>{text}</speak>") == [(0.0, text)]


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("snake_case_name", "snake_case_name"),
        ("**a** __b__ *c* _d_ ~~e~~ `f`", "a b c d e f"),
        ("## Head\n* one\n+ two\n> three\n---\nfour", "Head\none\ntwo\nthree\n\nfour"),
        ("| a | b |\n|---|---|\n| c | d |", "a, b\n\nc, d"),
        ("![cat](a.png) and [dog](b(c).html)", "cat and dog"),
        ("hi 👩‍👩‍👧‍👦🇩🇪1️⃣ ☀️ you", "hi you"),
        ("fun :-) and sad :( or <3", "fun and sad or"),
        ("20°C and 5№", "20°C and 5№"),
        ("[note] and [laughter]", "[note] and [laughter]"),
    ],
)
def test_markdown_and_emoji(written: str, left: str) -> None:
    ((_, text),) = parts(written)
    assert "\n".join(" ".join(line.split()) for line in text.split("\n")) == left


def test_plain_text_keeps_all_but_tags() -> None:
    assert parts("**a** 😀 b [pause:1s] c", plain=True) == [(0.0, "**a** 😀 b"), (1.0, "c")]
