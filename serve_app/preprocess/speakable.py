"""A request's text to token ids, piece by piece, each with its place in the text and the silence before it."""

from dataclasses import dataclass

from serve_app.errors import EmptyInput
from serve_app.messages import Int32Array
from serve_app.preprocess.markup import read_markup
from serve_app.preprocess.normalize import clean, normalize
from serve_app.preprocess.split import Piece, split
from serve_app.preprocess.tokenizer import Tokenizer

_NOTHING = "The text holds nothing that can be spoken."


@dataclass(frozen=True, slots=True, eq=False)
class SpeakablePiece:
    """ids: int32 [T], T >= 1, of the piece's text. pause_before_s: seconds of silence asked for before it."""

    ids: Int32Array
    piece: Piece
    pause_before_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeakableText:
    """At least one piece, in speaking order; the silence after the last; warnings in plain words."""

    pieces: tuple[SpeakablePiece, ...]
    pause_after_s: float
    warnings: tuple[str, ...]


def speakable(
    text: str, normalized: bool, tokenizer: Tokenizer, max_tokens: int, by_sentence: bool = False
) -> SpeakableText:
    """Markup read, figures put into words (if `normalized`), cut into pieces of at most `max_tokens`, encoded.

    Raises EmptyInput when nothing is left, or nothing that the checkpoint's tokenizer has tokens for: one for a single
    language may drop other scripts altogether.
    """
    script = read_markup(clean(text), plain=not normalized)
    if not script.passages:
        raise EmptyInput(_NOTHING)
    whole = "\n".join(passage.text.text for passage in script.passages)
    pieces: list[SpeakablePiece] = []
    waiting_s = 0.0
    for passage in script.passages:
        waiting_s += passage.pause_before_s
        words = normalize(passage.text, whole) if normalized else passage.text
        for piece in split(words, tokenizer.spans, max_tokens, not pieces, by_sentence):
            ids = tokenizer.encode(piece.text)
            if len(ids):
                pieces.append(SpeakablePiece(ids, piece, waiting_s))
                waiting_s = 0.0
    if not pieces:
        raise EmptyInput(_NOTHING)
    return SpeakableText(tuple(pieces), waiting_s + script.pause_after_s, script.warnings)
