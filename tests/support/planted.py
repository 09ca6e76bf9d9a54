"""Artificial passages with planted features, for which the right label is known beforehand."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from stratalens.corpus.populations import Half, Population, Side
from stratalens.evidence.evidence import Evidence, LayerEvidence
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint

LAYER = Hookpoint(3)
SPECIAL_ID = 0
TOKEN = re.compile(r"\s?(?:\w+|[^\w\s])|\s+")

Plant = Callable[[list[str]], Sequence[float] | np.ndarray]
"""Tokens of a passage as text -> activation of the planted feature on each."""


def passage(text: str, side: Side, half: Half, document: int | str | None = None) -> Passage:
    """A passage whose tokens are its words and punctuation marks, after one special token."""
    spans = [match.span() for match in TOKEN.finditer(text)]
    return Passage(
        location=PassageLocation(hash64(text), 0, len(text)),
        document=hash64("document", int(side), text if document is None else document),
        population=Population(side, half),
        text=text,
        token_ids=np.array([SPECIAL_ID, *(1 + hash64(text[a:b]) % 5000 for a, b in spans)], np.int64),
        offsets=np.array([(0, 0), *spans], np.int64),
    )


def planted_evidence(passages: Sequence[Passage], plants: Sequence[Plant]) -> Evidence:
    """Evidence of one layer, where feature 10 * n is the n-th plant."""
    columns = []
    for plant in plants:
        parts = []
        for one in passages:
            values = plant([one.text[a:b].strip() for a, b in one.offsets[1:]])
            parts.append(np.array([0.0, *values], np.float32))
        columns.append(np.concatenate(parts))
    matrix = sparse.csc_array(np.stack(columns, axis=1))
    return Evidence(list(passages), {LAYER: LayerEvidence(10 * np.arange(len(plants)), matrix)})


def on(test: Callable[[str], bool], value: float = 2.0) -> Plant:
    """Fires on the tokens that pass a test."""
    return lambda tokens: [value if test(token) else 0.0 for token in tokens]


def on_words(*words: str) -> Plant:
    return on(lambda token: token.lower() in words)


def around(*words: str) -> Plant:
    """Fires unevenly on the words of each sentence that holds one of some words, but not on these words themselves."""

    def plant(tokens: list[str]) -> list[float]:
        values, first = [0.0] * len(tokens), 0
        for at, token in enumerate(tokens):
            if token == "." or at + 1 == len(tokens):
                sentence = range(first, at + 1)
                if any(tokens[i].lower() in words for i in sentence):
                    for i in sentence:
                        is_word = tokens[i].isalpha() and tokens[i].lower() not in words
                        values[i] = 1 + hash64(i, tokens[i]) % 7 / 7 if is_word else 0.0
                first = at + 1
        return values

    return plant


def at_random(seed: int, share: float = 0.1) -> Plant:
    """Fires on a random share of the tokens, whatever the text."""

    def plant(tokens: list[str]) -> np.ndarray:
        rng = np.random.default_rng(hash64(seed, *tokens))
        return np.where(rng.random(len(tokens)) < share, rng.gamma(2.0, size=len(tokens)), 0.0)

    return plant


SUBJECTS = {
    Side.DOMAIN: {
        "loans": ("the mortgage was refinanced", "a mortgage needs approval", "its borrower repaid the loan early"),
        "payouts": ("the dividend rose again", "a payout was declared", "its dividend was paid to every holder"),
        "oil": ("crude prices fell sharply", "a barrel became cheaper", "its crude was shipped abroad"),
    },
    Side.GENERAL: {
        "birds": ("the heron waited in the reeds", "a sparrow sang outside", "its nest was made of twigs"),
        "meals": ("the soup was served hot", "a baker kneaded dough", "its crust tasted of butter"),
    },
}
FILLERS = (
    "Everyone heard about that on Monday",
    "Nobody at the meeting was surprised by it",
    "The letter came well after lunch",
    "It took 14 people and 3 long-planned visits",
    "They said so in a short note of 27 lines",
    "Most of them had expected something else",
    "Paris and Oslo were mentioned as well, oddly",
)
LEXICON = """
- concept: Home lending
  group: Credit
  terms: [mortgage, borrower, loan, refinanced]
- concept: Payments to shareholders
  group: Equity
  terms: [dividend, payout, holder]
- concept: Oil trade
  group: Commodities
  terms: [crude, barrel]
"""


def written_passages(each: int = 40, seed: int = 0) -> list[Passage]:
    """`each` passages of every population, of five sentences each, two of them about one subject of its side."""
    passages = []
    for side in Side:
        subjects = list(SUBJECTS[side].values())
        for half in Half:
            for number in range(each):
                rng = np.random.default_rng([seed, side, half, number])
                about = rng.choice(subjects[number % len(subjects)], 2, replace=False).tolist()
                sentences = [*about, *rng.choice(FILLERS, 3, replace=False).tolist()]
                rng.shuffle(sentences)
                text = f"Note {number}{'ab'[half]}. " + " ".join(
                    f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences
                )
                passages.append(passage(text, side, half))
    return passages
