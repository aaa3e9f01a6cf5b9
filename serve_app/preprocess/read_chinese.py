"""Chinese: what wetext's grammar misreads is put right first, then the grammar reads every clause with a figure."""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.grammar import apply_grammar
from serve_app.preprocess.numerals import myriad, myriad_digits
from serve_app.preprocess.read_addresses import spoken_address
from serve_app.preprocess.rules import Rules, apply, rule

_MONEY = {
    "US$": "美元", "HK$": "港元", "$": "美元", "USD": "美元", "€": "欧元", "EUR": "欧元", "£": "英镑", "GBP": "英镑",
    "￥": "元", "¥": "元", "RMB": "元", "CNY": "元", "JPY": "日元", "₩": "韩元",
}  # fmt: skip
_UNITS = {
    "GB": "G B", "MB": "兆", "TB": "T B", "KB": "K B", "GHz": "吉赫兹", "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹",
    "kWh": "千瓦时", "kW": "千瓦", "W": "瓦", "V": "伏", "mAh": "毫安时", "mA": "毫安", "A": "安", "dB": "分贝",
    "km²": "平方公里", "m²": "平方米", "㎡": "平方米", "m³": "立方米", "mL": "毫升", "L": "升", "mg": "毫克", "t": "吨",
    "m/s": "米每秒", "Mbps": "兆比特每秒", "ms": "毫秒", "μm": "微米", "nm": "纳米",
}  # fmt: skip
_SIGN = "|".join(sorted(map(re.escape, _MONEY), key=len, reverse=True))
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_NUMBER = r"\d+(?:\.\d+)?"


def _phone_digits(text: str) -> str:
    """Groups of a telephone number; one is said yao."""
    groups = re.findall(r"\d+", text)
    return "，".join(myriad_digits(g, "zh").replace("一", "幺") for g in groups)


def _percent_range(m: re.Match[str]) -> str:
    return f"百分之{_decimal(m[1])}到百分之{_decimal(m[2])}"


def _two_years(m: re.Match[str]) -> str:
    return f"{myriad_digits(m[1], 'zh')}到{myriad_digits(m[2], 'zh')}"


def _decimal(number: str) -> str:
    whole, _, fraction = number.partition(".")
    spoken = myriad(int(whole), "zh") if len(whole) < 16 else myriad_digits(whole, "zh")
    return spoken + (f"点{myriad_digits(fraction, 'zh')}" if fraction else "")


_RULES: Rules = (
    rule(
        r"(?:https?://|www\.)[A-Za-z0-9./?=&#_%+:~-]+[A-Za-z0-9/]|[A-Za-z0-9.+_-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
        lambda m: spoken_address(m.group(), "zh"),
    ),
    rule(r"(?<=\d),(?=\d{3}(?!\d))", ""),
    rule(r"([￥¥$€£]\s?\d+)\.00(?!\d)|(?<!\d)(\d+)\.00(?=\s?元)", lambda m: m[1] or m[2]),
    rule(r"(?<![\d.])\d{12,}(?![\d.]*[元万亿])", lambda m: myriad_digits(m.group(), "zh")),
    rule(
        r"(回复|输入|密码是?|按)([\"“]?)(\d{2,8})(?=[\"”]|[，。]|$)", lambda m: m[1] + m[2] + myriad_digits(m[3], "zh")
    ),
    rule(r"(\d{4})\s?[-~–]\s?(\d{4})(?=学年|年度|赛季|财年)", _two_years),
    rule(r"(血压\D{0,3})(\d{2,3})/(\d{2,3})", lambda m: f"{m[1]}{_decimal(m[2])}、{_decimal(m[3])}"),
    rule(r"mmHg", "毫米汞柱"),
    rule(r"(\d)米(\d{1,2})(?![\d.]|[多米厘])", lambda m: f"{myriad_digits(m[1], 'zh')}米{myriad_digits(m[2], 'zh')}"),
    rule(r"([￥¥]\s?)(\d+(?:\.\d+)?)/(?=[次人月年天日时小个斤公吨平瓶盒件])", lambda m: f"{m[2]}元每"),
    rule(r"(?<=[\d元])/(?=[次人月年天日时小个斤公吨平瓶盒件])", "每"),
    rule(rf"(?i)(?:{_SIGN})\s?({_NUMBER})([万亿千百]+)", lambda m: f"{_decimal(m[1])}{m[2]}{_money_name(m)}"),
    rule(rf"(?i)(?<![A-Za-z])(?:RMB|USD|EUR|GBP|CNY|JPY)\s?({_NUMBER})", lambda m: f"{_decimal(m[1])}{_money_name(m)}"),
    rule(
        rf"(?i)({_NUMBER}[万亿千百]*)\s?(USD|EUR|GBP|RMB|CNY|JPY)(?![A-Za-z])",
        lambda m: f"{m[1]}{_MONEY[m[2].upper()]}",
    ),
    rule(r"(?<![\d.])([12]\d{3})\.(\d{1,2})\.(\d{1,2})(?![\d.])", lambda m: f"{m[1]}年{int(m[2])}月{int(m[3])}日"),
    rule(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d.])", lambda m: _dotted(m.group())),
    rule(r"(?<![\d.第])2(?=次|遍|趟|回|位|家|份|点)", "两"),
    rule(
        r"\+86[ -]?(1\d{2})[ -]?(\d{4})[ -]?(\d{4})(?!\d)", lambda m: "加八六，" + _phone_digits(" ".join(m.groups()))
    ),
    rule(
        r"(?<![\d-])(?:1\d{2}[ -]\d{4}[ -]\d{4}|0\d{2,3}-\d{7,8}|[48]00-\d{3}-\d{4})(?![\d-])",
        lambda m: _phone_digits(m.group()),
    ),
    rule(r"(?<!\d)(1[3-9]\d)(\d{4})(\d{4})(?!\d)", lambda m: _phone_digits(m.group())),
    rule(r"(?<!\d)911(?!\d)", "九幺幺"),
    rule(
        r"(号码|编号|单号|密码|验证码|账号|帐号|卡号|尾号|工号|学号|订单号|QQ号?|微信号?|邮编|代码|房号|车牌号?)([是为：:]?\s?[A-Za-z]*-?)(\d+)(?![.\d]*[元%万亿])",
        lambda m: m[1] + m[2].replace("-", "") + myriad_digits(m[3], "zh"),
    ),
    rule(r"(?<!\d)(\d{3,4})(?=室|房间|号房|国道|路公交|航班|次航班|号航班)", lambda m: myriad_digits(m[1], "zh")),
    rule(r"(\d)秒(\d{2})(?![\d.])", lambda m: f"{_decimal(m[1])}秒{myriad_digits(m[2], 'zh')}"),
    rule(r"(房间|(?<![A-Za-z])[A-Z]{1,2})(\d{3,4})(?![.\d元万次])", lambda m: m[1] + myriad_digits(m[2], "zh")),
    rule(r"(?<!\d)(\d{2})年(?=\d{1,2}月|春|夏|秋|冬|初|底|代初)", lambda m: myriad_digits(m[1], "zh") + "年"),
    rule(r"公元前(\d{2,4})年", lambda m: f"公元前{myriad(int(m[1]), 'zh')}年"),
    rule(rf"({_NUMBER})%\s?[-~～—–至到]\s?({_NUMBER})%", _percent_range),
    rule(rf"({_NUMBER})\s?[-~～—–]\s?({_NUMBER})%", _percent_range),
    rule(r"(?<=\d)\s?[~～—–]\s?(?=\d)", "到"),
    rule(r"[~～](?=\d)", "约"),
    rule(r"(?i)\bno\.\s?(?=\d)|№\s?(?=\d)", "第"),
    rule(r"#(?=\d)", "第"),
    rule(rf"({_NUMBER})\s?({_UNIT})(?![A-Za-z0-9/²³])", lambda m: f"{_decimal(m[1])}{_UNITS[m[2]]}"),
    rule(r"(?<=\d)\s?℉", "华氏度"),
    rule(r"(?<=\d)\s?&\s?(?=\d)|(?<=[\u4e00-\u9fff])\s?&\s?(?=[\u4e00-\u9fff])", "和"),
)


def _money_name(m: re.Match[str]) -> str:
    sign = re.match(rf"(?i){_SIGN}", m.group())
    return _MONEY[sign.group().upper()] if sign else ""


def _dotted(text: str) -> str:
    """A version, or an address of four numbers."""
    parts = text.split(".")
    return "点".join(myriad_digits(p, "zh") if len(parts) == 4 else _decimal(p) for p in parts)


def read_chinese(sentence: AlignedText) -> AlignedText:
    """The sentence with everything written in figures or signs put into words."""
    if not any(c.isdigit() or c in "@&:/" for c in sentence.text):
        return sentence
    return apply_grammar("zh", apply(_RULES, sentence))
