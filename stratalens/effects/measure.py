"""Measure what ablations do to the next-token loss: plain and ablated passages side by side in the same batch.

Only the blocks from the hookpoint on run for each ablation; a passage on which an ablation removes nothing is not run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.effects.ablations import Ablation, EncodedTokens
from stratalens.effects.changes import TOKEN_CLASSES, Change
from stratalens.effects.prediction import Prediction
from stratalens.effects.text import NOT_COUNTED, EffectText
from stratalens.errors import ModelError
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.tail import Tail, block_input, vectors_at
from stratalens.saes.contributions import unit_scale
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

CELLS_PER_PASSAGE = 8
"""So many ablations of a passage share a batch with the plain passage, about."""
MAX_LOGITS = 2**27
"""Most logits of a batch."""
WIDTH = 2 * len(TOKEN_CLASSES) + 1
"""Numbers for each ablation and passage: losses and KL divergences by class, and the norm."""
Values = Float[np.ndarray, "ablation passage width"]
"""Of ablations on passages: sums of the changes of losses, sums of KL divergences, sum of removed norms."""


@dataclass(frozen=True)
class PlainBatch:
    """Passages that the model has read up to a hookpoint."""

    batch: TokenBatch
    start: Float[Tensor, "batch seq d_model"]
    """Input of the block from which ablations run."""
    tokens: EncodedTokens


@dataclass(frozen=True)
class _Cell:
    """One ablation of one passage."""

    ablation: int
    row: int
    position: Int[Tensor, "token"]
    removed: Float[Tensor, "token d_out"]


@dataclass
class AblationReader:
    """Measures ablations at one hookpoint."""

    model: nn.Module
    """The whole model with its head."""
    probe: Probe[Sae]
    runner: BatchRunner
    special_ids: frozenset[int]
    batch_tokens: int
    """Most tokens of a batch, as long as memory suffices; passages are packed by it, whatever happens."""
    _tails: list[Tail] = field(default_factory=list)

    def batches(self, text: EffectText) -> list[TokenBatch]:
        """The passages of a text in batches that leave room for their ablations."""
        return self._packed(text, self.batch_tokens // (1 + CELLS_PER_PASSAGE))

    def whole_batches(self, text: EffectText) -> list[TokenBatch]:
        """The passages of a text in batches that leave no room."""
        return self._packed(text, self.batch_tokens)

    def _packed(self, text: EffectText, tokens: int) -> list[TokenBatch]:
        sequences = [passage.token_ids for passage in text.passages]
        return [batch.to(self._device) for batch in pack_batches(sequences, tokens, self.special_ids)]

    def encode(self, batch: TokenBatch) -> PlainBatch:
        """Read passages up to the hookpoint."""
        start = block_input(self.probe.target.block)
        seen = vectors_at(self.model, batch.input_ids, {start, self.probe.hookpoint})
        own = self.probe.read(batch, seen[self.probe.hookpoint])
        row, position = own.keep.nonzero(as_tuple=True)
        x = own.hidden[row, position]
        tokens = EncodedTokens(self.probe.sae.encode(x), unit_scale(self.probe.sae, x), row, position)
        return PlainBatch(batch, seen[start], tokens)

    def measure(self, text: EffectText, batch: TokenBatch, ablations: Sequence[Ablation]) -> Values:
        """Measure ablations on the passages of a batch, in the order of the batch.

        Args:
            text: has the passages.
            batch: some of them.
            ablations: what is removed.

        Raises:
            CapacityError: a single passage does not fit into memory.
            ModelError: a loss is not finite.
        """
        plain = self.encode(batch)
        values = np.zeros((len(ablations), len(batch.rows), WIDTH))
        room = max(1, self._room(batch.input_ids.shape[1]) - len(batch.rows))
        for cells in _chunks(self._cells(plain, ablations, values), room):
            for done in self.runner.run(_as_batch(plain.batch, cells), self._work(text, plain, cells)):
                for cell, change in done:
                    values[cell.ablation, cell.row, :-1] = change
        if not np.isfinite(values).all():
            raise ModelError(
                f"the losses without features of layer {self.probe.hookpoint} are not finite on some of the text; "
                "analyze with --dtype float32 or bfloat16, and no --load_in 8bit"
            )
        return values

    def _cells(self, plain: PlainBatch, ablations: Sequence[Ablation], values: Values) -> Iterator[_Cell]:
        """The passages from which each ablation removes something; what it removes goes into the values."""
        tokens, rows = plain.tokens, len(plain.batch.rows)
        for number, ablation in enumerate(ablations):
            removed = ablation.removed(tokens)
            norm = torch.linalg.vector_norm(removed, dim=-1).double()
            norms = torch.zeros(rows, dtype=torch.float64).index_add_(0, tokens.row.cpu(), norm.cpu())
            values[number, :, -1] = norms.numpy()
            for row in norms.nonzero()[:, 0].tolist():
                own = tokens.row == row
                yield _Cell(number, row, tokens.position[own], removed[own])

    def _work(
        self, text: EffectText, plain: PlainBatch, cells: Sequence[_Cell]
    ) -> Callable[[TokenBatch], list[tuple[_Cell, Float[np.ndarray, "classes"]]]]:
        def work(part: TokenBatch) -> list[tuple[_Cell, Float[np.ndarray, "classes"]]]:
            own = [cells[number] for number in part.rows.tolist()]
            rows = sorted({cell.row for cell in own})
            logits = self._logits(plain, rows, own)
            before = {row: _plain_passage(text, plain.batch, row, logits[at]) for at, row in enumerate(rows)}
            return [(cell, before[cell.row].changed_to(logits[at])) for at, cell in enumerate(own, start=len(rows))]

        return work

    def _logits(
        self, plain: PlainBatch, rows: Sequence[int], cells: Sequence[_Cell]
    ) -> Float[Tensor, "cell seq vocabulary"]:
        """Logits of plain passages, and after them of ablated ones."""
        every = [*rows, *(cell.row for cell in cells)]
        width = int(plain.batch.lengths[every].max())
        ids, start = plain.batch.input_ids[every, :width], plain.start[every, :width]

        def remove(vectors: Float[Tensor, "cell seq d_out"]) -> Float[Tensor, "cell seq d_out"]:
            changed = vectors.clone()
            for at, cell in enumerate(cells, start=len(rows)):
                own = vectors[at, cell.position]
                changed[at, cell.position] = (own.float() - cell.removed.to(own.device)).to(own.dtype)
            return changed

        return self._tail(ids).logits(ids, start, {self.probe.target: remove})

    def _tail(self, ids: Int[Tensor, "batch seq"]) -> Tail:
        if not self._tails:
            self._tails.append(Tail.of(self.model, self.probe.target.block, ids[:2]))
        return self._tails[0]

    def _room(self, width: int) -> int:
        """Passages of a width that fit a batch."""
        vocabulary = self.model.get_output_embeddings().weight.shape[0]  # pyright: ignore
        return min(self.runner.batch_tokens, MAX_LOGITS // vocabulary) // width

    @property
    def _device(self) -> torch.device:
        return self.probe.sae.device


class _PlainPassage(NamedTuple):
    """What is predicted for the tokens of a plain passage that count."""

    at: Int[Tensor, "token"]
    """Positions that predict."""
    token_class: Int[np.ndarray, "token"]
    predicted: Prediction

    def changed_to(self, logits: Float[Tensor, "seq vocabulary"]) -> Float[np.ndarray, "classes"]:
        """Sums by class of the changes of the losses, and of KL divergences, under other logits."""
        changes = self.predicted.changed_to(logits[self.at])
        sums = [np.bincount(self.token_class, own.double().cpu().numpy(), len(TOKEN_CLASSES)) for own in changes]
        return np.concatenate(sums)


def _plain_passage(text: EffectText, batch: TokenBatch, row: int, logits: Tensor) -> _PlainPassage:
    token_class = text.token_class[int(batch.rows[row])]
    predicted = np.flatnonzero(token_class != NOT_COUNTED)
    positions = torch.from_numpy(predicted).to(logits.device)
    target = batch.input_ids[row].to(logits.device)[positions]
    at = positions - 1
    return _PlainPassage(at, token_class[predicted], Prediction.of(logits[at], target))


def _as_batch(batch: TokenBatch, cells: Sequence[_Cell]) -> TokenBatch:
    """Cells in the form of a batch, so that it can be halved."""
    rows = [cell.row for cell in cells]
    ids, countable = batch.input_ids[rows], batch.countable[rows]
    return replace(batch, rows=np.arange(len(cells)), input_ids=ids, countable=countable, lengths=batch.lengths[rows])


def _chunks(cells: Iterator[_Cell], size: int) -> Iterator[list[_Cell]]:
    chunk: list[_Cell] = []
    for cell in cells:
        chunk.append(cell)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def fold_changes(values: Values, text: EffectText) -> list[Change]:
    """The changes of documents from those of their passages; nan for documents without a passage in the text.

    Args:
        values: of all passages of the text, in its order.
        text: perhaps that of the control documents only.
    """
    number = len(text.documents.hashes)
    read = np.isin(np.arange(number), text.document)
    total = np.full((number, len(values), WIDTH), np.nan)
    total[read] = 0.0
    np.add.at(total, text.document, values.swapaxes(0, 1))
    classes = len(TOKEN_CLASSES)
    return [Change(own[:, :classes], own[:, classes:-1], own[:, -1]) for own in total.swapaxes(0, 1)]
