"""Chinese: what wetext's grammar misreads is put right first, then the grammar reads every clause with a figure."""

import re

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.grammar import apply_grammar
from serve_app.preprocess.numerals import myriad, myriad_digits
from serve_app.preprocess.read_addresses import spoken_address
from serve_app.preprocess.rules import Rules, apply, rule
from serve_app.preprocess.units import VULGAR

_MONEY = {
    "US$": "美元", "HK$": "港元", "$": "美元", "USD": "美元", "€": "欧元", "EUR": "欧元", "£": "英镑", "GBP": "英镑",
    "￥": "元", "¥": "元", "RMB": "元", "CNY": "元", "JPY": "日元", "₩": "韩元",
}  # fmt: skip
_UNITS = {
    "GB": "G B", "MB": "兆", "TB": "T B", "KB": "K B", "GHz": "吉赫兹", "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹",
    "kWh": "千瓦时", "kW": "千瓦", "W": "瓦", "V": "伏", "mAh": "毫安时", "mA": "毫安", "A": "安", "dB": "分贝",
    "km²": "平方公里", "m²": "平方米", "㎡": "平方米", "m³": "立方米", "mL": "毫升", "L": "升", "mg": "毫克", "t": "吨",
    "mmol/L": "毫摩尔每升", "μmol/L": "微摩尔每升", "mg/dL": "毫克每分升", "mg/L": "毫克每升", "g/L": "克每升",
    "kcal": "千卡", "kJ": "千焦", "hPa": "百帕", "kPa": "千帕", "MPa": "兆帕",
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


_TEAMS_PLAYED = "战胜|击败|力克|逆转|大胜|险胜|不敌|负于|惜败|完胜|完败|获胜|取胜|落败|战平|领先|落后|的?比分"
_MONARCHS = (
    "路易|伊丽莎白|查理|查尔斯|亨利|乔治|威廉|爱德华|理查|玛丽|拿破仑|尼古拉|亚历山大|腓特烈|腓力|保罗|本笃|方济各"
)
_ROMANS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI")
_ROMAN = {r: n for n, r in enumerate(_ROMANS, 1)}
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"


def _score(m: re.Match[str]) -> str:
    return f"{m[1]}{_decimal(m[2])}比{_decimal(m[3])}"


def _roman(m: re.Match[str]) -> str:
    return f"{m[1] or ''}{myriad(_ROMAN[m[2]], 'zh')}{'世' if m[1] else ''}"


def _train(m: re.Match[str]) -> str:
    return m[1] + (myriad_digits(m[2], "zh") if len(m[2]) > 2 else myriad(int(m[2]), "zh"))


_RULES: Rules = (
    rule(
        r"(?:https?://|www\.)[A-Za-z0-9./?=&#_%+:~-]+[A-Za-z0-9/]|[A-Za-z0-9.+_-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
        lambda m: spoken_address(m.group(), "zh"),
    ),
    rule(r"(?<=\d),(?=\d{3}(?!\d))", ""),
    rule(r"(?<!\d)[½⅓⅔¼¾⅛⅜⅝⅞]", lambda m: VULGAR[m.group()]),
    rule(rf"({_NUMBER})\s?[×xX]\s?({_NUMBER})(?![\d.A-Za-z=])", lambda m: f"{_decimal(m[1])}乘{_decimal(m[2])}"),
    rule(r"(公交车?|乘坐?|坐)(\d{3})(?=路)", lambda m: m[1] + myriad_digits(m[2], "zh")),
    rule(
        rf"(以|比分[是为]?)(\d{{1,3}})\s?[-–:：比]\s?(\d{{1,3}})(?=[\u4e00-\u9fff]{{0,3}}(?:{_TEAMS_PLAYED})|[，。！]|$)",
        _score,
    ),
    rule(
        rf"({_MONARCHS})?(?<=[\u4e00-\u9fff])(X?(?:IX|IV|V?I{{2,3}}|VI|XI{{1,3}}|XVI?)|(?<=[王皇白])I)(?![A-Za-z\d])",
        _roman,
    ),
    rule(
        rf"([{_PROVINCES}][A-Z])[ ·]?([A-Z\d]{{5,6}})(?![A-Za-z\d])",
        lambda m: m[1] + re.sub(r"\d+", lambda d: myriad_digits(d.group(), "zh"), m[2]),
    ),
    rule(r"(?<![A-Za-z])([GDCZTKYLS])(\d{1,4})(?=次)", _train),
    rule(r"第\s?(\d{1,8})\s?[-–~～至到]\s?(\d{1,8})(?![\d.])", lambda m: f"第{_decimal(m[1])}到{_decimal(m[2])}"),
    rule(r"第\s?(\d{1,8})(?![\d.])", lambda m: f"第{_decimal(m[1])}"),
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
    if not any(c.isdigit() or c in "@&:/IVX" for c in sentence.text) and "www." not in sentence.text:
        return sentence
    return apply_grammar("zh", apply(_RULES, sentence))
