"""The evidence of a finished result: as it is stored, from the codes that its harvest kept, or collected again."""

from collections.abc import Iterable, Mapping, Sequence

from stratalens.commands.finished import find_inputs_again, require_same_models
from stratalens.commands.sources import MODEL_SOURCES, require_allowed_sources
from stratalens.config.options import RunConfig
from stratalens.evidence import Evidence, collect_evidence
from stratalens.evidence.collect import (
    CollectedEvidence,
    EvidenceSource,
    collect_lenses,
    strongest_of_harvest,
    summarise_harvest,
)
from stratalens.evidence.kept import KeptCodes, WantedPassages
from stratalens.evidence.logit_lens import FeatureLens
from stratalens.files.result_names import EVIDENCE_FOLDER, RECORD_FILE
from stratalens.harvest.inputs import RunInputs, find_model_inputs
from stratalens.harvest.open_model import OpenModel, open_model
from stratalens.hookpoint import Hookpoint
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.optional_parts import LENS, OptionalParts
from stratalens.report.evidence_file import EVIDENCE_FILE, read_lenses
from stratalens.report.saved import Findings, Result

NO_LENS = FeatureLens([], [])
"""Of a feature whose promoted tokens are not known."""


def load_evidence(result: Result) -> CollectedEvidence | None:
    """Read the evidence stored with the result; None where the result was made without examples.

    Raises:
        ConfigError: the evidence is damaged.
    """
    folder = result.output_dir / EVIDENCE_FOLDER
    hookpoints = list(result.findings.top)
    if not all((folder / f"layer_{hookpoint}.npz").is_file() for hookpoint in hookpoints):
        return None
    evidence = Evidence.load(folder, hookpoints)
    stored = {
        hookpoint: read_lenses(
            result.output_dir / f"layer_{hookpoint}" / EVIDENCE_FILE, layer_evidence.features.tolist()
        )
        for hookpoint, layer_evidence in evidence.layers.items()
    }
    lenses = {
        hookpoint: lenses_of_layer for hookpoint, lenses_of_layer in stored.items() if lenses_of_layer is not None
    }
    return CollectedEvidence(evidence, lenses)


def evidence_of(
    result: Result, features: Mapping[Hookpoint, Sequence[int]], stored: CollectedEvidence
) -> CollectedEvidence | None:
    """The evidence of any latents, from what is stored and from the codes that the harvest kept.

    Args:
        result: with its harvest.
        features: hookpoint -> latents, reported ones or others.
        stored: the stored evidence of the result.

    Returns:
        The evidence, with `NO_LENS` for latents that are not reported; None where a passage was not kept.

    Raises:
        ConfigError: a file of codes is damaged.
        OutputError: the harvest of a layer is missing or damaged.
    """
    sampled = frozenset(passage.location.content for passage in stored.evidence.passages if passage.sampled)
    if not sampled:
        return None
    locations = strongest_of_harvest(result.harvest, features, result.record.populations)
    codes = KeptCodes(result.record.code_files(result.output_dir))
    evidence, missing = codes.find(features, WantedPassages(locations, sampled))
    if missing:
        return None
    lenses = {place: _lenses_of(stored, place, features[place]) for place in stored.lenses if place in features}
    return CollectedEvidence(evidence, lenses)


def _lenses_of(stored: CollectedEvidence, place: Hookpoint, features: Iterable[int]) -> list[FeatureLens]:
    """The stored logit lens of each feature."""
    own = dict(zip(stored.evidence.layers[place].features.tolist(), stored.lenses[place], strict=True))
    return [own.get(feature, NO_LENS) for feature in features]


def complete_lenses(result: Result, config: RunConfig, collected: CollectedEvidence, parts: OptionalParts) -> None:
    """Compute the missing logit lenses, in place, where model and SAEs are at hand; else tell that they are missing.

    Args:
        result: a finished one.
        config: its options.
        collected: evidence and lenses.
        parts: its progress receives messages.
    """
    wanted = {
        place: [feature for feature, lens in zip(_numbers(collected, place), lenses, strict=True) if lens == NO_LENS]
        for place, lenses in collected.lenses.items()
    }
    wanted = {place: features for place, features in wanted.items() if features}
    if not wanted or LENS in parts.missing:
        return
    own = OptionalParts(parts.progress)  # apart: the lenses of the other features are there
    with own.part(LENS, "the new features"):
        require_allowed_sources(result.output_dir / RECORD_FILE, config, MODEL_SOURCES, is_record=True)
        inputs = find_model_inputs(config, parts.progress, list(wanted))
        require_same_models(result, inputs)
        device = choose_device(config.device)
        made = collect_lenses(inputs, wanted, (device, choose_dtype(config.dtype, device)), own)
        for place, lenses in made.items():
            of_feature = dict(zip(wanted[place], lenses, strict=True))
            collected.lenses[place] = [
                of_feature.get(feature, lens)
                for feature, lens in zip(_numbers(collected, place), collected.lenses[place], strict=True)
            ]


def _numbers(collected: CollectedEvidence, place: Hookpoint) -> list[int]:
    return collected.evidence.layers[place].features.tolist()


def collect_again(result: Result, config: RunConfig, findings: Findings, parts: OptionalParts) -> CollectedEvidence:
    """Collect the evidence of these findings again: run the model over the passages that it is made of.

    Raises:
        ConfigError: the text or the model has changed since the result was made, or must be fetched and
            `allow_fetch` is not set.
    """
    inputs = find_inputs_again(result, config, parts.progress)
    return collect_from(result, config, findings, (inputs, open_model(config, inputs, parts.progress)), parts)


def collect_from(
    result: Result,
    config: RunConfig,
    findings: Findings,
    opened: tuple[RunInputs, OpenModel],
    parts: OptionalParts,
) -> CollectedEvidence:
    """Collect the evidence of these findings with the inputs and the model of the run, which are open."""
    inputs, model = opened
    fvu = {hookpoint: facts.fvu for hookpoint, facts in findings.facts.items()}
    _, locations = summarise_harvest(result.harvest, fvu, findings.features, inputs.survey.populations)
    parts.missing.pop(LENS, None)  # what failed in the run is tried again
    source = EvidenceSource(locations, result.record.code_files(result.output_dir))
    return collect_evidence(config, inputs, model, source, findings.features, parts)


def covers_exactly(collected: CollectedEvidence, findings: Findings) -> bool:
    """Whether the evidence is of the reported features and of no others."""
    covered = {hookpoint: set(evidence.features.tolist()) for hookpoint, evidence in collected.evidence.layers.items()}
    return all(covered[hookpoint] == set(features) for hookpoint, features in findings.features.items())
