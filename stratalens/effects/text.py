"""The text on which effects are measured: documents that chose no feature, and which of their tokens are predicted."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from stratalens.corpus import Corpus, Half, Side
from stratalens.corpus.survey import Survey
from stratalens.effects.changes import TOKEN_CLASSES, EffectDocuments
from stratalens.evidence.passages import Passage, cut_passage
from stratalens.files.hashing import first_by_hash, hash64
from stratalens.models import PassageCutter

MAX_PASSAGES = 4
"""At most so many passages of a document are read, those of the smallest hashes."""
NOT_COUNTED = -1
"""In the place of a class, for a token that is not predicted or does not count."""


@dataclass(frozen=True)
class EffectText:
    """Documents of both sides, cut into passages."""

    passages: Sequence[Passage]
    """In the order of their documents."""
    document: Int[np.ndarray, "passage"]
    """Index of the document of each passage."""
    token_class: Sequence[Int[np.ndarray, "_"]]
    """Of each passage: class of each token as it is predicted from those before, an index of `TOKEN_CLASSES`."""
    documents: EffectDocuments

    @property
    def tokens(self) -> int:
        """Tokens of all passages, special ones included."""
        return sum(len(passage.token_ids) for passage in self.passages)

    def part(self, passages: Bool[np.ndarray, "passage"]) -> "EffectText":
        """The text with some of its passages only; its documents stay the same."""
        kept = np.flatnonzero(passages).tolist()
        return EffectText(
            [self.passages[number] for number in kept],
            self.document[kept],
            [self.token_class[number] for number in kept],
            self.documents,
        )

    @property
    def control(self) -> "EffectText":
        """The passages of the documents on which controls are measured."""
        return self.part(self.documents.control[self.document])


def read_effect_passages(
    corpus: Corpus, survey: Survey, cutter: PassageCutter, documents: int, seed: int
) -> list[Passage]:
    """Read passages of the documents that are held back, or of all where none are.

    Args:
        corpus: what to read.
        survey: its rows that count.
        cutter: the same as for the harvest.
        documents: most documents of a side, those of the smallest hashes.
        seed: chooses other ones.

    Raises:
        CorpusError: a file of the corpus cannot be read any more.
    """
    half = Half.CONFIRMATION if survey.split else Half.DISCOVERY
    contents: set[int] = set()
    for side in Side:
        own = np.isin(survey.membership, survey.populations.where(side=side, half=half))
        chosen = np.array(first_by_hash(np.unique(survey.document[own]), documents, seed), dtype=np.uint64)
        contents.update(survey.content[own & np.isin(survey.document, chosen)].tolist())
    found: dict[int, list[Passage]] = defaultdict(list)
    for row in survey.select(corpus, frozenset(contents)):
        found[row.document] += [cut_passage(row, span, cutter) for span in cutter.first_spans(row.text, MAX_PASSAGES)]
    kept = [
        passage
        for own in found.values()
        for passage in sorted(own, key=lambda one: hash64(seed, "effect", *one.location))[:MAX_PASSAGES]
    ]
    return sorted(kept, key=lambda passage: (passage.side, passage.document, passage.location))


def effect_text(
    passages: Sequence[Passage],
    of_term: Bool[np.ndarray, "token"] | None,
    special_ids: Collection[int],
    control_documents: int,
    seed: int,
) -> EffectText:
    """Decide which tokens of passages count, and on which documents controls are measured.

    Args:
        passages: sorted by document.
        of_term: whether each token of the passages is in a term of the domain's lexicon; None without a lexicon.
        special_ids: of the tokenizer.
        control_documents: documents of a side in the subsample.
        seed: chooses other ones.
    """
    special = np.fromiter(special_ids, np.int64)
    lengths = [len(passage.token_ids) for passage in passages]
    terms = np.zeros(sum(lengths), bool) if of_term is None else of_term
    cuts = np.cumsum(lengths)[:-1]
    classes = [
        _classes(passage.token_ids, own, special) for passage, own in zip(passages, np.split(terms, cuts), strict=True)
    ]
    read = [number for number, own in enumerate(classes) if (own != NOT_COUNTED).any()]
    passages, classes = [passages[number] for number in read], [classes[number] for number in read]
    hashes, first, document = np.unique(
        np.array([passage.document for passage in passages], np.uint64), return_index=True, return_inverse=True
    )
    domain = np.array([passages[number].side == Side.DOMAIN for number in first.tolist()], bool)
    tokens = np.zeros((len(hashes), len(TOKEN_CLASSES)), np.int64)
    for number, own in zip(document.tolist(), classes, strict=True):
        tokens[number] += np.bincount(own[own != NOT_COUNTED], minlength=len(TOKEN_CLASSES))
    control = np.zeros(len(hashes), bool)
    for side in (True, False):
        chosen = first_by_hash(hashes[domain == side].tolist(), control_documents, seed)
        control |= np.isin(hashes, np.array(chosen, np.uint64))
    return EffectText(passages, document, classes, EffectDocuments(hashes, domain, tokens, control))


def _classes(
    token_ids: Int[np.ndarray, "seq"], of_term: Bool[np.ndarray, "seq"], special_ids: Int[np.ndarray, "special"]
) -> Int[np.ndarray, "seq"]:
    """Class of each token. It counts if the one before may be ablated: no special token, and not at position 0."""
    before_counts = np.zeros(len(token_ids), bool)
    before_counts[2:] = ~np.isin(token_ids[1:-1], special_ids)
    after_term = np.zeros(len(token_ids), bool)
    after_term[1:] = of_term[:-1]
    classes = np.where(of_term, 0, np.where(after_term, 1, 2))
    return np.where(before_counts, classes, NOT_COUNTED)
