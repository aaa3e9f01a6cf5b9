"""Word errors."""

import re


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; apostrophes vanish, hyphens part words."""
    return re.sub(r"[^a-z0-9 ]", " ", text.lower().replace("'", "").replace("’", "")).split()
