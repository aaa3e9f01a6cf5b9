"""The text tokenizer: a Hugging Face `tokenizer.json` whose normaliser looks words up in the pronunciation lexicon.

Text is lower-cased, every lexicon word is replaced by its pronunciation units (`units.py`), other words go through
letter rules, and a BPE over units makes tokens of about 2.5 phonemes. CosyVoice2's special tokens follow as added
tokens, in upstream's order. Writes WORK/tokenizer/ (tokenizer.json, tokenizer_config.json).

    python tokenizer.py --work WORK
"""

import argparse
import json
import re
from pathlib import Path

import units
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 1600
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# Letters to phonemes (misaki's alphabet) for words outside the lexicon, first match first.
LETTER_RULES = [
    ("tion", "ʃᵊn"),
    ("sion", "ʒᵊn"),
    ("cious", "ʃəs"),
    ("tious", "ʃəs"),
    ("ture", "ʧəɹ"),
    ("igh", "I"),
    ("eigh", "A"),
    ("ough", "O"),
    ("augh", "ɔ"),
    ("tch", "ʧ"),
    ("dge", "ʤ"),
    ("sch", "sk"),
    ("ch", "ʧ"),
    ("sh", "ʃ"),
    ("th", "θ"),
    ("ph", "f"),
    ("wh", "w"),
    ("ck", "k"),
    ("qu", "kw"),
    ("ng", "ŋ"),
    ("kn", "n"),
    ("wr", "ɹ"),
    ("gh", "ɡ"),
    ("ee", "i"),
    ("ea", "i"),
    ("oo", "u"),
    ("ou", "W"),
    ("ow", "O"),
    ("oi", "Y"),
    ("oy", "Y"),
    ("ai", "A"),
    ("ay", "A"),
    ("au", "ɔ"),
    ("aw", "ɔ"),
    ("ei", "i"),
    ("ey", "i"),
    ("ie", "i"),
    ("oa", "O"),
    ("ew", "u"),
    ("ue", "u"),
    ("er", "əɹ"),
    ("ir", "ɜɹ"),
    ("ur", "ɜɹ"),
    ("ar", "ɑɹ"),
    ("or", "ɔɹ"),
    ("bb", "b"),
    ("cc", "k"),
    ("dd", "d"),
    ("ff", "f"),
    ("gg", "ɡ"),
    ("ll", "l"),
    ("mm", "m"),
    ("nn", "n"),
    ("pp", "p"),
    ("rr", "ɹ"),
    ("ss", "s"),
    ("tt", "t"),
    ("zz", "z"),
    ("x", "ks"),
    ("y", "i"),
    ("a", "æ"),
    ("b", "b"),
    ("c", "k"),
    ("d", "d"),
    ("e", "ɛ"),
    ("f", "f"),
    ("g", "ɡ"),
    ("h", "h"),
    ("i", "ɪ"),
    ("j", "ʤ"),
    ("k", "k"),
    ("l", "l"),
    ("m", "m"),
    ("n", "n"),
    ("o", "O"),
    ("p", "p"),
    ("q", "k"),
    ("r", "ɹ"),
    ("s", "s"),
    ("t", "t"),
    ("u", "ʌ"),
    ("v", "v"),
    ("w", "w"),
    ("z", "z"),
]
# Regular expressions that come before the letters: long vowels before a silent e, soft c, the possessive.
CONTEXT_RULES = [
    ("a(?=[bcdfgklmnpstvz]e )", "A"),
    ("i(?=[bcdfgklmnpstvz]e )", "I"),
    ("o(?=[bcdfgklmnpstvz]e )", "O"),
    ("u(?=[bcdfgklmnpstvz]e )", "u"),
    ("(?<=[bcdfgklmnpqrstvz])e ", " "),
    ("c(?=[eiy])", "s"),
    ("'s ", "z "),
    ("y(?=[aeiou])", "j"),
]
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|[,.!?]")


def normalizer(lexicon: dict[str, str]) -> normalizers.Sequence:
    """Text -> pronunciation units: each word or pause (, . ! ?) with one space before it."""
    replace = normalizers.Replace
    return normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            replace(Regex("[’‘`]"), "'"),
            *[replace(str(digit), f" {word} ") for digit, word in enumerate(DIGITS)],
            replace("&", " and "),
            replace("%", " percent "),
            replace("@", " at "),
            replace("+", " plus "),
            replace(Regex("[—–;:，、；：]|--+"), ","),
            replace(Regex("[。…]"), "."),
            replace(Regex("(?<![a-z])'|'(?![a-z])"), " "),
            replace(Regex("[^a-z',.!?]+"), " "),
            replace(Regex("(?<=[,.!?])[ ,.!?]+"), ""),
            *[replace(pause, f" {pause} ") for pause in ",.!?"],
            # Two spaces between words: each pattern below owns the spaces around its word.
            replace(Regex("^ +| +$"), ""),
            replace(Regex(" +"), "  "),
            replace(Regex("^(?=.)|(?<=.)$"), " "),
            *[replace(f" {word} ", f" {units_} ") for word, units_ in lexicon.items()],
            *[replace(Regex(pattern), units.from_teacher(phonemes)) for pattern, phonemes in CONTEXT_RULES],
            *[replace(letters, units.from_teacher(phonemes)) for letters, phonemes in LETTER_RULES],
            replace(Regex("['a-z]+"), ""),
            replace(Regex(f" Ðə(?=  [ˈˌ]?[{units.VOWELS}])"), " ÐÍ"),
            replace(Regex(" +"), " "),
            replace(Regex(" $"), ""),
        ]
    )


class Pronouncer:
    """The normaliser's result without its cost: words are looked up here, only unknown ones run the rules."""

    def __init__(self, lexicon: dict[str, str]) -> None:
        self._known = dict(lexicon)
        self._rules = normalizer({})
        self._the = re.compile(f" Ðə(?= [ˈˌ]?[{units.VOWELS}])")

    def __call__(self, text: str) -> str:
        """A plain sentence (letters, apostrophes, hyphens and pauses) -> units, as `normalizer` gives."""
        plain = re.sub(r"[—–;:]|--+", ",", text.lower())
        plain = re.sub(r"(?<=[,.!?])[ ,.!?]+", " ", plain)
        words = []
        for word in WORD.findall(plain):
            if word not in self._known:
                self._known[word] = word if word in ",.!?" else self._rules.normalize_str(word).strip()
            if self._known[word]:
                words.append(self._known[word])
        return self._the.sub(" ÐÍ", "".join(f" {word}" for word in words))


def train_bpe(sentences: list[str]) -> Tokenizer:
    """BPE over units; a token is at most five characters, space and stress marks included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=[*units.ALPHABET, " ", *",.!?"],
        limit_alphabet=len(units.ALPHABET) + 5,
        max_token_length=5,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    lexicon = json.loads((work / "lexicon.json").read_text())
    train = (work / "texts/train.txt").read_text().splitlines()
    heldout = (work / "texts/heldout.txt").read_text().splitlines()
    pronounce = Pronouncer(lexicon)
    sentences = [pronounce(text) for text in train]
    tokenizer = train_bpe(sentences)
    tokenizer.save(str(work / "bpe.json"))
    num_tokens = sum(len(tokenizer.encode(s).ids) for s in sentences[:2000])
    num_phonemes = sum(len(re.sub("[ ˈˌ]", "", s)) for s in sentences[:2000])
    print(
        f"{len(lexicon)} words, {tokenizer.get_vocab_size()} tokens, {num_phonemes / num_tokens:.2f} phonemes a token"
    )

    tokenizer.normalizer = normalizer(lexicon)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    tokenizer.decoder = decoders.Fuse()
    folder = work / "tokenizer"
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[0],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    wrong = [text for text in heldout[:100] if tokenizer.normalizer.normalize_str(text) != pronounce(text)]
    print(f"{len(wrong)} of 100 sentences differ between the normaliser and the fast path: {wrong[:3]}")


if __name__ == "__main__":
    main()
