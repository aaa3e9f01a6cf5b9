"""Web and mail addresses, spoken sign by sign."""

import re

from serve_app.preprocess.numerals import cardinal, myriad_digits, spelled

_SIGNS = {
    "en": {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", ":": "colon", "?": "question mark"},
    "zh": {".": "点", "/": "斜杠", "@": "艾特", "-": "杠", "_": "下划线", ":": "冒号", "?": "问号"},
}
for _names in _SIGNS.values():
    _names.update(
        {"=": {"dot": "equals"}.get(_names["."], "等于"), "&": "and", "#": {"dot": "hash"}.get(_names["."], "井号")}
    )
    _names["+"] = {"dot": "plus"}.get(_names["."], "加")
_PARTS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]")


def spoken_address(address: str, language: str) -> str:
    """`language` is "en" or "zh". The scheme is not spoken, nor is a last slash.

    www.example.com -> "W W W dot example dot com" (three letters, since "www" is no word).
    """
    bare = re.sub(r"^[a-z]+://", "", address, flags=re.IGNORECASE).rstrip("/")
    signs = _SIGNS[language]
    words = []
    for part in _PARTS.findall(bare):
        if part.isascii() and part.isdigit():
            words.append(_digits(part, language))
        elif part.lower() == "www":
            words.append("W W W")
        else:
            words.append(signs.get(part, part if part.isalpha() else ""))
    if language == "en":
        return " ".join(w for w in words if w)
    joined = ""
    for word in words:
        joined += f" {word}" if joined and joined[-1].isascii() and word[:1].isascii() else word
    return joined


def _digits(digits: str, language: str) -> str:
    if language == "zh":
        return myriad_digits(digits, "zh")
    return cardinal(int(digits)) if len(digits) <= 2 and digits[0] != "0" else spelled(digits)
