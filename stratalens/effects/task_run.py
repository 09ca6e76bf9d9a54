"""Read task items with the model, as it is and while latents are removed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from stratalens.corpus.populations import Half, Population, Side
from stratalens.effects.changes import TOKEN_CLASSES, Change, EffectDocuments
from stratalens.effects.layer_run import LayerAblations
from stratalens.effects.plain_losses import plain_losses
from stratalens.effects.reading import EffectReader
from stratalens.effects.task_effects import AblatedMargins, Margin
from stratalens.effects.task_items import TaskItem
from stratalens.effects.task_tokens import MarkedTokens, TokenisedItem
from stratalens.effects.text import NOT_COUNTED, EffectText
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.files.hashing import first_by_hash, hash64
from stratalens.progress import Advance
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

REST = TOKEN_CLASSES.index("rest")


class TaskRun(NamedTuple):
    """Task items, their margins before anything is removed, and the sequences of those that the model solves."""

    items: Sequence[TaskItem]
    plain: Margin
    solved: Bool[np.ndarray, "item"]
    text: EffectText
    """Two passages of each solved item, correct and wrong, each a document of its own."""


class TaskTokens(NamedTuple):
    """Tokens of all items, each with both continuations."""

    every: int
    controls: int
    """Of those on which controls are measured."""

    @classmethod
    def of(
        cls, items: Sequence[TaskItem], tokenised: Sequence[TokenisedItem], controls: int, seed: int
    ) -> "TaskTokens":
        """Count them as if the model solved every item; see `read_tasks`."""
        tokens = np.array([sum(len(own.token_ids) for own in one) for one in tokenised], np.int64)
        return cls(int(tokens.sum()), int(tokens[_subsample(items, controls, seed)].sum()))


def read_tasks(
    reader: EffectReader, items: Sequence[TaskItem], tokenised: Sequence[TokenisedItem], controls: int, seed: int
) -> TaskRun:
    """Measure the margins of items with the model as it is.

    Args:
        reader: reads with the whole model.
        items: the items.
        tokenised: their tokens.
        controls: items of each kind and side on which controls are measured, those of the smallest hashes.
        seed: chooses other ones.
    """
    everything = _as_text(items, tokenised, np.zeros(len(items), bool))
    losses = plain_losses(reader.model, everything, reader.runner, reader.special_ids, reader.batch_tokens)
    plain = losses[1::2] - losses[::2]
    solved = plain > 0
    kept = np.flatnonzero(solved).tolist()
    own = [items[number] for number in kept]
    text = _as_text(own, [tokenised[number] for number in kept], _subsample(own, controls, seed))
    return TaskRun(items, plain, solved, text)


def measure_tasks(
    reader: EffectReader, probe: Probe[Sae], tasks: TaskRun, ablations: LayerAblations, advance: Advance
) -> AblatedMargins | None:
    """Margins of all items while a hookpoint's confirmed features, or their controls, are removed.

    Returns:
        None where no feature is confirmed. Items that are not solved before have nan.
    """
    if not ablations.together or not tasks.solved.any():
        return None
    [own] = reader.changes(probe, tasks.text, ablations.together, advance)
    controls = reader.changes(probe, tasks.text.control, ablations.random | ablations.matched, advance)
    margins = [_margins(tasks, change) for change in (own, *controls)]
    number = 1 + len(ablations.random)
    none = np.zeros((0, len(tasks.items)))
    random, matched = (np.stack(part) if part else none for part in (margins[1:number], margins[number:]))
    return AblatedMargins(margins[0], random, matched)


def _margins(tasks: TaskRun, change: Change) -> Margin:
    lost = change.loss.sum(1)
    margins = np.full(len(tasks.items), np.nan)
    margins[tasks.solved] = tasks.plain[tasks.solved] + lost[1::2] - lost[::2]
    return margins


def _subsample(items: Sequence[TaskItem], number: int, seed: int) -> Bool[np.ndarray, "item"]:
    """So many items of each kind and side."""
    chosen = np.zeros(len(items), bool)
    hashes = [hash64("task item", item.id) for item in items]
    for group in sorted({(item.kind, item.domain) for item in items}):
        own = [at for at, item in enumerate(items) if (item.kind, item.domain) == group]
        first = set(first_by_hash([hashes[at] for at in own], number, seed))
        chosen[[at for at in own if hashes[at] in first]] = True
    return chosen


def _as_text(
    items: Sequence[TaskItem], tokenised: Sequence[TokenisedItem], control: Bool[np.ndarray, "item"]
) -> EffectText:
    """Items in the form of documents: two of each."""
    sequences = [marked for one in tokenised for marked in one]
    sides = [Side.DOMAIN if item.domain else Side.GENERAL for item in items for _ in range(2)]
    passages = [_passage(number, side, own) for number, (side, own) in enumerate(zip(sides, sequences, strict=True))]
    classes = [np.where(own.marked, REST, NOT_COUNTED) for own in sequences]
    tokens = np.zeros((len(sequences), len(TOKEN_CLASSES)), np.int64)
    tokens[:, REST] = [int(own.marked.sum()) for own in sequences]
    documents = EffectDocuments(
        hashes=np.arange(len(sequences), dtype=np.uint64),
        domain=np.array([side == Side.DOMAIN for side in sides], bool),
        tokens=tokens,
        control=np.repeat(control, 2),
    )
    return EffectText(passages, np.arange(len(sequences)), classes, documents)


def _passage(number: int, side: Side, tokens: MarkedTokens) -> Passage:
    offsets = np.zeros((len(tokens.token_ids), 2), np.int64)
    population = Population(side, Half.CONFIRMATION)
    return Passage(PassageLocation(number, 0, 0), number, population, "", tokens.token_ids, offsets)
