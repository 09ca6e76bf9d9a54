"""Calibration: the few passages that give the fit of each SAE and the norms at its hookpoint before the text is read.

How many there are does not depend on the size of the corpus, nor on how its documents are cut into rows.
"""

from typing import NamedTuple

import numpy as np

from stratalens.corpus import Corpus
from stratalens.corpus.survey import Survey
from stratalens.models import PassageCutter

MAX_SHARE = 0.05
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
    """Cut the first passage of each calibration text, one of each of 32 documents at most, in the order of hashes.

    Raises:
        CorpusError: a file of the corpus cannot be read any more.
    """
    rows = sorted(survey.select(corpus, survey.calibration), key=lambda row: row.content)
    sequences: list[np.ndarray] = []
    characters = 0
    for span in (span for row in rows for span in cutter.first_spans(row.text, 1)):
        size = span.end - span.start
        if sequences and characters + size > MAX_SHARE * survey.kept_characters:
            break
        sequences.append(cutter.sequence(span))
        characters += size
    return CalibrationText(sequences, characters)
