"""English: what names, codes and numbers that are no quantities are called. Each function takes a rule's match."""

import re

from serve_app.preprocess.numerals import cardinal, ordinal, spelled, year

_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
COUNTED = r"(?i:chapter|part|act|volume|vol|section|war|phase|type|class|book|stage|level|bowl|article|title|grade)"
"""Words that a Roman number may follow, however long it is."""
_REIGNED = """Henry Louis Elizabeth Charles George William Edward Richard James Mary John Paul Benedict Francis Pius Leo
Gregory Philip Ferdinand Alexander Nicholas Catherine Peter Frederick Wilhelm Napoleon Ramses Harald Olaf Gustav
Christian Margrethe Carlos Alfonso Otto Albert Leopold Ivan Victor Constantine Darius Ptolemy Clement Innocent"""
_REGNAL = frozenset(_REIGNED.split())
"""Henry the eighth, but Artemis two."""


def phone(m: re.Match[str]) -> str:
    groups = re.findall(r"\+?\d+", m.group())
    words = ", ".join(spelled(g) for g in groups)
    return f"plus {words}" if m.group().startswith("+") else words


def roman(m: re.Match[str]) -> str | None:
    """Henry VIII, Chapter IV; the letters must be a Roman number."""
    if not re.fullmatch(r"(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})", m[2]):
        return None
    values = [_ROMAN[c] for c in m[2]]
    number = sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))
    if (len(m[2]) == 1 or number > 39) and not re.match(COUNTED, m[1]):
        return None  # Model X, Malcolm X, Size XL
    return f"{m[1]} {'the ' + ordinal(number) if m[1] in _REGNAL else cardinal(number)}"


def letters_and_digits(m: re.Match[str]) -> str:
    """BA2490, MP3, 4B, python3.12, A380, FY2024: short numbers whole, longer ones digit by digit."""
    if found := re.fullmatch(r"[A-Z]([1-9])(\d\d)", m.group()):
        return f"{m.group()[0]} {_in_pairs(found[1], found[2])}"
    if found := re.fullmatch(r"(FY|[A-Za-z]{3,})((?:19|20)\d\d)", m.group()):
        return f"{found[1]} {year(int(found[2]))}"

    def words(part: str) -> str:
        if part[0].isalpha():
            return part
        if "." in part:
            return " point ".join(cardinal(int(p)) for p in part.split("."))
        return cardinal(int(part)) if len(part) <= 2 and part[0] != "0" else spelled(part)

    return " ".join(words(part) for part in re.findall(r"[A-Za-z]+|\d+(?:\.\d+)*", m.group()))


def _in_pairs(hundreds: str, rest: str) -> str:
    """380 -> three eighty, 305 -> three oh five, 700 -> seven hundred."""
    if rest == "00":
        return f"{cardinal(int(hundreds))} hundred"
    return f"{cardinal(int(hundreds))} {'oh ' if rest[0] == '0' else ''}{cardinal(int(rest))}"


def airliner(m: re.Match[str]) -> str:
    """Boeing 737."""
    return f"{m[1] or m[4] or ''}{_in_pairs(m[2] or m[5], m[3] or m[6])}"


def hashtag(m: re.Match[str]) -> str:
    """#ThrowbackThursday: its words, where capitals show them."""
    return "hashtag " + " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\da-zA-Z_]+", m[1]))


def handle(m: re.Match[str]) -> str:
    """@jane_doe."""
    return "at " + re.sub("_+", " underscore ", m[1]).strip()


def dialled(m: re.Match[str]) -> str:
    """*67, *123#."""
    return f"star {spelled(m[1])}{' pound' if m[2] else ''}"


def record(m: re.Match[str]) -> str:
    """Won, lost, drawn: 10-2-1."""
    return m[1] + " ".join(cardinal(int(number)) for number in m.group(2, 3, 4))


def dotted(m: re.Match[str]) -> str:
    parts = m.group().split(".")
    if len(parts) == 4:
        return " dot ".join(spelled(p) for p in parts)
    return " point ".join(cardinal(int(p)) for p in parts)


def street_or_saint(m: re.Match[str]) -> str:
    return "Saint " if m[1] else "Street"
