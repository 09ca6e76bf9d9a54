"""The text of a check: the first passages of a few documents, drawn by hash from all that are named."""

from itertools import islice
from typing import NamedTuple

import numpy as np

from stratalens.config.check_options import CheckConfig
from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.text_options import BUILT_IN_TEXTS, TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError
from stratalens.files.hashing import hash64
from stratalens.models import PassageCutter

MAX_ROWS = 20_000
"""Of each file, at most so many rows are looked at."""


class CheckText(NamedTuple):
    """What is read for a check."""

    sequences: list[np.ndarray]
    """Token ids of the first passage of each document, `[seq]`, in the order of hashes."""
    source: str
    """What the user named, or that it is built in."""

    @property
    def tokens(self) -> int:
        """Tokens of all passages, special ones included."""
        return sum(map(len, self.sequences))


def check_text(config: CheckConfig, cutter: PassageCutter) -> CheckText:
    """Read the documents of a check, each text once.

    Raises:
        CorpusError: a file is missing or cannot be read, or none of the texts is long enough.
    """
    if config.data:
        files = find_files(config.data, TextOptions(text_column=config.text_column))
    else:
        files = find_files([text_file(name) for name in (BUILT_IN_DOMAINS[0], GENERAL)], BUILT_IN_TEXTS)
    texts = {hash64("check", row.text): row.text for file in files for row in islice(read_rows(file), MAX_ROWS)}
    sequences: list[np.ndarray] = []
    for _, text in sorted(texts.items()):
        sequences += [cutter.sequence(span) for span in cutter.first_spans(text, 1)]
        if len(sequences) == config.max_documents:
            break
    source = " ".join(config.data) or "built-in financial and general texts"
    if not sequences:
        raise CorpusError(
            f"{source}: no text has {config.min_length} tokens; give longer ones, or a lower --min_length"
        )
    return CheckText(sequences, source)
