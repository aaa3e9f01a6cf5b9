"""The words of a reference clip: as they are kept and counted, and as the language model reads them."""

from serve_app.preprocess.normalize import clean, normalize


def one_line(transcript: str) -> str:
    """Cleaned as a request's text is, on one line. Applied twice it changes nothing more."""
    return clean(transcript).text.replace("\n", " ")


def as_spoken(transcript: str) -> str:
    """As it was said: figures and signs in words, and an end to the sentence."""
    return normalize(clean(transcript)).text.replace("\n", " ")
