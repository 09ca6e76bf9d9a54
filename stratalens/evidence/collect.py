"""Collect evidence for some features: choose passages, run the model over them, and compute the logit lens."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from scipy import sparse
from torch import Tensor, nn

from stratalens.config.options import RunConfig
from stratalens.corpus import Populations
from stratalens.evidence.evidence import Evidence, LayerEvidence, first_tokens
from stratalens.evidence.logit_lens import FeatureLens, layer_lenses, try_lens
from stratalens.evidence.passages import (
    Passage,
    PassageLocation,
    read_passages,
    sample_texts,
    strongest_passages,
)
from stratalens.harvest.inputs import LoadedModel, ModelInputs, RunInputs
from stratalens.harvest.open_model import OpenModel, load_and_try
from stratalens.harvest.store import HarvestFile
from stratalens.hookpoint import Hookpoint, Site
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.memory import release_free_memory
from stratalens.optional_parts import LENS, OptionalParts
from stratalens.ranking.layer_facts import HarvestSummary, layer_facts
from stratalens.saes.probe import Probe

LENS_SITES: tuple[Site, ...] = ("resid", "attn", "mlp")
"""Sites whose vectors are, or are added to, the residual stream."""


class CollectedEvidence(NamedTuple):
    """What fires features and which tokens they promote: everything about them that needs the model."""

    evidence: Evidence
    lenses: dict[Hookpoint, list[FeatureLens]]
    """Hookpoint -> the logit lens of each feature; only where decoder rows are directions of the residual stream, and
    none if the lens was left out."""


def load_and_try_all(config: RunConfig, inputs: ModelInputs, parts: OptionalParts) -> LoadedModel:
    """Load the model and try what a run needs of it: `load_and_try`, and the logit lens if there is to be one.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and tokenizer.
        parts: its progress receives messages; the logit lens is optional.

    Raises:
        StratalensError: the model cannot be loaded, or cannot be used as the run would use it.
    """
    loaded = load_and_try(config, inputs, parts.progress)
    if any(sae.target.site in LENS_SITES for sae in inputs.saes.values()):
        with parts.part(LENS):
            try_lens(inputs.source, loaded.device, loaded.dtype)
        release_free_memory()
    return loaded


def collect_evidence(
    config: RunConfig,
    inputs: RunInputs,
    opened: OpenModel,
    features: Mapping[Hookpoint, Sequence[int]],
    locations: set[PassageLocation],
    parts: OptionalParts,
) -> CollectedEvidence:
    """Read the strongest passages of the features and a sample of all text, token by token.

    Args:
        config: options of the run.
        inputs: its text, SAEs and tokenizer.
        opened: its loaded model.
        features: hookpoint -> reported features.
        locations: where the strongest passages of the features are.
        parts: its progress receives counts of passages and tokens; the logit lens is optional.

    Raises:
        CapacityError: a single passage does not fit into memory.
    """
    parts.progress.stage("evidence")
    sampled = sample_texts(inputs.survey, config.seed)
    passages = read_passages(inputs.corpus, inputs.survey, inputs.cutter, locations, sampled)
    with parts.progress.track("Collecting evidence", len(passages) * len(opened.passes)) as advance:
        reader = PassageReader(opened.model, passages, inputs.cutter.special_ids, config.batch_tokens, advance)
        passes = (list(opened.probes(hookpoints).values()) for hookpoints in opened.passes)
        evidence = reader.read(passes, features)
        decode = inputs.cutter.token_text

        def directions(hookpoint: Hookpoint) -> Tensor:
            return inputs.saes[hookpoint].load().decoder.weight

        readable = {place: own for place, own in features.items() if inputs.saes[place].target.site in LENS_SITES}
        lenses: dict[Hookpoint, list[FeatureLens]] = {}
        if LENS not in parts.missing:
            with parts.part(LENS):
                lenses = layer_lenses(inputs.source, directions, readable, decode, opened.device, opened.dtype)
    return CollectedEvidence(evidence, lenses)


class FiredEntries(NamedTuple):
    """The tokens of one batch on which reported features fire; in 32 bits, because there are many."""

    token: Int32[np.ndarray, "entry"]
    """Index among the tokens of all passages."""
    column: Int32[np.ndarray, "entry"]
    """Index among the layer's reported features."""
    activation: Float32[np.ndarray, "entry"]


class _LayerReader:
    """Collects the activations of some latents of one layer, batch by batch."""

    def __init__(self, probe: Probe, features: Sequence[int], device: torch.device):
        self.probe = probe
        self.column = torch.full((probe.sae.num_latents,), -1, device=device)
        self.column[torch.as_tensor(features, dtype=torch.long, device=device)] = torch.arange(
            len(features), device=device
        )
        self.parts: list[FiredEntries] = []

    def pick(
        self,
        batch: TokenBatch,
        first_token: Int[Tensor, "batch"],
        vectors: Float[Tensor, "batch seq d_model"],
    ) -> FiredEntries:
        """Encode the kept positions of one batch, and keep the entries of the features.

        Args:
            batch: the batch on the device.
            first_token: index of each row's first token among the tokens of all passages.
            vectors: those at the hookpoint of the SAE.
        """
        hidden, _, keep = self.probe.read(batch, vectors)
        row, position = keep.nonzero(as_tuple=True)
        latents = self.probe.sae.encode(hidden[row, position])
        column = self.column[latents.latent]
        wanted = column >= 0
        token = (first_token[row] + position)[latents.token]
        entries = token[wanted].int(), column[wanted].int(), latents.value[wanted].float()
        return FiredEntries(*(tensor.cpu().numpy() for tensor in entries))


@dataclass(frozen=True)
class PassageReader:
    """Runs a model over passages and keeps the activations of some features."""

    model: nn.Module
    """The decoder, cut after the deepest probed block."""
    passages: Sequence[Passage]
    special_ids: frozenset[int]
    """Tokens that never count."""
    batch_tokens: int
    """Maximum tokens per batch, padding included."""
    on_batch: Callable[[int, int], None] = lambda _passages, _tokens: None
    """Called with the numbers of passages and tokens of each finished batch."""

    def read(self, passes: Iterable[Sequence[Probe]], features: Mapping[Hookpoint, Sequence[int]]) -> Evidence:
        """Read the passages once for each group of probes.

        Args:
            passes: groups of probes.
            features: hookpoint -> its reported features.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        tokens = int(first_tokens(self.passages)[-1])
        found: dict[Hookpoint, LayerEvidence] = {}
        for probes in passes:
            for reader in self._read_pass(probes, features):
                hookpoint = reader.probe.hookpoint
                found[hookpoint] = _join_parts(reader, features[hookpoint], tokens)
        return Evidence(list(self.passages), found)

    def _read_pass(self, probes: Sequence[Probe], features: Mapping[Hookpoint, Sequence[int]]) -> list[_LayerReader]:
        """Run the model over the passages once; return a reader per probe, with the entries that it collected."""
        starts = first_tokens(self.passages)
        device = probes[0].sae.device
        readers = [_LayerReader(probe, features[probe.hookpoint], device) for probe in probes]
        runner = BatchRunner(self.batch_tokens)

        def read_batch(cpu_batch: TokenBatch) -> dict[Hookpoint, FiredEntries]:
            batch = cpu_batch.to(device)
            first = torch.from_numpy(starts[batch.rows]).to(device)
            entries: dict[Hookpoint, FiredEntries] = {}

            def consumer(reader: _LayerReader, vectors: Tensor) -> None:
                entries[reader.probe.hookpoint] = reader.pick(batch, first, vectors)

            with hooked(self.model, {reader.probe.hookpoint: partial(consumer, reader) for reader in readers}):
                forward(self.model, batch.input_ids)
            return entries

        sequences = [passage.token_ids for passage in self.passages]
        for batch in pack_batches(sequences, self.batch_tokens, self.special_ids):
            for entries in runner.run(batch, read_batch):
                for reader in readers:
                    reader.parts.append(entries[reader.probe.hookpoint])
            self.on_batch(len(batch.rows), batch.tokens)
        return readers


def _join_parts(reader: _LayerReader, features: Sequence[int], tokens: int) -> LayerEvidence:
    token, column, value = (np.concatenate([part[i] for part in reader.parts]) for i in range(3))
    reader.parts.clear()  # free them before the next layer is joined
    shape = (tokens, len(features))
    return LayerEvidence(
        np.asarray(features, dtype=np.int64), sparse.coo_array((value, (token, column)), shape=shape).tocsc()
    )


def summarise_harvest(
    files: Mapping[Hookpoint, HarvestFile],
    fvu: Mapping[Hookpoint, float],
    features: Mapping[Hookpoint, Sequence[int]],
    populations: Populations,
) -> tuple[HarvestSummary, set[PassageLocation]]:
    """Summarise the harvest, and find the locations of the strongest passages of some features.

    Args:
        files: hookpoint -> its harvest on disk; one at a time is loaded.
        fvu: hookpoint -> fraction of variance unexplained by its SAE.
        features: hookpoint -> features.
        populations: those of the run.

    Raises:
        OutputError: the harvest of a layer is missing or damaged.
    """
    hookpoints, split, locations = {}, {}, set()
    totals = (np.zeros(len(populations), np.int64),) * 3
    for hookpoint, file in files.items():
        state = file.state()
        hookpoints[hookpoint] = layer_facts(fvu[hookpoint], state.stats)
        split[hookpoint] = state.batches_split
        locations |= strongest_passages(state.examples, features[hookpoint], populations)
        totals = state.stats.passages, state.stats.tokens, state.stats.countable_positions  # the same in every layer
    return HarvestSummary(hookpoints, split, *totals), locations
