"""One pass over the text for all layers: the only place where model, SAEs and statistics meet."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.corpora import POPULATIONS, DocumentRow
from stratalens.documents import SampledPassages, write_documents
from stratalens.examples import PassagePointers, TopExamples
from stratalens.memory import release_free_memory
from stratalens.model import forward, hooked
from stratalens.sae import Sae, SparseLatents
from stratalens.statistics import FeatureStats, PassageValues, merge
from stratalens.tokens import PassageCutter, TokenBatch, pack
from stratalens.vocabulary import TOKEN_CLASSES

SHARD_TOKENS = 16_384
"""Passages are collected up to this many tokens, then read in batches of like length and folded into the statistics."""
EARLY_SHARE = 0.1


@dataclass(frozen=True)
class LayerProbe:
    """What is read at one layer."""

    layer: int
    sae: Sae
    norm_limit: float
    """Positions whose hookpoint norm exceeds this are sinks and never count."""

    def read(
        self,
        batch: TokenBatch,
        module_input: Float[Tensor, "batch seq d_model"],
        module_output: Float[Tensor, "batch seq d_model"],
    ) -> "Reading":
        """What the SAE reads at its module, and which positions of it count."""
        hidden = module_input if self.sae.reads_input else module_output
        hidden = hidden.to(batch.countable.device)  # elsewhere only when the model is spread over several GPUs
        norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        return Reading(hidden, norms, batch.countable & (norms <= self.norm_limit))


class Reading(NamedTuple):
    """A hookpoint's vectors in one batch."""

    hidden: Float[Tensor, "batch seq d_model"]
    norms: Float[Tensor, "batch seq"]
    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""


class LayerHarvest(NamedTuple):
    """What the pass leaves of one layer."""

    stats: FeatureStats
    examples: TopExamples


@dataclass(frozen=True)
class Harvest:
    """What the pass leaves: bounded statistics and examples, and files with the values of the sampled documents."""

    layers: dict[int, LayerHarvest]
    document_files: tuple[Path, ...]
    tokens: int
    """Tokens fed to the model, padding left out."""
    passages: int


class Shard(NamedTuple):
    """Passages that are harvested together."""

    sequences: list[np.ndarray]
    population: np.ndarray
    passages: SampledPassages
    pointers: PassagePointers
    rows: int
    """Corpus rows that end in this shard."""

    @property
    def tokens(self) -> int:
        """Tokens of all passages, special tokens included."""
        return len(self.pointers.token_ids)


def shards(rows: Iterable[DocumentRow], cutter: PassageCutter, shard_tokens: int = SHARD_TOKENS) -> Iterator[Shard]:
    """Cut rows into passages and group them; a document of any length spreads over as many shards as it needs."""
    columns: list[tuple[np.ndarray, DocumentRow, int, int]] = []
    tokens = ended = 0
    for row in rows:
        for span in cutter.spans(row.text):
            if tokens >= shard_tokens:
                yield _shard(columns, ended)
                columns, tokens, ended = [], 0, 0
            columns.append((cutter.sequence(span), row, span.start, span.end))
            tokens += len(columns[-1][0])
        ended += 1
    if columns:
        yield _shard(columns, ended)


def _shard(columns: list[tuple[np.ndarray, DocumentRow, int, int]], ended: int) -> Shard:
    sequences = [column[0] for column in columns]
    rows = [column[1] for column in columns]
    lengths = np.array([len(sequence) for sequence in sequences])
    return Shard(
        sequences=sequences,
        population=np.array([row.population for row in rows], np.int64),
        passages=SampledPassages(
            document=np.array([row.document for row in rows], np.uint64),
            sampled=np.array([row.sampled for row in rows]),
        ),
        pointers=PassagePointers(
            content=np.array([row.content for row in rows], np.uint64),
            start=np.array([column[2] for column in columns]),
            end=np.array([column[3] for column in columns]),
            token_ids=np.concatenate(sequences),
            first_token=np.cumsum(lengths) - lengths,
        ),
        rows=ended,
    )


class LayerReducer:
    """Turns one layer's block outputs into passage values, batch by batch, on the device."""

    def __init__(self, probe: LayerProbe, token_classes: Int[Tensor, "vocabulary"]):
        self.probe, self.token_classes = probe, token_classes
        device = token_classes.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        cells = POPULATIONS * probe.sae.num_latents
        self.class_mass = torch.zeros(cells * len(TOKEN_CLASSES), dtype=exact, device=device)
        self.early_mass = torch.zeros(cells, dtype=exact, device=device)
        self.parts: list[dict[str, np.ndarray]] = []

    def consume(
        self,
        batch: TokenBatch,
        population: Int[Tensor, "batch"],
        module_input: Float[Tensor, "batch seq d_model"],
        module_output: Float[Tensor, "batch seq d_model"],
    ) -> None:
        """Encode the kept positions of one batch and reduce them to values of its passages."""
        hidden, norms, keep = self.probe.read(batch, module_input, module_output)
        row, position = keep.nonzero(as_tuple=True)
        x = hidden[row, position]
        latents = self.probe.sae.encode(x)
        self._add_mass(latents, batch, population, row, position)
        residual = torch.zeros(len(hidden), self.probe.sae.d_model, device=x.device).index_add_(0, row, x.float())
        kept = keep.sum(1)
        self.parts.append(
            {
                "batch_row": batch.rows,
                "countable_positions": batch.countable.sum(1).cpu().numpy(),
                "kept_positions": kept.cpu().numpy(),
                "norm_sum": norms.masked_fill(~keep, 0).sum(1).cpu().numpy(),
                "residual_mean": (residual / kept.clamp(min=1)[:, None]).cpu().numpy(),
                **self._entries(latents, row, position, kept),
            }
        )

    def _add_mass(
        self, latents: SparseLatents, batch: TokenBatch, population: Tensor, row: Tensor, position: Tensor
    ) -> None:
        cell = population[row][:, None] * self.probe.sae.num_latents + latents.indices
        token_class = self.token_classes[batch.input_ids[row, position]]
        values = latents.values.to(self.class_mass.dtype)
        target = cell * len(TOKEN_CLASSES) + token_class[:, None]
        self.class_mass.scatter_add_(0, target.reshape(-1), values.reshape(-1))
        lengths = torch.from_numpy(batch.lengths).to(row.device)
        early = position < EARLY_SHARE * lengths[row]
        self.early_mass.scatter_add_(0, cell[early].reshape(-1), values[early].reshape(-1))

    def _entries(self, latents: SparseLatents, row: Tensor, position: Tensor, kept: Tensor) -> dict[str, np.ndarray]:
        """The table of (passage, latent) pairs that fired, by scatter over `batch x latent` cells."""
        num_latents = self.probe.sae.num_latents
        cell = (row[:, None] * num_latents + latents.indices).reshape(-1)
        values = latents.values.reshape(-1)
        position = position[:, None].expand(latents.indices.shape).reshape(-1)
        size, device = len(kept) * num_latents, values.device
        total = torch.zeros(size, device=device).scatter_add_(0, cell, values)
        fired = torch.zeros(size, dtype=torch.int32, device=device)
        fired.scatter_add_(0, cell, (values > 0).to(torch.int32))
        maximum = torch.zeros(size, device=device).scatter_reduce_(0, cell, values, "amax")
        at_peak = values == maximum[cell]
        peak = torch.full((size,), torch.iinfo(torch.int64).max, device=device)
        peak.scatter_reduce_(0, cell[at_peak], position[at_peak], "amin")
        active = fired.nonzero().squeeze(1)
        passage = active // num_latents
        return {
            "passage": passage.cpu().numpy(),
            "latent": (active % num_latents).cpu().numpy(),
            "mean": (total[active] / kept[passage]).cpu().numpy(),
            "maximum": maximum[active].cpu().numpy(),
            "peak": peak[active].cpu().numpy(),
            "positions_fired": fired[active].cpu().numpy(),
        }

    def values(self, population: Int[np.ndarray, "passage"]) -> PassageValues:
        """All batches together, passages in the order of the shard."""
        order = np.concatenate([part["batch_row"] for part in self.parts])
        place = np.argsort(order)

        def by_passage(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in self.parts])[place]

        def by_entry(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in self.parts])

        shape = (POPULATIONS, self.probe.sae.num_latents)
        return PassageValues(
            population=population,
            countable_positions=by_passage("countable_positions"),
            kept_positions=by_passage("kept_positions"),
            norm_sum=by_passage("norm_sum"),
            residual_mean=by_passage("residual_mean"),
            passage=np.concatenate([part["batch_row"][part["passage"]] for part in self.parts]),
            latent=by_entry("latent"),
            mean=by_entry("mean"),
            maximum=by_entry("maximum"),
            peak=by_entry("peak"),
            positions_fired=by_entry("positions_fired"),
            class_mass=self.class_mass.cpu().numpy().reshape(*shape, len(TOKEN_CLASSES)),
            early_mass=self.early_mass.cpu().numpy().reshape(shape),
        )


def harvest_shard(
    model: nn.Module,
    probes: Iterable[LayerProbe],
    shard: Shard,
    *,
    token_classes: Int[Tensor, "vocabulary"],
    special_ids: frozenset[int],
    batch_tokens: int,
    on_batch: Callable[[int], None] = lambda _tokens: None,
) -> dict[int, PassageValues]:
    """Passage values of one shard at every layer, by one forward pass a batch."""
    device = token_classes.device
    reducers = {probe.layer: LayerReducer(probe, token_classes) for probe in probes}
    for cpu_batch in pack(shard.sequences, batch_tokens, special_ids):
        batch = cpu_batch.to(device)
        population = torch.from_numpy(shard.population[batch.rows]).to(device)
        consumers = {
            reducer.probe.sae.hookpoint: partial(reducer.consume, batch, population) for reducer in reducers.values()
        }
        with hooked(model, consumers):
            forward(model, batch.input_ids)
        on_batch(batch.tokens)
    return {layer: reducer.values(shard.population) for layer, reducer in reducers.items()}


def fold(
    harvest: Mapping[int, LayerHarvest], values: Mapping[int, PassageValues], shard: Shard
) -> dict[int, LayerHarvest]:
    """The harvest with one more shard in it."""
    return {
        layer: LayerHarvest(
            stats=merge(held.stats, FeatureStats.of(values[layer], held.stats.num_latents)),
            examples=held.examples.with_passages(values[layer], shard.pointers),
        )
        for layer, held in harvest.items()
    }


def harvest(
    model: nn.Module,
    probes: list[LayerProbe],
    rows: Iterable[DocumentRow],
    cutter: PassageCutter,
    *,
    token_classes: Int[Tensor, "vocabulary"],
    batch_tokens: int,
    directory: Path,
    on_batch: Callable[[int], None] = lambda _tokens: None,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> Harvest:
    """Read all rows once and keep what later stages need.

    Args:
        model: the decoder, cut after the deepest probed block.
        probes: one a layer.
        rows: the rows that count, in reading order.
        cutter: cuts them into passages.
        token_classes: class of each token id, on the model's device.
        batch_tokens: tokens a batch, padding included.
        directory: where the files of sampled documents go.
        on_batch: called with the tokens of each batch done.
        on_rows: called with the rows that each shard completes.
    """
    layers = {
        probe.layer: LayerHarvest(FeatureStats.empty(probe.sae.num_latents), TopExamples.empty(probe.sae.num_latents))
        for probe in probes
    }
    files: list[Path] = []
    tokens = passages = 0
    for number, shard in enumerate(shards(rows, cutter)):
        values = harvest_shard(
            model,
            probes,
            shard,
            token_classes=token_classes,
            special_ids=cutter.special_ids,
            batch_tokens=batch_tokens,
            on_batch=on_batch,
        )
        layers = fold(layers, values, shard)
        if shard.passages.sampled.any():
            files.append(directory / f"documents-{number:05d}.npz")
            write_documents(files[-1], shard.passages, values)
        release_free_memory()
        tokens += shard.tokens
        passages += len(shard.sequences)
        on_rows(shard.rows)
    return Harvest(layers, tuple(files), tokens, passages)
