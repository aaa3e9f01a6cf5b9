"""The alphabet of pronunciation units between the tokenizer and the teacher.

Misaki's phoneme alphabet (which hibari speaks) uses lower-case ASCII letters for many consonants. The tokenizer
needs letters and phonemes side by side in one string, so every such phoneme is renamed to a character that no lower-
cased English text holds. One character is one teacher symbol, in both directions.
"""

_ASCII = {
    "b": "B",
    "d": "D",
    "f": "F",
    "ɡ": "G",
    "h": "H",
    "ʤ": "J",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "ŋ": "Ŋ",
    "p": "P",
    "ɹ": "R",
    "s": "S",
    "ʃ": "Ʃ",
    "t": "T",
    "θ": "Θ",
    "ð": "Ð",
    "v": "V",
    "w": "W",
    "z": "Z",
    "ʒ": "Ʒ",
    "j": "Y",
    "ʧ": "C",
    "T": "X",
    "A": "É",
    "I": "Á",
    "O": "Ó",
    "W": "Ä",
    "Y": "Ö",
    "i": "Í",
    "u": "Ú",
    "a": "À",
}
_KEPT = "ɑæʌəɔɛɜɪʊᵊᵻɐˈˌɚ"
PAUSES = ",.!?;:—"
TO_UNIT = {**_ASCII, **{c: c for c in _KEPT}}
TO_TEACHER = {unit: phoneme for phoneme, unit in TO_UNIT.items()}
ALPHABET = sorted(TO_UNIT.values())
VOWELS = "ÉÁÓÄÖÍÚÀɑæʌəɔɛɜɪʊᵊᵻɐɚ"


def from_teacher(phonemes: str) -> str:
    """Misaki phonemes -> units; symbols outside the alphabet are dropped, spaces and pauses kept."""
    return "".join(TO_UNIT.get(c, c if c == " " or c in PAUSES else "") for c in phonemes)


def to_teacher(units: str) -> str:
    """Units (words separated by spaces, pauses glued or spaced) -> misaki phonemes as hibari writes them."""
    phonemes = "".join(TO_TEACHER.get(c, c if c == " " or c in PAUSES else "") for c in units)
    for pause in PAUSES:
        phonemes = phonemes.replace(f" {pause}", pause)
    return " ".join(phonemes.split())
