"""Korean: Sino-Korean numbers, native ones before the words that count people, things, hours and years of age."""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.numerals import myriad, myriad_digits, native_korean
from serve_app.preprocess.rules import Rules, apply, rule

_COUNTERS = "시간|시|개월수|개|명|사람|마리|살|권|잔|병|번째|장|대|송이|그루|켤레|벌|가지|분(?=이|을|은|과|께)"
_UNITS = {
    "km/h": "킬로미터 퍼 아워",
    "km": "킬로미터",
    "cm": "센티미터",
    "mm": "밀리미터",
    "m": "미터",
    "kg": "킬로그램",
    "g": "그램",
    "ml": "밀리리터",
    "L": "리터",
    "℃": "도",
    "°C": "도",
    "°": "도",
    "GB": "기가바이트",
    "MB": "메가바이트",
}
_MONEY = {"$": "달러", "€": "유로", "£": "파운드", "¥": "엔", "₩": "원"}
_NUMBER = r"\d+(?:\.\d+)?"


def _number(digits: str) -> str:
    whole, _, fraction = digits.partition(".")
    spoken = myriad(int(whole), "ko") if len(whole) < 16 else myriad_digits(whole, "ko")
    return spoken + (f" 점 {myriad_digits(fraction, 'ko')}" if fraction else "")


def _phone(m: re.Match[str]) -> str:
    return ", ".join(myriad_digits(g, "ko").replace("영", "공") for g in re.findall(r"\d+", m.group()))


def _month(m: re.Match[str]) -> str:
    return {6: "유월", 10: "시월"}.get(int(m[1]), f"{_number(m[1])}월")


_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_RULES: Rules = (
    rule(r"(?<=\d),(?=\d{3}(?!\d))", ""),
    rule(r"(?<![\d-])0\d{1,2}-\d{3,4}-\d{4}(?![\d-])", _phone),
    rule(r"([12]\d{3})[-./](\d{1,2})[-./](\d{1,2})(?!\d)", lambda m: f"{_number(m[1])}년 {int(m[2])}월 {int(m[3])}일"),
    rule(r"(?<!\d)(\d{1,2})월", _month),
    rule(r"(?<!\d)(\d{1,2}):(\d{2})(?!\d)", lambda m: f"{m[1]}시" + (f" {int(m[2])}분" if int(m[2]) else "")),
    rule(r"([$€£¥₩])\s?(\d+(?:\.\d+)?)", lambda m: f"{_number(m[2])} {_MONEY[m[1]]}"),
    rule(rf"({_NUMBER})\s?%", lambda m: f"{_number(m[1])} 퍼센트"),
    rule(rf"(?<![\w.])-({_NUMBER})", lambda m: f"마이너스 {m[1]}"),
    rule(r"(?<=\d)\s?[~～-]\s?(?=\d)", "에서 "),
    rule(rf"({_NUMBER})\s?({_UNIT})(?![A-Za-z])", lambda m: f"{_number(m[1])} {_UNITS[m[2]]}"),
    rule(
        rf"(?<![\d.])([1-9]\d?)\s?({_COUNTERS})",
        lambda m: f"{native_korean(int(m[1]))} {m[2]}" if not (m[2] == "시" and int(m[1]) > 12) else None,
    ),
    rule(r"(?<!\d)(\d)/(\d)(?!\d)", lambda m: f"{_number(m[2])}분의 {_number(m[1])}"),
    rule(r"(?<![\d.])0\d+", lambda m: myriad_digits(m.group(), "ko")),
    rule(_NUMBER, lambda m: _number(m.group())),
)


def read_korean(sentence: AlignedText) -> AlignedText:
    """The sentence with everything written in figures put into words."""
    if not any(c.isdigit() for c in sentence.text):
        return sentence
    return apply(_RULES, sentence)
