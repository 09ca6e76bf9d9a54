"""Collect evidence for some features: choose passages, run the model over them, and compute the logit lens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stratalens.config.options import RunConfig
from stratalens.corpus import Populations
from stratalens.errors import counted
from stratalens.evidence.evidence import Evidence, join_evidence
from stratalens.evidence.kept import KeptCodes, WantedPassages
from stratalens.evidence.logit_lens import FeatureLens, layer_lenses, try_lens
from stratalens.evidence.passage_reader import PassageReader
from stratalens.evidence.passages import (
    PassageLocation,
    read_passages,
    sample_texts,
    strongest_passages,
)
from stratalens.harvest.inputs import LoadedModel, ModelInputs, RunInputs
from stratalens.harvest.open_model import OpenModel, load_and_try
from stratalens.harvest.store import HarvestFile
from stratalens.hookpoint import Hookpoint, Site
from stratalens.models.memory import release_free_memory
from stratalens.optional_parts import LENS, OptionalParts
from stratalens.progress import Progress
from stratalens.ranking.layer_facts import HarvestSummary, layer_facts

LENS_SITES: tuple[Site, ...] = ("resid", "attn", "mlp")
"""Sites whose vectors are, or are added to, the residual stream."""


class CollectedEvidence(NamedTuple):
    """What fires features and which tokens they promote: everything about them that needs the model."""

    evidence: Evidence
    lenses: dict[Hookpoint, list[FeatureLens]]
    """Hookpoint -> the logit lens of each feature; only where decoder rows are directions of the residual stream, and
    none if the lens was left out."""


class EvidenceSource(NamedTuple):
    """What a harvest holds of the evidence."""

    strongest: frozenset[PassageLocation]
    """Where the strongest passages of the features are."""
    codes: Mapping[Hookpoint, Path]
    """Hookpoint -> the token-level codes that are kept of it."""


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
    source: EvidenceSource,
    features: Mapping[Hookpoint, Sequence[int]],
    parts: OptionalParts,
) -> CollectedEvidence:
    """Take the strongest passages of the features and a sample of all text from the harvest; read again what it lacks.

    Args:
        config: options of the run.
        inputs: its text, SAEs and tokenizer.
        opened: its loaded model.
        source: what the harvest holds of it.
        features: hookpoint -> reported features.
        parts: its progress receives counts of passages and tokens; the logit lens is optional.

    Raises:
        CapacityError: a single passage does not fit into memory.
    """
    parts.progress.stage("evidence")
    wanted = WantedPassages(source.strongest, sample_texts(inputs.survey, config.seed))
    evidence, missing = KeptCodes(source.codes).find(features, wanted)
    if missing:
        again = _read_again(config, inputs, opened, features, missing, parts.progress)
        if evidence.passages:
            read, tokens = counted(len(again.passages), "passage"), counted(int(again.starts[-1]), "token")
            parts.progress.say(f"{read} of the evidence ({tokens}) were not kept by the harvest, and were read again")
        evidence = join_evidence(evidence, again)
    opened.encoders.clear()
    return CollectedEvidence(evidence, collect_lenses(inputs, features, (opened.device, opened.dtype), parts))


def _read_again(
    config: RunConfig,
    inputs: RunInputs,
    opened: OpenModel,
    features: Mapping[Hookpoint, Sequence[int]],
    wanted: WantedPassages,
    progress: Progress,
) -> Evidence:
    """Run the model over passages, token by token."""
    passages = read_passages(inputs.corpus, inputs.survey, inputs.cutter, wanted.locations, wanted.texts)
    with progress.track("Collecting evidence", len(passages) * len(opened.passes)) as advance:
        reader = PassageReader(opened.model, passages, inputs.cutter.special_ids, config.tokens_per_batch, advance)
        passes = (list(opened.probes(hookpoints).values()) for hookpoints in opened.passes)
        return reader.read(passes, features)


def collect_lenses(
    inputs: ModelInputs,
    features: Mapping[Hookpoint, Sequence[int]],
    placement: tuple[torch.device, torch.dtype],
    parts: OptionalParts,
) -> dict[Hookpoint, list[FeatureLens]]:
    """The logit lens of each feature whose decoder row is a direction of the residual stream.

    Args:
        inputs: model source, SAEs and tokenizer.
        features: hookpoint -> features.
        placement: device and number format of the model.
        parts: the logit lens is an optional part of them.
    """

    def directions(hookpoint: Hookpoint) -> Tensor:
        return inputs.saes[hookpoint].decoder().weight

    readable = {place: own for place, own in features.items() if inputs.saes[place].target.site in LENS_SITES}
    if LENS not in parts.missing:
        with parts.part(LENS), parts.progress.track("Reading off promoted tokens", None):
            return layer_lenses(inputs.source, directions, readable, inputs.cutter.token_text, *placement)
    return {}


def summarise_harvest(
    files: Mapping[Hookpoint, HarvestFile],
    fvu: Mapping[Hookpoint, float],
    features: Mapping[Hookpoint, Sequence[int]],
    populations: Populations,
) -> tuple[HarvestSummary, frozenset[PassageLocation]]:
    """Summarise the harvest, and find the locations of the strongest passages of some features.

    Args:
        files: hookpoint -> its harvest on disk; one at a time is loaded.
        fvu: hookpoint -> fraction of variance unexplained by its SAE.
        features: hookpoint -> features.
        populations: those of the run.

    Raises:
        OutputError: the harvest of a layer is missing or damaged.
    """
    hookpoints, split = {}, {}
    locations = set[PassageLocation]()
    totals = (np.zeros(len(populations), np.int64),) * 3
    for hookpoint, file in files.items():
        state = file.state()
        hookpoints[hookpoint] = layer_facts(fvu[hookpoint], state.stats)
        split[hookpoint] = state.batches_split
        locations |= strongest_passages(state.examples, features[hookpoint], populations)
        totals = state.stats.passages, state.stats.tokens, state.stats.countable_positions  # the same in every layer
    return HarvestSummary(hookpoints, split, *totals), frozenset(locations)


def strongest_of_harvest(
    files: Mapping[Hookpoint, HarvestFile], features: Mapping[Hookpoint, Sequence[int]], populations: Populations
) -> frozenset[PassageLocation]:
    """Locations of the strongest passages of some latents.

    Args:
        files: hookpoint -> its harvest on disk; one at a time is loaded.
        features: hookpoint -> latents.
        populations: those of the run.

    Raises:
        OutputError: the harvest of a layer is missing or damaged.
    """
    locations = set[PassageLocation]()
    for hookpoint, own in features.items():
        locations |= strongest_passages(files[hookpoint].state().examples, own, populations)
    return frozenset(locations)
