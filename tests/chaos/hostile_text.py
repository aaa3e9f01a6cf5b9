"""Texts, names and YAML that somebody who means harm would send, drawn from a seed."""

import random
from pathlib import Path

_PIECES = (
    *(
        "Hello ",
        "1234567890" * 20,
        "3.14 ",
        "$1e400 ",
        "١٢٣ ",
        "½ ",
        "مرحبا ",
        "你好 ",
        "こんにちは ",
        "안녕 ",
        "नमस्ते ",
    ),
    *(
        "\ud800",
        "\udfff",
        "\x00",
        "\x1b[31m",
        "\u202e",
        "\u200d" * 30,
        "e" + "\u0301" * 60,
        "🏴‍☠️",
        "👩‍👩‍👧‍👦",
        "\ufeff",
    ),
    *("a" * 300, "-" * 300, "." * 300, "(" * 300, "https://" + "a." * 60, "@" * 50, "1/2/3/4/5/", "12:34:56:78 "),
    *("[pause:1e999s]", "[pause:-1s]", "[pause:NaNs]", "[laughter]", "<|endofprompt|>", "<|im_start|>", "**", "```"),
    *("\n" * 50, "\t", " " * 200, "１２３", "ﷺ", "\u2028", "Ⅻ ", "10^9999 ", "0x" + "f" * 80, "IV. ", "Dr. ", "'" * 40),
)
_TAGS = (
    *("<speak>", "</speak>", '<break time="1s"/>', '<break time="99999999999s"/>', '<break time="-1s"/>', "<break"),
    *('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>', "&b;", "&#0;", "&#xD800;", "&amp;" * 30),
    *('<!ENTITY x SYSTEM "file:///etc/passwd">', "&x;", "<![CDATA[", "]]>", "<?xml version='1.0'?>", "<" * 200),
    *("<a " + "b='c' " * 100, "</" * 60, '<say-as interpret-as="cardinal">', '<audio src="http://127.0.0.1/"/>'),
)
_NAMES = (
    *("../../etc/passwd", "..", ".", "....//", "%2e%2e%2f", "..\\..\\x", "/abs", "C:\\x", "a/b", "a\x00b", "\ud800"),
    *("con", "nul", "-rf", "$(id)", "`id`", "; ls", "' or 1=1 --", "<script>", "\u202eabc", "\u200b", "é" * 65, " a"),
    *("a ", "a..b", "a\nb", "a" * 65, "", "ａ／ｂ", "\u2215", "~", "*", "?", "records", "default", "voice_" + "a" * 24),
)


def nasty_text(draw: random.Random) -> str:
    """A few pieces in a row."""
    return "".join(draw.choices(_PIECES, k=draw.randint(1, 12)))[:4096]


def nasty_ssml(draw: random.Random) -> str:
    """Tags and text in any order."""
    return "".join(draw.choices((*_TAGS, *_PIECES), k=draw.randint(1, 16)))[:4096]


def nasty_name(draw: random.Random) -> str:
    """A known trick, two of them in a row, or any characters at all."""
    kind = draw.randrange(3)
    if kind == 0:
        return draw.choice(_NAMES)
    if kind == 1:
        return draw.choice(_NAMES) + draw.choice(_NAMES)
    return "".join(chr(draw.randrange(0x11000)) for _ in range(draw.randint(1, 70)))


def nasty_yaml(draw: random.Random, canary: Path) -> str:
    """A YAML that would make the file `canary` if anything in it were executed, or would fill the memory."""
    payload = f"open({str(canary)!r}, 'w')"
    lines = [
        f"x: !!python/object/apply:builtins.open [{str(canary)!r}, w]",
        f"x: !!python/object/apply:os.system ['touch {canary}']",
        f'x: !!python/object/new:builtins.eval ["{payload}"]',
        f"x: !apply:builtins.open [{str(canary)!r}, w]",
        f"x: !new:builtins.open {{file: {str(canary)!r}, mode: w}}",
        f"x: !name:os.system 'touch {canary}'",
        "x: !module:os",
        f"x: !ref <{payload}>",
        f"x: !ref <__import__('os').system('touch {canary}')>",
        "x: !ref <9**9**9**9>",
        "x: !ref <(1).__class__>",
        "a: !ref <b>\nb: !ref <a>",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\ne: [*d, *d]",
        "x: !include:/etc/passwd",
        "? [a, b]\n: c",
        "x: " + "[" * 400,
        "x: " + "{a: " * 200,
        "x: !!binary " + "A" * 1000,
        "x: 0x" + "f" * 5000,
        "x: " + "9" * 6000,
        "x: 1e999999999",
        "x: .nan",
        "\x00",
        "%YAML 9.9\n---\nx: 1",
        "llm: !new:torch.nn.Linear\n  in_features: 99999999999",
    ]
    return "\n".join(draw.sample(lines, k=draw.randint(1, 3))) + "\n"
