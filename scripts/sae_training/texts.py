"""The texts of a training, cut into passages; one document in twenty is held out."""

from pathlib import Path

import numpy as np

from sae_training.recipe import HELD_OUT_ONE_IN, Recipe
from stratalens.corpus.builtin import text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.files.hashing import hash64
from stratalens.models import PassageCutter
from stratalens.models.batches import TokenBatch, pack_batches

ROUND = 512
"""Passages of similar length are sought among so many."""


def sources(recipe: Recipe) -> list[Path]:
    """The files of all subjects."""
    if recipe.corpora is None:
        return [text_file(subject) for subject in recipe.shares]
    return sorted(recipe.corpora.glob("*.jsonl.gz"))


def is_held_out(identifier: str) -> bool:
    """Whether the document of this id measures quality instead of being trained on."""
    return hash64("held out", identifier.split("#")[0]) % HELD_OUT_ONE_IN == 0


def texts(recipe: Recipe, subject: str, held_out: bool) -> list[str]:
    """Read all rows of a subject that are held out, or all that are not, in the order of their hashes."""
    files = text_file(subject) if recipe.corpora is None else recipe.corpora / f"{subject}_*.jsonl.gz"
    rows = [
        row
        for file in find_files([str(files)])
        for row in read_rows(file)
        if is_held_out(row.identifier or row.text) == held_out
    ]
    return [row.text for row in sorted(rows, key=lambda row: hash64(recipe.seed, row.identifier or "", row.text))]


def sequences(recipe: Recipe, cutter: PassageCutter, subject: str, held_out: bool) -> list[np.ndarray]:
    """Cut the subject's share of the training tokens (held out: a twentieth of it) into passages of token ids."""
    budget = recipe.tokens * recipe.shares[subject] / (HELD_OUT_ONE_IN if held_out else 1)
    chosen: list[np.ndarray] = []
    for text in texts(recipe, subject, held_out):
        for span in cutter.spans(text):
            if budget <= 0:
                return chosen
            chosen.append(cutter.sequence(span))
            budget -= len(chosen[-1])
    return chosen


def training_batches(recipe: Recipe, cutter: PassageCutter) -> list[TokenBatch]:
    """Pack the training passages of all subjects into batches, in a shuffled order."""
    passages = [s for subject in recipe.shares for s in sequences(recipe, cutter, subject, held_out=False)]
    print(f"{len(passages):,} passages, {sum(map(len, passages)):,} tokens", flush=True)
    order = np.random.default_rng(recipe.seed).permutation(len(passages))
    passages = [passages[i] for i in order]
    batches = [
        batch
        for first in range(0, len(passages), ROUND)
        for batch in pack_batches(passages[first : first + ROUND], 2 * recipe.batch_tokens, cutter.special_ids)
    ]
    return [batches[i] for i in np.random.default_rng(recipe.seed + 1).permutation(len(batches))]


def held_out_batches(recipe: Recipe, cutter: PassageCutter, subject: str) -> list[TokenBatch]:
    """Pack the held-out passages of a subject."""
    passages = sequences(recipe, cutter, subject, held_out=True)
    return list(pack_batches(passages, 2 * recipe.batch_tokens, cutter.special_ids))
