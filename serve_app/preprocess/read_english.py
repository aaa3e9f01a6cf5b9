"""English: numbers, money, dates, times, units, addresses and abbreviations as a newsreader would say them.

A list of rules, applied in order to one sentence; each rewrites only what it matches, so the rest of the sentence
keeps its place and its spelling. (wetext's English grammar was tried and left out: it says "three point five dollars"
for $3.50, turns 1900s into seconds and January 5 into "the fifth of january", and fails on "#1".)
"""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.english_codes import (
    COUNTED,
    airliner,
    dialled,
    dotted,
    handle,
    hashtag,
    letters_and_digits,
    phone,
    record,
    roman,
    street_or_saint,
)
from serve_app.preprocess.english_figures import (
    bare_year,
    clock_time,
    day_first,
    day_of_year,
    day_range,
    decade,
    floor_plan,
    fraction,
    hours_and_minutes,
    iso_date,
    measured_range,
    money,
    money_range,
    month_and_year,
    month_first,
    number_range,
    over,
    parts_of,
    plain_number,
    race_time,
    rate,
    slash_date,
    with_unit,
)
from serve_app.preprocess.numerals import cardinal, ordinal, quantity, spelled
from serve_app.preprocess.read_addresses import spoken_address
from serve_app.preprocess.rules import Rules, apply, rule
from serve_app.preprocess.units import CURRENCIES, ENGLISH_UNITS, MAGNITUDES, VULGAR

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?|"
    r"Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_DAYS = {
    "Mon": "Monday",
    "Tue": "Tuesday",
    "Tues": "Tuesday",
    "Wed": "Wednesday",
    "Thu": "Thursday",
    "Thur": "Thursday",
}
_DAYS |= {"Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}
_YEAR_CUE = (
    r"\b(?i:in|since|until|till|by|from|year|of|during|before|after|around|circa|to|and|early|late|mid|spring|summer|"
    r"autumn|fall|winter)\s"
)
_ABBREVIATIONS = {
    "Mr.": "Mister", "Mrs.": "Missus", "Ms.": "Miz", "Dr.": "Doctor", "Prof.": "Professor", "Sr.": "Senior",
    "Jr.": "Junior", "Gen.": "General", "Col.": "Colonel", "Capt.": "Captain", "Lt.": "Lieutenant", "Sgt.": "Sergeant",
    "Gov.": "Governor", "Sen.": "Senator", "Rep.": "Representative", "Rev.": "Reverend", "Hon.": "Honorable",
    "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is", "approx.": "approximately",
    "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation", "Co.": "Company", "Dept.": "Department",
    "ext.": "extension", "incl.": "including", "excl.": "excluding", "temp.": "temperature", "Fig.": "Figure",
    "fig.": "figure", "Figs.": "Figures", "Vol.": "Volume", "vol.": "volume", "Sec.": "Section", "para.": "paragraph",
    "Ch.": "Chapter", "pp.": "pages", "tbsp": "tablespoon", "tsp": "teaspoon", "min.": "minutes", "max.": "maximum",
    "Ave.": "Avenue", "Blvd.": "Boulevard", "Rd.": "Road", "Apt.": "Apartment", "Mt.": "Mount", "Ft.": "Fort",
    "a.k.a.": "also known as", "est.": "established", "w/": "with", "w/o": "without", "No.": "No.",
}  # fmt: skip
_SIGNS = "|".join(sorted(map(re.escape, CURRENCIES), key=len, reverse=True))
_MAGNITUDE = r"(?P<magnitude>\s?(?:thousand|million|billion|trillion)\b|(?:[kKmMbB]|mn|bn|tn)\b)?"
_UNITS = "|".join(sorted(map(re.escape, ENGLISH_UNITS), key=len, reverse=True))
_PERIODS = {"yr": "year", "mo": "month", "hr": "hour", "wk": "week"}
_PER = "year|yr|month|mo|week|wk|day|hour|hr|minute|second|person|unit|night|page|user|kg|km|mile|liter|ton"
_DIRECTIONS = {"N": "North", "S": "South", "E": "East", "W": "West"}
_NOT_IN_WORD = r"(?<![\w.,])"
_ADDRESS = r"(?<![\w.@-])(?:[A-Za-z0-9-]{1,40}\.){1,4}(?:com|org|net|io|edu|gov|ai|app|dev|info)"
_ADDRESS += r"(?:/[\w./-]{0,200}\w)?(?![\w-])|"
_ADDRESS += r"(?:https?://|www\.)[^\s<>\"“”]{1,300}[\w/]|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"
_VERSIONED = "Python|Go|Ruby|PHP|Kotlin|Django|Rails|Rust|Java|Node|Kubernetes|Postgres|PostgreSQL"
"""Their 3.13 comes after 3.9."""
_AFTER = r"€|£|¥|₹|USD|EUR|GBP|CNY|RMB|JPY|CHF|AUD|CAD|INR"
_SHORT = "|".join(sorted(map(re.escape, _ABBREVIATIONS), key=len, reverse=True))


def _abbreviation(m: re.Match[str]) -> str | None:
    """The word; its full stop stays where it may end the sentence too."""
    word = _ABBREVIATIONS[m[1]]
    at_end = not m.string[m.end() : m.end() + 8].strip(" \"'”’)")
    return word + "." if at_end and word[-1] != "." else word


def _seconds(m: re.Match[str]) -> str:
    return f"{quantity(m[1])} second{'s' * (m[1] != '1')}"


_RULES: Rules = (
    rule(r"~\s?(?=\d)", "about "),
    rule(r"(?<=\d)\s?([½⅓⅔¼¾⅛⅜⅝⅞])", lambda m: f" {VULGAR[m[1]]}"),
    rule(r"[½⅓⅔¼¾⅛⅜⅝⅞]", lambda m: VULGAR[m.group()]),
    rule(r"(?<=[Bb]lood pressure )(\D{0,12})(\d{2,3})/(\d{2,3})\b", over("over")),
    rule(r"\b((?:scored|made|reached)\s)(?!24/7\b)(\d{2,3})/(10|\d)\b", over("for")),
    rule(r"(?i)\b(odds(?:\s\w+)?\s)(\d{1,3})/(\d{1,3})\b", over("to")),
    rule(r"\b(Boeing\s)?(7)(\d7)\b(?=\s(?:MAX|jet|plane|aircraft|airliner))|\b(Boeing\s)(7)(\d7)\b", airliner),
    rule(r"\b([Ff]light\s[A-Z][A-Z\d])\s?(\d{3,4})\b", lambda m: f"{m[1]} {spelled(m[2])}"),
    rule(r"(?<=\w)\.(?=(?:js|NET)\b)", " dot "),
    rule(r"(?<=\bWorld War )I\b|(?<=\bPart )I\b(?=[,.;:)]|\s(?:of|and|in|is|was)\b|\Z)", "one"),
    rule(r"(?<=%)\s?[-–—]\s?(?=\d)", " to "),
    rule(rf"\b({_VERSIONED})\s(\d+)\.(\d\d)\b(?![.\d%])", lambda m: f"{m[1]} {quantity(m[2])} point {quantity(m[3])}"),
    rule(r"(?i)(?<=\d)\s?[-–—]\s?(?=\d{1,2}(?::\d{2})?\s?[ap]\.?m\b)", " to "),
    rule(r"(?<=[Dd]ial )\*(\d+)(#)?", dialled),
    rule(r"\b(\d+(?:\.\d+)?)(['’\"”])\s?[x×]\s?(\d+(?:\.\d+)?)\2(?!\w)", floor_plan),
    rule(r"(?i)\b(record(?:\s\w+)?\s|went\s|finished\s)(\d{1,3})[-–](\d{1,3})[-–](\d{1,3})\b(?![-–\d])", record),
    rule(r"\b(\d{1,3})/(\d{1,3})(?:th|nd|rd)s\b", parts_of),
    rule(
        r"(?i)(?<![\d/.])(?:(?<=\s)(due\s|deadline\s|dated\s|until\s|since\s|on\s))?(\d{1,2})/(\d{1,2})(?![\d/.]\d|/|\d|\sof\b)",
        day_of_year,
    ),
    rule(r"(?i)(?<=\bport )(\d{3,5})\b", lambda m: spelled(m[1])),
    rule(r"(?i)\b(text\s[^.!?\n\d]{1,24}\bto\s)(\d{5,6})\b(?![,.]\d)", lambda m: m[1] + spelled(m[2])),
    rule(r"(?i)\bv(?=\d+(?:\.\d+)+\b)", "version "),
    rule(rf"(?<![\w.,])({_NUMBER})(?:\s(?=s\b)|(?<=\.\d)(?=s\b)|(?<=\.\d\d)(?=s\b))s\b(?!['’.]\w)", _seconds),
    rule(r"\b(\d{1,2})\sst\s(\d{1,2})\slbs?\b", lambda m: f"{quantity(m[1])} stone {quantity(m[2])} pounds"),
    rule(r"\b\d{3}\.\d{3}\.\d{4}\b", phone),
    rule(rf"(?<=\d)\s?[-–]\s?(?={_MONTH}\s\d)", " to "),
    rule(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s?[-–]\s?(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b", day_range),
    rule(
        rf"({_SIGNS})({_NUMBER})\s?[-–]\s?(?:{_SIGNS})?({_NUMBER})(?:\s?(thousand|million|billion|trillion))?",
        money_range,
    ),
    rule(r"\b((?:PIN|OTP|[Cc]ode|[Pp]assword|[Pp]asscode)(?:\sis|:)?\s)(\d{3,8})\b", lambda m: m[1] + spelled(m[2])),
    rule(
        r"(?<=\s)(\d+(?:\.\d+)?)[\"”](?=\s(?:screen|display|monitor|TV|laptop|tablet|pipe|wheel)\b)",
        lambda m: f"{quantity(m[1])} inch",
    ),
    rule(r"\b(\d{1,2}):(\d{2})\.(\d{1,3})\b", race_time),
    rule(r"(?<=\s)['’](\d{2})\b(?!['’]?s)", lambda m: cardinal(int(m[1]))),
    rule(rf"(?<![\w.,])({_NUMBER})\s?({_UNITS})/({_UNITS})(?![\w²³/])", rate),
    rule(rf"(?<=[\dD$€£kKmMbgG])/(?=(?:{_PER})\b)", " per "),
    rule(r"(?<=\sper\s)(?:yr|mo|hr|wk)\b", lambda m: _PERIODS[m.group()]),
    rule(r"\b(\d{1,2})['’](\d{1,2})[\"”]", lambda m: f"{cardinal(int(m[1]))} foot {cardinal(int(m[2]))}"),
    rule(r"\b([A-Z]{2}\s)(\d{5})(?:-(\d{4}))?\b(?![,.]\d)", lambda m: m[1] + spelled(m[2] + (m[3] or ""))),
    rule(r"(?<=\d\s)([NSEW])\.(?=\s[\dA-Z])", lambda m: _DIRECTIONS[m[1]]),
    rule(r"\b0(\d)00\shours\b", lambda m: f"zero {cardinal(int(m[1]))} hundred hours"),
    rule(r"\b(\d{2})00\shours\b", lambda m: f"{cardinal(int(m[1]))} hundred hours"),
    rule(r"(?<![\d/])(\d+)/\1\b(?!/)", lambda m: f"{cardinal(int(m[1]))} {cardinal(int(m[1]))}"),
    rule(r"\b(\d+\.\d+)/(\d+)\b", lambda m: f"{quantity(m[1])} out of {quantity(m[2])}"),
    rule(r"(?<=\d)\s?[x×]\s?(?=\d+(?:\.\d+)?(?:\s|\Z|[,.]))(?!\d+\s=)", " by "),
    rule(r"(?<=\d)x\b", " times"),
    rule(r"\b(\d{1,3})\s?h\s?(\d{1,2})\s?m(?:in)?\b", hours_and_minutes),
    rule(r"(?<![\w+])\+\d{1,3}(?:[ -]\d{2,5}){2,5}\b", phone),
    rule(r"\b([A-Z]{2,5})-(\d{4})-(\d{3,})\b", lambda m: f"{m[1]} {spelled(m[2])}, {spelled(m[3])}"),
    rule(r"(?<!\w)#\s?(\d{5,})\b", lambda m: f"number {spelled(m[1])}"),
    rule(r"(?<=\s)@(?=\s)", "at"),
    rule(rf"{_ADDRESS}", lambda m: spoken_address(m.group(), "en")),
    rule(rf"(?i)(?P<minus>[-−])?(?<![A-Za-z])(?P<sign>{_SIGNS})\s?(?P<number>{_NUMBER}){_MAGNITUDE}", money),
    rule(rf"(?i){_NOT_IN_WORD}(?P<minus>[-−])?(?P<number>{_NUMBER}){_MAGNITUDE}\s?(?P<sign>{_AFTER})(?!\w)", money),
    rule(r"(?<![\d/-])(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?![\d/-])", iso_date),
    rule(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\d/])", slash_date),
    rule(rf"\b({_MONTH})\s(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s(\d{{4}})\b)?(?![:\d])", month_first),
    rule(rf"\b(?:[Tt]he\s)?(\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?({_MONTH})(?!\w)(?:,?\s(\d{{4}})\b)?", day_first),
    rule(rf"\b({_MONTH})\s(\d{{4}})\b", month_and_year),
    rule(r"\b(Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\.(?=,|\s[A-Z])", lambda m: _DAYS[m[1]]),
    rule(r"(?i)(?<![\d:])(\d{1,2}):(\d{2})(?::(\d{2}))?(\s?[ap]\.?m\b\.?)?(?![\d:])", clock_time),
    rule(r"(?i)\b(\d{1,2})\s?([ap])\.?m\b\.?", lambda m: f"{cardinal(int(m[1]))} {m[2].upper()} M"),
    rule(r"(?<![\w.])(?:\+?\d{1,3}[ -])?(?:\(\d{2,4}\)|\d{3,4})[ -]\d{3,4}[ -]\d{3,4}(?![\w-])", phone),
    rule(r"(?<![\w.-])\d{3}-\d{4}(?![\w-])|\+\d{7,15}\b", phone),
    rule(r"(?<![\w-])\d+(?:-\d+){2,}(?![\w-])", phone),
    rule(r"(?<![\w.,$])(?:911|(?<=[Cc]all )\d{3}|(?<=[Dd]ial )\d{3})(?![\w%]|[.,]\d)", phone),
    rule(r"(?<![\w.])\d+(?:\.\d+){2,}(?![\w])", dotted),
    rule(r"['’]?\b(\d{4}|\d0)['’]?s\b", decade),
    rule(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1].replace(",", "")))),
    rule(r"(?<![\d/.])(?:(\d+)\s)?(\d{1,2})/(\d{1,3})(?![\d/])", fraction),
    rule(r"(?<![\d/.])24/7(?![\d/])", "twenty-four seven"),
    rule(rf"{_NOT_IN_WORD}({_NUMBER})\s?(?:-|–|—|to)\s?({_NUMBER})(?=\s?(?:%|{_UNITS})(?!\w))", measured_range),
    rule(rf"{_NOT_IN_WORD}({_NUMBER})\s?(?:-|–|—)\s?({_NUMBER})(?![\w-])", number_range),
    rule(rf"(?<![\w)])[-−](?={_NUMBER})", "minus "),
    rule(r"±\s?(?=\d)", "plus or minus "),
    rule(rf"(?<![\w.,])({_NUMBER})\s?({_UNITS})(?![\w²³/])", with_unit),
    rule(r"(?<=[A-Za-z)])²", " squared"),
    rule(r"(?<=[A-Za-z)])³", " cubed"),
    rule(rf"(?<![\w.,])({_NUMBER})\s?([bmt]n)\b", lambda m: f"{quantity(m[1])} {MAGNITUDES[m[2]]}"),
    rule(r"(?<=[a-z])\s?%", " percent"),
    rule(rf"({_NUMBER})\s?%", lambda m: f"{quantity(m[1])} percent"),
    rule(rf"({_NUMBER})\s?(million|billion|trillion|thousand|hundred)\b", lambda m: f"{quantity(m[1])} {m[2]}"),
    rule(r"(?i)\bno\.\s?(?=\d)", "number "),
    rule(r"\bp\.\s?(?=\d)", "page "),
    rule(r"(?<!\w)#\s?(?=\d)", "number "),
    rule(r"(?<!\w)#([^\W\d_]\w{0,100})", hashtag),
    rule(r"(?<!\w)@([A-Za-z]\w{0,100})", handle),
    rule(r"\bSt\.(\s)(?=[A-Z])|\bSt\.(?!\w)", street_or_saint),
    rule(rf"(?<![\w.])({_SHORT})(?!\w)", _abbreviation),
    rule(rf"\b([A-Z][a-z]+|{COUNTED})\s([IVXLC]{{2,}}|[VX])\b(?!-)", roman),
    rule(r"\b([A-Z]+)-(\d{1,3})\b", lambda m: f"{m[1]} {cardinal(int(m[2]))}"),
    rule(
        rf"(?P<cue>{_YEAR_CUE})?(?<![\w.,-])(?P<digits>[12]\d{{3}})(?![\w%]|[.,]\d|-\d)(?P<after>(?:\s\w+)?)",
        bare_year,
    ),
    rule(r"(?<=[A-Za-z]\d)-(?=\d+\.\d+[A-Za-z])", " "),
    rule(r"(?<![\w.])(?:[A-Za-z]+\d|\d+(?:\.\d+)?[A-Za-z])[A-Za-z\d]*(?:\.\d+[A-Za-z]*)*(?!\w)", letters_and_digits),
    rule(r"(?<=\d)\s?×\s?(?=\d)|(?<=\d)\s?\*\s?(?=\d)", " times "),
    rule(r"(?<=\d)\s\+\s(?=\d)|(?<=\d)\+(?=\d)", " plus "),
    rule(r"(?<=\d)\s?÷\s?(?=\d)", " divided by "),
    rule(r"(?<=[\w)])\s=\s(?=[\w(-])", " equals "),
    rule(r"(?<=\s)[−-]\s(?=\d)", "minus "),
    rule(r"(?<=\d)\s?:\s?(?=\d)", " to "),
    rule(r"(?<=\d)\+(?!\w)", " plus"),
    rule(r"(?<=\s)<(?=\s)", "less than"),
    rule(r"(?<=\s)>(?=\s)", "greater than"),
    rule(r"\s?&\s?", " and "),
    rule(r"(?<=[A-Za-z])/(?=(?:or|OR)\b)", " "),
    rule(r"(?<![\w./~-])([A-Za-z]+)/([A-Za-z]+)(?![\w/.-])", lambda m: f"{m[1]} or {m[2]}"),
    rule(r"(?<=\w)/(?=[A-Za-z])|(?<![\w/])/(?=[A-Za-z]+/)", " slash "),
    rule(r"°", " degrees"),
    rule(rf"(?<![\w.]){_NUMBER}", plain_number),
    rule(r"\d+", lambda m: spelled(m.group()) if len(m.group()) > 18 else cardinal(int(m.group()))),
)  # fmt: skip


def read_english(sentence: AlignedText) -> AlignedText:
    """The sentence with everything written in figures or signs put into words."""
    return apply(_RULES, sentence)
