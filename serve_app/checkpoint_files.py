"""Which files of a CosyVoice2 directory this program reads: what is downloaded, and what must be there to serve."""

from pathlib import Path

_TOKENIZER = "CosyVoice-BlankEN"
REQUIRED = (
    "cosyvoice2.yaml",
    "llm.pt",
    "flow.pt",
    "hift.pt",
    "campplus.onnx",
    "speech_tokenizer_v2.onnx",
    f"{_TOKENIZER}/config.json",
)
SLOW_TOKENIZER = (f"{_TOKENIZER}/vocab.json", f"{_TOKENIZER}/merges.txt")
FAST_TOKENIZER = f"{_TOKENIZER}/tokenizer.json"
"""Stands for the slow one's two files where it exists."""
OPTIONAL = (
    "spk2info.pt",
    f"{_TOKENIZER}/generation_config.json",
    f"{_TOKENIZER}/tokenizer_config.json",
    FAST_TOKENIZER,
)
WANTED = frozenset((*REQUIRED, *SLOW_TOKENIZER, *OPTIONAL))


def missing_from(present: frozenset[str]) -> list[str]:
    """What a directory with these files lacks."""
    tokenizer = () if FAST_TOKENIZER in present else SLOW_TOKENIZER
    return [name for name in (*REQUIRED, *tokenizer) if name not in present]


def missing_files(directory: Path) -> list[str]:
    """What `directory` lacks."""
    return missing_from(frozenset(name for name in WANTED if (directory / name).is_file()))
