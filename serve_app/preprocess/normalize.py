"""A request's text to what is said: cleaned always, and put into words unless the request asks for it as it is."""

import re
import unicodedata
from collections.abc import Callable

from serve_app.preprocess.aligned_text import AlignedText, joined
from serve_app.preprocess.languages import Language, latin_language, sentence_language, text_language
from serve_app.preprocess.read_chinese import read_chinese
from serve_app.preprocess.read_english import read_english
from serve_app.preprocess.read_german import read_german
from serve_app.preprocess.read_japanese import read_japanese
from serve_app.preprocess.read_korean import read_korean
from serve_app.preprocess.rules import Rules, apply, rule

_LINE_END = re.compile(r"\r\n?|[\u0085\u2028\u2029\v\f]")
_LINES = re.compile(r"[^\S\n]*\n\s*")
_SPACES = re.compile(r"[^\S\n]+")
_CONTROL_TOKEN = re.compile(r"<\|[A-Za-z0-9_]{1,32}\|>")
_OUTER_SPACE = re.compile(r"\A\s+|\s+\Z")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Controls, invisible formats (byte order marks, joiners, direction marks), lone surrogates, private, unassigned."""

_WIDE = re.compile(r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff05\uff0b\uff0d\uff0e\uff0f\uff1d]+")
"""Full-width letters, figures and signs of arithmetic; the punctuation of Chinese stays wide."""
_LONG_FIGURES = re.compile(r"\d{19,}")
_SENTENCE = re.compile(r"(?:[^。！？!?\n.]|\.(?!\s|\Z))*(?:[。！？!?\n]+|\.\s*|\Z)")
_HAN = r"[\u3400-\u9fff]"
_READERS: dict[Language, Callable[[AlignedText], AlignedText]] = {
    "zh": read_chinese,
    "ja": read_japanese,
    "ko": read_korean,
    "de": read_german,
    "en": read_english,
    "other": lambda sentence: sentence,
}
_CHINESE_TIDY: Rules = (
    rule(rf"(?<={_HAN})\s+(?={_HAN})", ""),
    rule(rf"(?<={_HAN})\.(?!\d)", "。"),
    rule(r"²", "平方"),
    rule(r"³", "立方"),
    rule(r"\s-\s|—+", "，"),
    rule(r"[（）【】`]", ""),
    rule(r"[，,、：:]+\s*(?=\n|\Z)", "。"),
)
_TIDY: Rules = (
    rule(r"[*_~^`|\\]+(?=\s|\Z)|(?:(?<=\s)|\A)[*_~^`|\\]+", ""),
    rule(r"([!?！？])\1{2,}", lambda m: m[1]),
    rule(r"\.{4,}", "..."),
    rule(r"\A[\s,.;:!?，。；：！？、…-]+(?=\w)", ""),
    rule(r"[ \t]+(?=[,.!?;:，。！？；：](?:\s|\Z))", ""),
    rule(r"[^\S\n]+", " "),
    rule(r"[^\S\n]*\n\s*", "\n"),
)


def clean(text: str) -> AlignedText:
    """NFC, one kind of white space and of line end, nothing invisible, and none of the model's control tokens.

    A line end stays, as one "\\n": it ends a sentence. Tags like `[laughter]` stay.
    """
    aligned = AlignedText.of(text).sub(_LINE_END, "\n")
    dropped = {c for c in set(aligned.text) if c not in "\n\t" and unicodedata.category(c) in _DROPPED_CATEGORIES}
    if dropped:
        aligned = aligned.sub(re.compile(f"[{re.escape(''.join(dropped))}]+"), "")
    if not unicodedata.is_normalized("NFC", aligned.text):
        aligned = aligned.sub(_composing_runs(aligned.text), lambda m: unicodedata.normalize("NFC", m.group()))
    aligned = aligned.sub(_CONTROL_TOKEN, " ")
    aligned = aligned.sub(_SPACES, " ").sub(_LINES, "\n")
    return aligned.sub(_OUTER_SPACE, "")


def normalize(text: AlignedText, context: str | None = None) -> AlignedText:
    """Figures, signs and abbreviations in words, sentence by sentence in the sentence's language; every line ended.

    context: the whole text that `text` is a passage of, to tell the language of what has no letters.
    """
    whole = text.text if context is None else context
    latin = latin_language(whole)
    around = text_language(whole, latin)
    text = text.sub(_WIDE, lambda m: unicodedata.normalize("NFKC", m.group()))
    text = text.sub(_LONG_FIGURES, lambda m: " ".join(m.group()))
    parts: list[tuple[Language, int, int]] = []
    for match in _SENTENCE.finditer(text.text):
        language = sentence_language(match.group(), latin, parts[-1][0] if parts else around)
        if parts and parts[-1][0] == language:
            parts[-1] = (language, parts[-1][1], match.end())
        else:
            parts.append((language, *match.span()))
    read = [_read(text.cut(start, end), language) for language, start, end in parts]
    return apply(_TIDY, joined(read)).sub(_OUTER_SPACE, "").sub(_UNENDED_LINE, _ended)


_UNENDED_LINE = re.compile(r"[^\n]+(?=\n|\Z)")


def _ended(match: re.Match[str]) -> str | None:
    """A line with a full stop at its end if it ends in a letter, a closed bracket or a comma."""
    line = match.group().rstrip()
    last = line.rstrip("\"'”’»)]}」』>")
    if not last or not (last[-1].isalnum() or line[-1] in ")]>"):
        return None
    return line + ("。" if re.search(r"[\u3040-\u30ff\u3400-\u9fff]", last[-12:]) else ".")


def _read(sentence: AlignedText, language: Language) -> AlignedText:
    sentence = _READERS[language](sentence)
    return apply(_CHINESE_TIDY, sentence) if language == "zh" else sentence


def is_speakable(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(c.isalnum() for c in text)


def _composing_runs(text: str) -> re.Pattern[str]:
    """Matches a character with all that could compose with it: marks, vowels and finals of decomposed Hangul."""
    joins = {c for c in set(text) if unicodedata.category(c)[0] == "M" or "\u1160" <= c <= "\u11ff"}
    follow = f"[{re.escape(''.join(joins))}]*" if joins else ""
    return re.compile(f"(?s:.){follow}")
