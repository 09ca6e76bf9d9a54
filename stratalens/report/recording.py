"""Build the record of a run: what is needed to repeat it, facts about its input, and the resources it used."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from stratalens.config.options import RunConfig
from stratalens.config.result_options import LabelConfig
from stratalens.corpus import Populations, Side
from stratalens.corpus.builtin import BUILT_IN_DOMAINS
from stratalens.corpus.populations import side_name
from stratalens.errors import counted
from stratalens.files.redaction import as_printed, redacted_settings
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.store import FORMAT
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.layer_facts import HarvestSummary
from stratalens.report.codes_record import codes_record
from stratalens.report.controls_record import ControlsRecord
from stratalens.report.fit_record import fit_record
from stratalens.report.formats import json_value
from stratalens.report.run_record import RunRecord
from stratalens.report.tables import Tables
from stratalens.saes.fit_check import FitCheck
from stratalens.saes.sae import SaeFile
from stratalens.validation import Controls

PACKAGES = ("stratalens", "torch", "transformers", "tokenizers", "numpy", "scipy", "pandas", "safetensors")
"""Packages whose versions are recorded."""


def run_warnings(
    config: RunConfig, checks: Mapping[Hookpoint, FitCheck], summary: HarvestSummary, tables: Tables
) -> list[str]:
    """Warnings that a reader must know before trusting the numbers, besides those about the documents."""
    warnings = [
        f"the SAE of {check.own.hookpoint} may not fit: {check.problem}" for check in checks.values() if check.problem
    ]
    if split := max(summary.batches_split.values(), default=0):
        warnings.append(
            f"{counted(split, 'batch', 'batches')} did not fit into memory and {'was' if split == 1 else 'were'} "
            "halved, which may change the last digits; a lower --batch_tokens avoids it"
        )
    if below := tables.below_threshold:
        warnings.append(
            f"{below} of {counted(len(tables.consolidated), 'reported feature')} {'is' if below == 1 else 'are'} below "
            f"--min_specialization {config.min_specialization:g} and left out of the top {config.top_features_n} file"
        )
    if config.domain not in BUILT_IN_DOMAINS and not config.lexicon:
        warnings.append(
            f"the domain `{config.domain}` has no lexicon: labels are made from the concepts of the built-in domains "
            "and from phrases of your texts; --lexicon names your own, see docs/own-domain.md"
        )
    if config.domain_data and not config.general_data:
        warnings.append(
            "your texts were contrasted with the built-in general texts, which differ in style as well as in subject; "
            "--general_data with text of the same kind separates the two"
        )
    return warnings


def recorded_settings(config: LabelConfig) -> dict[str, object]:
    """The options as `run.json` stores them: without credentials in addresses, and without what was allowed once."""
    return redacted_settings(config.model_dump(mode="json", exclude={"overwrite", "allow_fetch"}))


def build_record(
    config: RunConfig,
    inputs: RunInputs,
    checks: Mapping[Hookpoint, FitCheck],
    summary: HarvestSummary,
    harvest: Harvest,
    warnings: list[str],
) -> RunRecord:
    """The record of a run, without secrets; file names, the time taken and peak memory are added at the end.

    Args:
        config: the options of the run.
        inputs: model, SAEs and text that were read.
        checks: hookpoint -> the fit check of its SAE.
        summary: facts of the harvest by layer.
        harvest: the pass over the text.
        warnings: those of `run_warnings`.
    """
    record: dict[str, object] = {
        "format": FORMAT,
        "stratalens": _version("stratalens"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": recorded_settings(config),
        "model": inputs.source._asdict(),
        "saes": {hookpoint: _sae_record(sae) for hookpoint, sae in inputs.saes.items()},
        "corpus": _corpus_record(config, inputs, summary),
        "self_check": {
            hookpoint: {"layer": hookpoint.block, **fit_record(check)} for hookpoint, check in checks.items()
        },
        "layers": {hookpoint: facts._asdict() for hookpoint, facts in summary.layers.items()},
        "warnings": [as_printed(warning) for warning in (*inputs.warnings, *inputs.text.warnings, *warnings)],
        "documents": sum(counts.documents for counts in inputs.survey.counts),
        "passages": int(summary.passages.sum()),
        "tokens": int(summary.tokens.sum()),
        "tokens_read": harvest.tokens_read,
        "harvest_seconds": round(harvest.seconds, 3),
        "tokens_per_second": round(harvest.tokens_read / harvest.seconds, 1),
        "harvest": {
            "keys": {hookpoint: file.key for hookpoint, file in harvest.files.items()},
            "facts": harvest.facts,
            "batches_split": summary.batches_split,
        },
        "codes": {place: own.model_dump() for place, own in codes_record(harvest.codes).items()},
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
    }
    return RunRecord.model_validate(json_value(redacted_settings(record)))


def _sae_record(sae: SaeFile) -> dict[str, object]:
    own = {"hookpoint": sae.module, "latents": sae.num_latents, "k": sae.k, "sha256": sae.digest}
    return own | {"path": sae.name, "commit": sae.commit}


def with_controls(record: RunRecord, controls: Controls | None, random_keys: Mapping[Hookpoint, str]) -> RunRecord:
    """The record with the controls of its features.

    Args:
        record: of the run.
        controls: None where none were made.
        random_keys: hookpoint -> key of the harvest of its SAE of random directions, if there is one.
    """
    made = None if controls is None else ControlsRecord.of(controls, random_keys)
    return record.model_copy(update={"controls": made})


def _corpus_record(config: RunConfig, inputs: RunInputs, summary: HarvestSummary) -> dict[str, object]:
    """The part of the record about the text: its digest, files and counts by side."""
    names = [side_name(config.domain, side) for side in Side]
    counts = {name: asdict(counts) for name, counts in zip(names, inputs.survey.counts, strict=True)}
    files = {name: [str(file.path) for file in own] for name, own in zip(names, inputs.corpus.files, strict=True)}
    return {
        "digest": f"{inputs.survey.digest:016x}",
        "split": inputs.survey.split,
        "kinds": inputs.survey.populations.strata,
        "form_auroc": None if inputs.text.likeness is None else round(inputs.text.likeness.auroc, 4),
        **counts,
        "files": files,
        "lengths": _lengths(config, summary, inputs.survey.populations),
    }


def _lengths(config: RunConfig, summary: HarvestSummary, populations: Populations) -> dict[str, object]:
    """Mean countable positions per passage of each side, recorded because maxima grow with passage length."""
    lengths: dict[str, object] = {"max_length": config.max_length}
    for side in Side:
        own = populations.where(side=side)
        passages = max(1, int(summary.passages[own].sum()))
        mean = float(summary.countable_positions[own].sum()) / passages
        lengths[f"mean_{side_name(config.domain, side)}_passage"] = round(mean, 2)
    return lengths


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
