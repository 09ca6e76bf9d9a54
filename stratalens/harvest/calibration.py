"""Calibration: the few passages that give the fit of each SAE and the norms at its hookpoint before the text is read.

How many there are does not depend on the size of the corpus, nor on how its documents are cut into rows.
"""

from typing import NamedTuple

import numpy as np

from stratalens.corpus import Corpus
from stratalens.corpus.survey import Survey
from stratalens.models import PassageCutter

MAX_PASSAGES = 128
PASSAGES_A_TEXT = 2
"""At most this many of each text, its first ones; there is one text of each document, see `Survey.calibration`."""
MAX_SHARE = 0.2
"""Together they have at most this share of the characters of all texts; there is always one passage."""


class CalibrationText(NamedTuple):
    """What is read for the fit check."""

    sequences: list[np.ndarray]
    """Token ids of each passage, `[seq]`."""
    characters: int

    @property
    def tokens_per_character(self) -> float:
        """Tokens of the passages, special ones included, for each character of their text."""
        return sum(map(len, self.sequences)) / max(1, self.characters)


def calibration_text(corpus: Corpus, survey: Survey, cutter: PassageCutter) -> CalibrationText:
    """Cut the first passages of the calibration texts, in the order of their hashes.

    Raises:
        CorpusError: a file of the corpus cannot be read any more.
    """
    rows = sorted(survey.select(corpus, survey.calibration), key=lambda row: row.content)
    sequences: list[np.ndarray] = []
    characters = 0
    for span in (span for row in rows for span in cutter.first_spans(row.text, PASSAGES_A_TEXT)):
        size = span.end - span.start
        enough = len(sequences) == MAX_PASSAGES or characters + size > MAX_SHARE * survey.kept_characters
        if sequences and enough:
            break
        sequences.append(cutter.sequence(span))
        characters += size
    return CalibrationText(sequences, characters)
