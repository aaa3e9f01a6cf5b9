"""German: numbers, money, dates, times and units as words."""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.numerals import german, german_ordinal, german_year
from serve_app.preprocess.rules import Rules, apply, rule

_MONTHS = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
]
_MONTH = "|".join(_MONTHS)
_UNITS = {
    "km/h": "Kilometer pro Stunde", "km": "Kilometer", "cm": "Zentimeter", "mm": "Millimeter", "m²": "Quadratmeter",
    "m": "Meter", "kg": "Kilogramm", "g": "Gramm", "mg": "Milligramm", "ml": "Milliliter", "l": "Liter", "L": "Liter",
    "°C": "Grad Celsius", "℃": "Grad Celsius", "°": "Grad", "GB": "Gigabyte", "MB": "Megabyte", "kW": "Kilowatt",
    "W": "Watt", "V": "Volt", "Std.": "Stunden", "Min.": "Minuten", "Mio.": "Millionen", "Mrd.": "Milliarden",
}  # fmt: skip
_ABBREVIATIONS = {
    "z. B.": "zum Beispiel", "z.B.": "zum Beispiel", "d. h.": "das heißt", "d.h.": "das heißt", "usw.": "und so weiter",
    "bzw.": "beziehungsweise", "ca.": "circa", "Nr.": "Nummer", "Dr.": "Doktor", "Hr.": "Herr", "Fr.": "Frau",
    "Str.": "Straße", "u. a.": "unter anderem", "u.a.": "unter anderem", "inkl.": "inklusive", "Tel.": "Telefon",
}  # fmt: skip
_MONEY = {"€": "Euro", "EUR": "Euro", "$": "Dollar", "USD": "Dollar", "£": "Pfund", "CHF": "Franken"}
_NUMBER = r"\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d+(?:,\d+)?"


def _number(written: str) -> str:
    """1.234,5 -> eintausendzweihundert... Komma fünf; a leading zero or a very long one is spelled."""
    whole, _, fraction = written.replace(".", "").partition(",")
    if len(whole) > 11 or (len(whole) > 1 and whole[0] == "0"):
        spoken = " ".join(german(int(d)) for d in whole)
    else:
        spoken = german(int(whole))
    return spoken + (" Komma " + " ".join(german(int(d)) for d in fraction) if fraction else "")


def _counted(written: str, unit: str) -> str:
    """ein Euro, eine Minute -> the article's form is not known: "ein" serves the units here."""
    return f"{'ein' if written == '1' else _number(written)} {unit}"


def _money(number: str, unit: str) -> str:
    whole, _, cents = number.partition(",")
    if len(cents) == 2:
        return _counted(whole, unit) + (f" {german(int(cents))}" if int(cents) else "")
    return _counted(number, unit)


def _date(m: re.Match[str]) -> str | None:
    day, month = int(m[1]), int(m[2])
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    in_year = f" {german_year(int(m[3]))}" if m[3] else ""
    return f"{german_ordinal(day)}{_ending(m)} {_MONTHS[month - 1]}{in_year}"


def _day(m: re.Match[str]) -> str:
    return f"{german_ordinal(int(m[1]))}{_ending(m)}"


def _ending(m: re.Match[str]) -> str:
    """The ordinal's ending by the word before it: "am dritten", "der dritte", else "dritter"."""
    before = m.string[: m.start()].rstrip().rsplit(" ", 1)[-1].lower()
    if before in ("am", "vom", "zum", "dem", "den", "bis", "im", "beim", "des", "seit", "ab"):
        return "en"
    return "e" if before in ("der", "die", "das") else "er"


def _time(m: re.Match[str]) -> str | None:
    hour, minute = int(m[1]), int(m[2])
    if hour > 24 or minute > 59:
        return None
    return f"{'ein' if hour == 1 else german(hour)} Uhr" + (f" {german(minute)}" if minute else "")


def _year(m: re.Match[str]) -> str:
    return german_year(int(m.group()))


_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_SIGN = "|".join(map(re.escape, _MONEY))
_SHORT = "|".join(sorted(map(re.escape, _ABBREVIATIONS), key=len, reverse=True))
_RULES: Rules = (
    rule(rf"(?<!\w)({_SHORT})(?!\w)", lambda m: _ABBREVIATIONS[m[1]]),
    rule(r"(?<![\d.])(\d{1,2})\.\s?(\d{1,2})\.(?:\s?(\d{4}))?(?!\d)", _date),
    rule(rf"(?<![\d.])(\d{{1,2}})\.(?=\s(?:{_MONTH}))", _day),
    rule(r"(?<![\d:.])(\d{1,2})[:.](\d{2})(?:\sUhr\b)", _time),
    rule(r"(?<![\d:.])(\d{1,2}):(\d{2})(?![\d:])", _time),
    rule(r"(?<![\d:.])1(?=\sUhr\b)", "ein"),
    rule(rf"({_SIGN})\s?({_NUMBER})", lambda m: _money(m[2], _MONEY[m[1]])),
    rule(rf"(?<![\w.,])({_NUMBER})\s?({_SIGN}|Euro)(?!\w)", lambda m: _money(m[1], _MONEY.get(m[2], "Euro"))),
    rule(rf"({_NUMBER})\s?%", lambda m: f"{_number(m[1])} Prozent"),
    rule(rf"(?<![\w.])[-−]({_NUMBER})", lambda m: f"minus {m[1]}"),
    rule(rf"(?<![\w.,])({_NUMBER})\s?({_UNIT})(?![\w²])", lambda m: _counted(m[1], _UNITS[m[2]])),
    rule(r"(?<=\d)\s?[-–]\s?(?=\d)", " bis "),
    rule(r"(?<![\d.,])1[1-9]\d{2}(?![\d.,]\d|\d|\s?[A-Z€%])", _year),
    rule(r"(?<![\d.])(\d{1,3})\.(?=\s[A-ZÄÖÜ])", _day),
    rule(r"(?<!\d)1/2(?!\d)", "ein halb"),
    rule(r"\s?&\s?", " und "),
    rule(_NUMBER, lambda m: _number(m.group())),
)


def read_german(sentence: AlignedText) -> AlignedText:
    """The sentence with figures, signs and abbreviations put into words."""
    return apply(_RULES, sentence)
