"""What a voice may be called, and when two names are the same."""

import hashlib
import re
import unicodedata

from serve_app.errors import InvalidVoiceName

_NAME = re.compile(r"[\w\-. ]{1,64}")
"""Letters and digits of every script, `_`, `-`, `.` and space: no control or format character, no slash."""


def accepted_name(name: str) -> str:
    """`name` in Unicode's composed form (NFC). Raises InvalidVoiceName."""
    composed = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(composed):
        raise InvalidVoiceName("A voice's name has 1 to 64 characters: letters, digits, spaces, and . - _")
    # A name is a part of a URL: there `.` and `..` mean folders.
    if composed != composed.strip(" ") or composed == "." or ".." in composed:
        raise InvalidVoiceName("A voice's name neither begins nor ends with a space, is no dot, and holds no two dots.")
    return composed


def name_key(name: str, owner: str = "") -> str:
    """Hex digest that is the same for names that differ only in case or in how their accents are written.

    Each owner has names of their own; no owner's digest is that of a name which belongs to everybody.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return hashlib.sha256((f"{owner}\0{folded}" if owner else folded).encode()).hexdigest()
