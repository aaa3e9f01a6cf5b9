"""Word -> pronunciation units, by hibari's grapheme-to-phoneme rules: in sentence context where the corpus has the
word.

Writes WORK/lexicon.json. The commonest pronunciation seen in context wins; other words (SCOWL's lists up to size 35)
are pronounced alone, those that the corpus has once are left to the letter rules.

    python lexicon.py --work WORK
"""

import argparse
import collections
import json
import random
import re
from pathlib import Path

import units
from hibari import Hibari
from hibari.g2p.normalize import normalize

SCOWL = Path("/usr/share/dict/scowl")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
NUM_CONTEXT_SENTENCES = 15000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    g2p = Hibari().g2p
    train = (work / "texts/train.txt").read_text().splitlines()
    heldout = (work / "texts/heldout.txt").read_text().splitlines()

    seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    sample = random.Random(1).sample(train, NUM_CONTEXT_SENTENCES)
    for text in sample:
        for token in g2p.phonemize_tokens(g2p.tokenize(normalize(text))):
            word = token.text.lower().replace("’", "'")
            if token.phonemes and WORD.fullmatch(word):
                seen[word][units.from_teacher(token.phonemes)] += 1
    lexicon = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}

    wanted = collections.Counter(w for text in [*train, *heldout] for w in WORD.findall(text.lower().replace("-", " ")))
    for size in (10, 20, 35):
        for kind in ("english", "american"):
            for suffix in ("words", "contractions"):
                path = SCOWL / f"{kind}-{suffix}.{size}"
                lines = path.read_text(encoding="latin1").splitlines() if path.exists() else []
                wanted.update({w: 2 for w in lines if WORD.fullmatch(w)})
    for word in wanted:
        if word not in lexicon:
            pronounced = units.from_teacher(g2p(word)).replace(" ", "")
            if pronounced:
                lexicon[word] = pronounced
    lexicon = {word: lexicon[word] for word in sorted(wanted) if wanted[word] > 1 and lexicon.get(word)}
    (work / "lexicon.json").write_text(json.dumps(lexicon, ensure_ascii=False, indent=0))
    print(f"{len(lexicon)} words, {len(seen)} of them pronounced in context")


if __name__ == "__main__":
    main()
