"""Numbers as words, in the languages whose readings we write ourselves. Pure functions of plain integers and digits.

Chinese sentences go through wetext's grammars (`read_chinese.py`); these functions serve what those leave.
"""

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MAX_CARDINAL = 10**18


def cardinal(number: int) -> str:
    """English: 1234 -> one thousand two hundred thirty-four. 0 <= number < 10**18."""
    if number < 1000:
        return _below_thousand(number)
    words: list[str] = []
    for scale in range(len(_SCALES) - 1, -1, -1):
        group = number // 1000**scale % 1000
        if group:
            words.append(f"{_below_thousand(group)} {_SCALES[scale]}".strip())
    return " ".join(words)


def _below_thousand(number: int) -> str:
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    rest = f" {_below_thousand(number % 100)}" if number % 100 else ""
    return f"{_ONES[number // 100]} hundred{rest}"


def ordinal(number: int) -> str:
    """English: 21 -> twenty-first."""
    words = cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    head, last = words[:cut], words[cut:]
    if last in _IRREGULAR_ORDINALS:
        return head + _IRREGULAR_ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(number: int) -> str:
    """English: 1905 -> nineteen oh five, 2000 -> two thousand, 2024 -> twenty twenty-four. 1000 <= number <= 2999."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def plural(words: str) -> str:
    """English: sixty -> sixties, two thousand -> two thousands, six -> sixes."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s")) else "s")


def spelled(digits: str) -> str:
    """English: 407 -> four zero seven. Anything but an ASCII digit is skipped."""
    return " ".join(_ONES[int(d)] for d in digits if d.isdigit())


def quantity(digits: str) -> str:
    """English: a number as written, with separators, leading zeros or decimals: 1,234.50 -> ... point five zero."""
    whole, _, fraction = digits.replace(",", "").partition(".")
    code = len(whole) > 18 or (len(whole) > 1 and whole[0] == "0")
    words = spelled(whole) if code else cardinal(int(whole or "0"))
    return f"{words} point {spelled(fraction)}" if fraction else words


_GERMAN_ONES = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]  # fmt: skip
_GERMAN_TENS = ["_", "_", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def german(number: int) -> str:
    """German: 1234 -> tausendzweihundertvierunddreißig. 0 <= number < 10**12."""
    if number < 20:
        return _GERMAN_ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_german_stem(ones)}und" if ones else "") + _GERMAN_TENS[tens]
    for size, word in ((10**9, "Milliarde"), (10**6, "Million")):
        if number >= size:
            count, rest = divmod(number, size)
            many = word + ("n" if word.endswith("e") else "en")
            head = f"eine {word}" if count == 1 else f"{german(count)} {many}"
            return head + (f" {german(rest)}" if rest else "")
    size, word = (1000, "tausend") if number >= 1000 else (100, "hundert")
    count, rest = divmod(number, size)
    return (_german_stem(count) if count > 1 else "") + word + (german(rest) if rest else "")


def _german_stem(number: int) -> str:
    """As the first part of a compound: eins loses its s."""
    words = german(number)
    return words[:-1] if words.endswith("eins") else words


def german_ordinal(number: int) -> str:
    """German, without its ending: 3 -> dritt, 20 -> zwanzigst."""
    special = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
    last = number % 100
    if 0 < last < 20:
        head = german(number - last) if number > last else ""
        return head + (special.get(last) or _german_stem(last) + "t" if last != 1 else "erst")
    return german(number) + "st"


def german_year(number: int) -> str:
    """German: 1999 -> neunzehnhundertneunundneunzig, 2024 -> zweitausendvierundzwanzig."""
    if 1100 <= number < 2000:
        century, rest = divmod(number, 100)
        return f"{german(century)}hundert" + (german(rest) if rest else "")
    return german(number)


_MYRIADS = {
    "zh": ("零一二三四五六七八九", "十百千", ("", "万", "亿", "万亿")),
    "ja": ("零一二三四五六七八九", "十百千", ("", "万", "億", "兆")),
    "ko": ("영일이삼사오육칠팔구", "십백천", ("", "만", "억", "조")),
}


def myriad(number: int, language: str) -> str:
    """Chinese, Japanese or Sino-Korean ("zh", "ja", "ko"): 12345 -> 一万二千三百四十五. 0 <= number < 10**16."""
    digits, _, scales = _MYRIADS[language]
    if number == 0:
        return digits[0]
    words, gap = "", False
    for scale in range(3, -1, -1):
        group = number // 10_000**scale % 10_000
        if group == 0:
            gap = bool(words)
            continue
        if language == "zh" and words and (gap or group < 1000):
            words += digits[0]
        spoken = _myriad_group(group, language)
        if language == "ko" and group == 1 and scale == 1 and not words:
            spoken = ""  # 만, not 일만
        words, gap = words + spoken + scales[scale], False
    if language == "zh" and words.startswith("一十"):
        words = words[1:]
    return words


def _myriad_group(group: int, language: str) -> str:
    """A number of one to four digits."""
    digits, units, _ = _MYRIADS[language]
    words, gap = "", False
    for place in (3, 2, 1, 0):
        digit = group // 10**place % 10
        if digit == 0:
            gap = bool(words)
            continue
        if gap and language == "zh":
            words += digits[0]
        silent_one = digit == 1 and place > 0 and language != "zh"
        words, gap = words + ("" if silent_one else digits[digit]) + (units[place - 1] if place else ""), False
    return words


def myriad_digits(digits: str, language: str) -> str:
    """Digit by digit: 302 -> 三零二."""
    names = _MYRIADS[language][0]
    return "".join(names[int(d)] for d in digits if d.isdigit())


_NATIVE_KOREAN_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_KOREAN_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")


def native_korean(number: int) -> str:
    """The numbers that count things, hours and years of age, before a counter: 3 -> 세, 20 -> 스무. 1..99."""
    if number == 20:
        return "스무"
    return _NATIVE_KOREAN_TENS[number // 10] + _NATIVE_KOREAN_ONES[number % 10]
