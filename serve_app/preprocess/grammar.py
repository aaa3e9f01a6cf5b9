"""wetext's grammars for Chinese and Japanese, one clause at a time.

wetext 0.1.8 brings its grammars in its wheel and needs no network. A clause that a grammar cannot read keeps its words,
and its figures are read one by one.
"""

import re
from functools import cache
from typing import Any, Literal

from wetext import Normalizer

from serve_app.preprocess.aligned_text import AlignedText
from serve_app.preprocess.numerals import myriad, myriad_digits

GrammarLanguage = Literal["zh", "ja"]

_OTHER = r"[^，。！？；、,!?;…\n\"“”‘’「」『』《》（）()\[\]【】<>]*"
_CLAUSE = re.compile(rf"{_OTHER}\d{_OTHER}")
_MAX_CLAUSE = 120
"""The grammars' time grows faster than a clause; none that a person wrote is longer."""
_FIGURES = re.compile(r"\d+")


@cache
def _grammar(language: GrammarLanguage) -> Any:
    """Loaded once per process: a few MB, some 50 ms."""
    return Normalizer(lang=language)


def apply_grammar(language: GrammarLanguage, sentence: AlignedText) -> AlignedText:
    """The sentence with every figure put into words."""

    def read_clause(m: re.Match[str]) -> str | None:
        clause = m.group()
        body = clause.strip()
        if len(body) > _MAX_CLAUSE:
            return None
        try:
            spoken = str(_grammar(language).normalize(body))
        except (AssertionError, RuntimeError, ValueError, KeyError, IndexError):
            return None
        return clause[: len(clause) - len(clause.lstrip())] + spoken + clause[len(clause.rstrip()) :]

    def read_figures(m: re.Match[str]) -> str:
        digits = m.group()
        return myriad(int(digits), language) if len(digits) < 5 else myriad_digits(digits, language)

    return sentence.sub(_CLAUSE, read_clause).sub(_FIGURES, read_figures)
