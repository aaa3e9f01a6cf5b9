"""Rewriting rules: what to look for, and what to say instead."""

import re

from serve_app.preprocess.aligned_text import AlignedText, Rewrite

Rules = tuple[tuple[re.Pattern[str], Rewrite], ...]


def rule(pattern: str, rewrite: Rewrite | str) -> tuple[re.Pattern[str], Rewrite]:
    """One rule; a string is what replaces the match, as it is."""
    compiled = re.compile(pattern)
    if isinstance(rewrite, str):
        words = rewrite
        return compiled, lambda _: words
    return compiled, rewrite


def apply(rules: Rules, text: AlignedText) -> AlignedText:
    """Every rule in turn, each on what the ones before it left."""
    for pattern, rewrite in rules:
        text = text.sub(pattern, rewrite)
    return text
