"""Takes out of a text what is not to be read: SSML, Markdown, emoji. Pauses that were asked for are kept apart.

Nothing here parses XML: tags are recognised one by one, so there are no entities to expand and no DTD to load.
"""

import re
from dataclasses import dataclass

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.rules import Rules, apply, rule
from serve_app.preprocess.tokenizer import SPEECH_TAGS

MAX_PAUSE_S = 10.0
MAX_TOTAL_PAUSE_S = 60.0

_STRENGTHS_S = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.2}
_PAUSE = re.compile(
    r"\[\s*pause\s*[:= ]?\s*(?P<short>\d{1,5}(?:\.\d{1,3})?)\s*(?P<short_unit>ms|s)?\s*\]"
    r"|<break(?:\s+(?:time\s*=\s*[\"'](?P<long>\d{1,5}(?:\.\d{1,3})?|\.\d{1,3})(?P<long_unit>ms|s)[\"']"
    r"|strength\s*=\s*[\"'](?P<strength>[a-z-]{1,8})[\"']))*\s*/?>(?:\s*</break>)?",
    re.IGNORECASE,
)
_PROLOGUE = re.compile(r"<\?.{0,2000}?\?>|<!--.{0,2000}?-->|<!DOCTYPE[^>\[]{0,2000}(?:\[.{0,2000}?\])?\s*>", re.DOTALL)
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9:-]{0,20})(?:\s[^<>]{0,300})?/?>")
_LINES = """p s br li div h1 h2 h3 h4 h5 h6 tr ul ol para sentence blockquote"""
_OTHERS = """speak prosody emphasis say-as sub phoneme voice audio mark lang w token par seq media desc lexicon lookup
meta metadata break a b i u em small big span code pre table td th thead tbody img html body head title font sup mstts
style script center strike del ins q cite kbd hr amazon:effect google:style"""
_LINE_TAGS = frozenset(_LINES.split())
_KNOWN_TAGS = _LINE_TAGS | frozenset(_OTHERS.split())
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " ", "&#39;": "'"}
_ENTITY = re.compile("|".join(_ENTITIES))
_OTHER_ENTITY = re.compile("&(?!" + "|".join(e[1:] for e in _ENTITIES) + r")[A-Za-z#]\w{0,30};")

_MARKDOWN: Rules = (
    rule(r"```[A-Za-z]*\n?", ""),
    rule(r"(?m)^[ \t]*(?:[-*_][ \t]*){3,}$", ""),
    rule(r"(?m)^[ \t]{0,3}#{1,6}[ \t]+", ""),
    rule(r"(?m)^[ \t]*[-*+•·▪◦‣●][ \t]+", ""),
    rule(r"(?m)^[ \t]*>+[ \t]?", ""),
    rule(r"!?\[([^\[\]\n]{1,200})\]\((?:[^()\s]|\([^()\s]*\)){1,500}\)", lambda m: m[1]),
    rule(r"`([^`\n]+)`", lambda m: m[1]),
    rule(r"(\*\*|__|~~)(?=\S)([^*_~\n]+?)(?<=\S)\1", lambda m: m[2]),
    rule(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", lambda m: m[1]),
    rule(r"(?<![\w_])_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?![\w_])", lambda m: m[1]),
    rule(r"(?m)^[ \t]*\|?(?:[ \t]*:?-{3,}:?[ \t]*\|)+[ \t]*:?-*:?[ \t]*$", ""),
    rule(r"(?m)^[ \t]*\|[ \t]*|[ \t]*\|[ \t]*$", ""),
    rule(r"[ \t]\|[ \t]", ", "),
)
_PICTURES: Rules = (
    rule(r"[0-9#*]\ufe0f?\u20e3", ""),
    rule(
        r"[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\u25a0-\u25ff\u2900-\u297f\U000e0020-\U000e007f"
        r"\ufe00-\ufe0f\u20e3\u3030\u303d\u3297\u3299©®™]+",
        " ",
    ),
    rule(r"\s*(?:[\u2190-\u21ff]|-+>|=>|<-+)+\s*", ", "),
    rule(r"(?<![\w:])(?:[:;=8][-o^']?[)(\]\[DPpOo3|/\\*]|<3|[xX]D|\^_+\^|T_T|¯\\_\(ツ\)_/¯)(?!\w)", " "),
)
_UNREAD = "Markup that cannot be spoken was left out of the text"


@dataclass(frozen=True, slots=True)
class Passage:
    """Text without pauses in it, and the seconds of silence asked for before it."""

    text: AlignedText
    pause_before_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """A text as passages, the silence asked for after the last, and what the client should know, in plain words."""

    passages: tuple[Passage, ...]
    pause_after_s: float
    warnings: tuple[str, ...]


def read_markup(text: AlignedText, plain: bool = False) -> Script:
    """Pauses apart, SSML stripped; Markdown and emoji too, unless `plain`. CosyVoice2's own tags stay.

    A pause lasts at most MAX_PAUSE_S, all together MAX_TOTAL_PAUSE_S.
    """
    warnings: list[str] = []
    is_ssml = re.match(r"\s*(?:<\?xml|<!DOCTYPE|<!--|<speak\b)", text.text, re.IGNORECASE) is not None
    text = text.sub(_PROLOGUE, " ")
    passages: list[Passage] = []
    waiting_s = total_s = 0.0
    start = 0
    for match in [*_PAUSE.finditer(text.text), None]:
        end = match.start() if match else len(text.text)
        part = _without_tags(text.cut(start, end), is_ssml, warnings)
        part = part if plain else apply(_PICTURES, apply(_MARKDOWN, part))
        if any(c.isalnum() for c in part.text):
            passages.append(Passage(part, waiting_s))
            waiting_s = 0.0
        if match:
            pause_s = _seconds(match)
            allowed_s = max(0.0, min(pause_s, MAX_PAUSE_S, MAX_TOTAL_PAUSE_S - total_s))
            if allowed_s < pause_s:
                _warn(warnings, f"Pauses are limited to {MAX_PAUSE_S:g} s each and {MAX_TOTAL_PAUSE_S:g} s together")
            waiting_s, total_s = waiting_s + allowed_s, total_s + allowed_s
            start = match.end()
    return Script(tuple(passages), waiting_s, tuple(warnings))


def _seconds(match: re.Match[str]) -> float:
    if match["short"]:
        return float(match["short"]) / (1000 if (match["short_unit"] or "s").lower() == "ms" else 1)
    if match["long"]:
        return float(match["long"]) / (1000 if match["long_unit"].lower() == "ms" else 1)
    return _STRENGTHS_S.get((match["strength"] or "medium").lower(), _STRENGTHS_S["medium"])


def _without_tags(text: AlignedText, is_ssml: bool, warnings: list[str]) -> AlignedText:
    def rewrite(match: re.Match[str]) -> str | None:
        name = match[1].lower()
        if match.group().lower() in SPEECH_TAGS or not (is_ssml or name in _KNOWN_TAGS):
            return None
        if name not in ("speak", "p", "s", "br", "break"):
            _warn(warnings, f"{_UNREAD}: <{name}>")
        return "\n" if name in _LINE_TAGS else ""

    text = text.sub(_TAG, rewrite)
    if is_ssml:
        text = text.sub(_CDATA, "").sub(_OTHER_ENTITY, " ")
    return text.sub(_ENTITY, lambda m: _ENTITIES[m.group()])


def _warn(warnings: list[str], message: str) -> None:
    if message not in warnings and len(warnings) < 8:
        warnings.append(message)
