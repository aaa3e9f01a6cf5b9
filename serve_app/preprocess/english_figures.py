"""English: what one written figure of each kind is called. Each function takes a rule's match (`read_english.py`)."""

import re
from collections.abc import Callable

from serve_app.preprocess.numerals import cardinal, ordinal, plural, quantity, spelled, year
from serve_app.preprocess.units import CURRENCIES, ENGLISH_UNITS, MAGNITUDES

_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
_DIVISORS = frozenset([*range(1, 13), 16, 20, 24, 25, 30])
"""Something over one of these may be a fraction; over another up to 31 it is a day of a month."""
_DAY_NAMES = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"


def race_time(m: re.Match[str]) -> str:
    """1:45.32, minutes and seconds."""
    return f"{cardinal(int(m[1]))} {'oh ' if m[2][0] == '0' else ''}{cardinal(int(m[2]))} point {spelled(m[3])}"


def hours_and_minutes(m: re.Match[str]) -> str:
    """2h 15m."""
    hours, minutes = int(m[1]), int(m[2])
    return f"{cardinal(hours)} hour{'s' * (hours != 1)} {cardinal(minutes)} minute{'s' * (minutes != 1)}"


def day_range(m: re.Match[str]) -> str:
    """Mon-Fri."""
    names = {name[:3]: name for name in _DAY_NAMES.split()}
    return f"{names[m[1]]} to {names[m[2]]}"


def money_range(m: re.Match[str]) -> str:
    """$5-10 million: sign, two numbers, and a magnitude or none."""
    many = CURRENCIES[m[1]][1]
    return f"{quantity(m[2])} to {quantity(m[3])} {m[4] + ' ' if m[4] else ''}{many}"


def _date(month: str, day: str | None, in_year: str | None) -> str:
    words = [month]
    if day:
        words.append(ordinal(int(day)))
    text = " ".join(words)
    return f"{text}, {year(int(in_year))}" if in_year and day else f"{text} {year(int(in_year))}" if in_year else text


def month_name(name: str) -> str:
    return next(m for m in _MONTHS if m.startswith(name[:3].capitalize()))


def _is_day(day: str) -> bool:
    return 1 <= int(day) <= 31


def iso_date(m: re.Match[str]) -> str | None:
    if not (1 <= int(m[2]) <= 12 and _is_day(m[3])):
        return None
    return _date(_MONTHS[int(m[2]) - 1], m[3], m[1])


def slash_date(m: re.Match[str]) -> str | None:
    month, day = int(m[1]), int(m[2])
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    in_year = m[3] if len(m[3]) == 4 else f"{'19' if int(m[3]) > 50 else '20'}{m[3]}"
    return _date(_MONTHS[month - 1], str(day), in_year)


def month_first(m: re.Match[str]) -> str | None:
    return _date(month_name(m[1]), m[2], m[3]) if _is_day(m[2]) else None


def day_first(m: re.Match[str]) -> str | None:
    if not _is_day(m[1]):
        return None
    text = f"{m[0][0] if m[0][0] == 'T' else 't'}he {ordinal(int(m[1]))} of {month_name(m[2])}"
    return f"{text}, {year(int(m[3]))}" if m[3] else text


def _is_adjective(m: re.Match[str]) -> bool:
    """a $10 bill, a 6 ft wall: an article before and a noun after."""
    before, after = m.string[max(0, m.start() - 6) : m.start()], m.string[m.end() : m.end() + 12]
    noun = re.match(r"\s(?!(?:is|was|in|of|or|and|to|on|at|for|per|away|more|less|from|a)\b)[A-Za-z]", after)
    return noun is not None and re.search(r"(?i)\b(?:an?|every|each|this|that)\s\Z", before) is not None


def month_and_year(m: re.Match[str]) -> str | None:
    """March 2024."""
    return f"{month_name(m[1])} {year(int(m[2]))}" if is_year(m[2]) else None


def measured_range(m: re.Match[str]) -> str:
    """5-10 before a unit: the second number is read with its unit."""
    return f"{quantity(m[1])} to {m[2]}"


def clock_time(m: re.Match[str]) -> str | None:
    hour, minute, second, half = int(m[1]), int(m[2]), m[3], (m[4] or "").replace(".", "").strip().upper()
    if minute > 59:
        return None
    after = f" {' '.join(half)}" if half else ""
    if minute:
        words = f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    elif half or re.match(r"\s(?:noon|midnight)\b", m.string[m.end() :]):
        words = cardinal(hour)
    else:
        words = f"{cardinal(hour)} o'clock" if 1 <= hour <= 12 else f"{cardinal(hour)} hundred"
    if second:
        words += f" and {cardinal(int(second))} seconds"
    return words + after


def money(m: re.Match[str]) -> str:
    sign, number, magnitude = m["sign"].upper().replace(" ", ""), m["number"], m["magnitude"]
    one, many, cent = CURRENCIES[sign]
    many = one if _is_adjective(m) else many
    minus = "minus " if m["minus"] else ""
    if magnitude:
        return f"{minus}{quantity(number)} {MAGNITUDES[magnitude.strip().lower()]} {many}"
    whole, _, fraction = number.replace(",", "").partition(".")
    if len(fraction) != 2 or not cent:
        words = f"{quantity(number)} {one if number == '1' else many}"
        return minus + (words if fraction != "0" * len(fraction) or not fraction else f"{quantity(whole)} {many}")
    parts = []
    if int(whole) or not int(fraction):
        parts.append(f"{quantity(whole)} {one if int(whole) == 1 else many}")
    if int(fraction):
        cents = {"penny": "pence"}.get(cent, plural(cent))
        parts.append(f"{cardinal(int(fraction))} {cent if int(fraction) == 1 else cents}")
    return minus + " and ".join(parts)


def with_unit(m: re.Match[str]) -> str:
    one, many = ENGLISH_UNITS[m[2]]
    many = one if _is_adjective(m) else many
    return f"{quantity(m[1])} {one if m[1] == '1' else many}"


def rate(m: re.Match[str]) -> str:
    """5 µg/kg, 80 kg/m³: a unit for each of another."""
    one, many = ENGLISH_UNITS[m[2]]
    return f"{quantity(m[1])} {one if m[1] == '1' else many} per {ENGLISH_UNITS[m[3]][0]}"


def floor_plan(m: re.Match[str]) -> str:
    """12' x 15', 8" x 10"."""
    unit = "feet" if m[2] in "'’" else "inches"
    return f"{quantity(m[1])} {unit} by {quantity(m[3])} {unit}"


def day_of_year(m: re.Match[str]) -> str | None:
    """5/31, where it cannot be meant as a fraction, or a date is expected."""
    month, day, cue = int(m[2]), int(m[3]), m[1]
    if not (1 <= month <= 12 and 1 <= day <= 31) or (not cue and day in _DIVISORS):
        return None
    return f"{cue or ''}{_MONTHS[month - 1]} {ordinal(day)}"


def over(word: str) -> Callable[[re.Match[str]], str]:
    """118/76 with a cue before it: the word is what the stroke is called."""
    return lambda m: f"{m[1]}{quantity(m[2])} {word} {quantity(m[3])}"


def parts_of(m: re.Match[str]) -> str:
    """1/16ths."""
    return f"{cardinal(int(m[1]))} {ordinal(int(m[2]))}s"


def fraction(m: re.Match[str]) -> str | None:
    whole, top, bottom = m[1], int(m[2]), int(m[3])
    if not 0 < top < bottom or bottom > 100:
        return None
    names = {2: ("half", "halves"), 4: ("quarter", "quarters")}
    one, many = names.get(bottom, (ordinal(bottom), ordinal(bottom) + "s"))
    part = f"{cardinal(top)} {one if top == 1 else many}"
    if not whole:
        return part
    return f"{cardinal(int(whole))} and {'a' if top == 1 else cardinal(top)} {one if top == 1 else many}"


def number_range(m: re.Match[str]) -> str | None:
    first, second = m[1], m[2]
    if len(first) == len(second) == 4 and is_year(first) and is_year(second):
        return f"{year(int(first))} to {year(int(second))}"
    return f"{quantity(first)} to {quantity(second)}"


def is_year(digits: str) -> bool:
    return len(digits) == 4 and 1000 <= int(digits) <= 2099


def decade(m: re.Match[str]) -> str:
    digits = m[1]
    return plural(year(int(digits)) if len(digits) == 4 else cardinal(int(digits)))


def bare_year(m: re.Match[str]) -> str | None:
    """A bare number of four digits: a year after a cue, or if recent and nothing countable follows."""
    digits = m["digits"]
    if m["cue"] or (
        1900 <= int(digits) <= 2099 and not re.match(r"\s[a-z]+s\b(?<!\bis)(?<!\bwas)(?<!\bhas)", m["after"])
    ):
        return f"{m['cue'] or ''}{year(int(digits))}{m['after']}" if int(digits) < 2100 else None
    return None


def plain_number(m: re.Match[str]) -> str:
    digits = m.group()
    long_code = len(digits) >= 8 and digits.isdigit() and not digits.endswith("000")
    if long_code or (digits.replace(".", "").isdigit() and len(digits.split(".")[0]) > 18):
        return spelled(digits)
    return quantity(digits)
