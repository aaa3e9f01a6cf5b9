"""Which language a sentence is in: by its script, and among Latin scripts by its commonest words."""

import re
from typing import Literal

Language = Literal["zh", "ja", "ko", "de", "en", "other"]
"""`other`: Latin script, but neither English nor German; its figures are left to the model."""

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HANGUL = re.compile(r"[\uac00-\ud7af]")
_LATIN_WORD = re.compile(r"(?<![A-Za-zÀ-ɏ\d])[A-Za-zÀ-ɏ]{2,}(?![A-Za-zÀ-ɏ\d])")
_ADDRESS = re.compile(r"(?:https?://|www\.)[!-~]+|[\w.+-]{1,64}@[A-Za-z0-9.-]+")
_WIDE_MARK = re.compile(r"[，。！？；：、]")
_LETTER = re.compile(r"[^\W\d_]")
_EN = """the of and to in is it that was for on are with as at be this have from or by not you we he she they"""
_DE = """der die das und ist nicht ein eine einen einem mit für auf von zu den dem des im am um es ich sie wir er hat
haben sind war wird bei nach aus uhr kostet über oder auch noch nur sich als wie an uns vom zum gilt geht kein mein
januar februar märz mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonntag"""
_ELSE = """le la les des et est pas une un du dans pour que qui sur au avec el los las y en es por
una del se il gli che di e non per sono o do da os as uma não het een van niet je ça été à è"""
_COMMON: dict[Language, frozenset[str]] = {
    "en": frozenset(_EN.split()),
    "de": frozenset(_DE.split()),
    "other": frozenset(_ELSE.split()),
}
_GERMAN_LETTER = re.compile(r"[äöüßÄÖÜ]")


def latin_language(text: str) -> Language:
    """The language of the Latin-script parts of a whole text."""
    words = [w.lower() for w in _LATIN_WORD.findall(text[:4000])]
    scores: dict[Language, float] = {
        language: float(sum(w in common for w in words)) for language, common in _COMMON.items()
    }
    if _GERMAN_LETTER.search(text):
        scores["de"] += 1.5
    best = max(scores, key=lambda language: scores[language])
    # One word alone proves nothing: "war" is English too.
    return best if scores[best] > scores["en"] and scores[best] > 1 else "en"


def sentence_language(sentence: str, latin: Language, text_language: Language) -> Language:
    """The language whose words a figure in this sentence is read with.

    latin: what Latin letters mean in this text. text_language: for a sentence without letters.
    Chinese when it has at least as many Chinese characters as foreign words: "今天 iPhone 15 发布" but not
    "I met 小明 at 5:30 on May 3".
    """
    num_latin = len(_LATIN_WORD.findall(_ADDRESS.sub("", sentence)))
    if _KANA.search(sentence):
        return "ja"
    if len(_HANGUL.findall(sentence)) > num_latin:
        return "ko"
    num_han = len(_HAN.findall(sentence))
    if num_han and num_han >= num_latin:
        return "ja" if text_language == "ja" else "zh"
    if num_latin or _LETTER.search(sentence):
        return latin
    return text_language


def text_language(text: str, latin: Language) -> Language:
    """The language of a text as a whole: that of the script with most to say."""
    if len(_KANA.findall(text)) > len(_HAN.findall(text)) / 4 and _KANA.search(text):
        return "ja"
    counts: dict[Language, int] = {
        "zh": len(_HAN.findall(text)),
        "ko": len(_HANGUL.findall(text)),
        latin: len(_LATIN_WORD.findall(text)),
    }
    best = max(counts, key=lambda language: counts[language])
    if not counts[best]:
        return "zh" if _WIDE_MARK.search(text) else "en"
    return best
