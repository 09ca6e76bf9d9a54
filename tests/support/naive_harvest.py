"""The harvest by definition, with dense latents from sparsify and plain loops, for comparison."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sparsify import SparseCoder
from synthetic import POPULATIONS
from torch import Tensor
from transformers import AutoModelForCausalLM

from stratalens.corpus.survey import DocumentRow
from stratalens.harvest.state.statistics import HISTOGRAM_BINS, HISTOGRAM_BINS_PER_DECADE, HISTOGRAM_LOW
from stratalens.models.token_classes import TOKEN_CLASSES, token_class


@dataclass(frozen=True)
class HookedSae:
    """An SAE, the entry of `hidden_states` that it reads, and the norm above which a position is an attention sink."""

    folder: Path
    hidden_state: int
    norm_limit: float


@dataclass(frozen=True)
class EncodedPassage:
    """One passage with the values of its kept positions at one hookpoint."""

    row: DocumentRow
    start: int
    end: int
    ids: list[int]
    countable: list[int]
    kept: list[int]
    latents: np.ndarray
    """`[kept position, latent]`"""
    hidden: np.ndarray
    """`[kept position, d_model]`"""

    @property
    def mean(self) -> np.ndarray:
        return self.latents.mean(0) if self.kept else np.zeros(self.latents.shape[1])

    @property
    def mean_hidden(self) -> np.ndarray:
        return self.hidden.mean(0) if self.kept else np.zeros(self.hidden.shape[1])


@dataclass(frozen=True)
class ReadPassage:
    """One passage with the hidden states of the model."""

    row: DocumentRow
    start: int
    end: int
    ids: list[int]
    countable: list[int]
    """Positions past the first that hold no special token."""
    hidden_states: list[Tensor]
    """`[seq, d_model]` each, as the library numbers them: entry 0 is the embedding."""


@torch.inference_mode()
def read(
    model_directory: Path, tokenizer, rows: list[DocumentRow], length: int, frame: tuple[list[int], list[int]]
) -> list[ReadPassage]:
    """Read all passages one by one; `frame` holds the special tokens before and after a passage."""
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    special = set(tokenizer.all_special_ids)
    max_tokens = length - len(frame[0]) - len(frame[1])
    readings = []
    for row in rows:
        whole = tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)
        for first in range(0, len(whole["input_ids"]), max_tokens):
            chunk = slice(first, first + max_tokens)
            if len(whole["input_ids"][chunk]) < 2:
                continue
            ids = [*frame[0], *whole["input_ids"][chunk], *frame[1]]
            output = model(torch.tensor([ids]), output_hidden_states=True, logits_to_keep=1)
            offsets = whole["offset_mapping"][chunk]
            countable = [i for i in range(1, len(ids)) if ids[i] not in special]
            hidden = [state[0] for state in output.hidden_states]
            readings.append(ReadPassage(row, offsets[0][0], offsets[-1][1], ids, countable, hidden))
    return readings


@torch.inference_mode()
def encode(readings: list[ReadPassage], sae: HookedSae) -> list[EncodedPassage]:
    """Encode the kept positions of every passage with sparsify itself."""
    coder = SparseCoder.load_from_disk(sae.folder).float()
    passages = []
    for one in readings:
        hidden = one.hidden_states[sae.hidden_state]
        kept = [i for i in one.countable if float(hidden[i].norm()) <= sae.norm_limit]
        encoded = coder.encode(hidden[kept])
        dense = torch.zeros(len(kept), coder.num_latents).scatter_(1, encoded.top_indices, encoded.top_acts)
        passages.append(
            EncodedPassage(
                row=one.row,
                start=one.start,
                end=one.end,
                ids=one.ids,
                countable=one.countable,
                kept=kept,
                latents=dense.double().numpy(),
                hidden=hidden[kept].double().numpy(),
            )
        )
    return passages


def statistics(passages: list[EncodedPassage], tokenizer) -> dict[str, np.ndarray]:
    """Every field of FeatureStats, by name."""
    latents = passages[0].latents.shape[1]
    shapes = {"histogram": (latents, HISTOGRAM_BINS), "class_mass": (latents, len(TOKEN_CLASSES))}
    by_population = ("passages", "tokens", "countable_positions", "positions", "norm_sum")
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((POPULATIONS, latents)))
    sums |= {name: np.zeros(POPULATIONS) for name in by_population}
    sums |= {name: np.zeros((POPULATIONS, *shape)) for name, shape in shapes.items()}
    for one in passages:
        p = one.row.population
        sums["passages"][p] += 1
        sums["tokens"][p] += len(one.ids)
        sums["countable_positions"][p] += len(one.countable)
        sums["positions"][p] += len(one.kept)
        sums["norm_sum"][p] += np.linalg.norm(one.hidden, axis=1).sum()
        for f in range(latents):
            _add_latent(sums, one, p, f)
        for position, values in zip(one.kept, one.latents, strict=True):
            sums["class_mass"][p, :, token_class(tokenizer.decode([one.ids[position]]))] += values
            if 10 * position < len(one.ids):
                sums["early_mass"][p] += values
    return dict(sums) | {"latents": np.arange(latents)}


def _add_latent(sums: dict[str, np.ndarray], one: EncodedPassage, p: int, f: int) -> None:
    fired = one.latents[:, f] > 0
    sums["passages_fired"][p, f] += fired.any()
    sums["positions_fired"][p, f] += fired.sum()
    sums["mean_sum"][p, f] += one.mean[f]
    sums["mean_square_sum"][p, f] += one.mean[f] ** 2
    sums["activation_sum"][p, f] += one.latents[:, f].sum()
    if fired.any():
        sums["activation_max"][p, f] = max(sums["activation_max"][p, f], one.latents[:, f].max())
        decades = np.log10(one.mean[f] / HISTOGRAM_LOW)
        sums["histogram"][p, f, int(np.clip(decades * HISTOGRAM_BINS_PER_DECADE, 0, HISTOGRAM_BINS - 1))] += 1


Example = tuple[float, int, int, int]


def top_examples(passages: list[EncodedPassage], population: int, latent: int) -> list[Example]:
    """(value, content, start, end) of the passages that fire, strongest first."""
    examples = []
    for one in passages:
        if one.row.population == population and (one.latents[:, latent] > 0).any():
            examples.append((float(one.latents[:, latent].max()), one.row.content, one.start, one.end))
    return sorted(examples, key=lambda example: (-example[0], *example[1:3]))
