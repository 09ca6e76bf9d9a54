"""The record of a run, `run.json`: what is needed to repeat it, facts about its input, and the resources it used."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from stratalens.config.options import LabelConfig, RunConfig
from stratalens.corpus import Populations, Side
from stratalens.corpus.describe import corpus_warnings
from stratalens.corpus.populations import side_name
from stratalens.files.redaction import as_printed, redacted, redacted_settings
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.store import FORMAT
from stratalens.ranking.layer_facts import HarvestSummary
from stratalens.report.tables import Tables
from stratalens.saes.fit_check import FitCheck

LayerKey = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,4})$")]
"""A layer number as a key of a JSON object."""
PACKAGES = ("stratalens", "torch", "transformers", "tokenizers", "numpy", "scipy", "pandas", "safetensors")
"""Packages whose versions are recorded."""
EXECUTION_SETTINGS = ("quiet", "dry_run", "output_dir", "harvest", "workers", "memory_gb")
"""Settings that control how the work is done and do not affect the results; only `run.json` records them."""


def run_warnings(
    config: RunConfig, checks: Mapping[int, FitCheck], summary: HarvestSummary, tables: Tables
) -> list[str]:
    """Warnings that a reader must know before trusting the numbers, besides those about the documents."""
    warnings = [
        f"the SAE of {check.own.hookpoint} may not fit: {check.problem}" for check in checks.values() if check.problem
    ]
    if any(summary.batches_split.values()):
        warnings.append(
            f"{max(summary.batches_split.values())} batches did not fit into memory and were halved, which may change "
            "the last digits; a lower --batch_tokens avoids it"
        )
    if tables.below_threshold:
        warnings.append(
            f"{tables.below_threshold} of {len(tables.consolidated)} reported features are below "
            f"--min_specialization {config.min_specialization:g} and left out of the top {config.top_features_n} file"
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


def shown_settings(config: RunConfig, base_model: str) -> dict[str, object]:
    """The settings of the run with its defaults resolved: all that is needed to repeat it, except credentials."""
    values = recorded_settings(config)
    models = {"base_model": redacted(base_model), "sae_model": values["sae_model"] or "embedded"}
    return models | {k: v for k, v in values.items() if k not in (*models, *EXECUTION_SETTINGS)}


def build_record(
    config: RunConfig,
    inputs: RunInputs,
    checks: Mapping[int, FitCheck],
    summary: HarvestSummary,
    harvest: Harvest,
    warnings: list[str],
) -> dict[str, object]:
    """The content of `run.json`, without secrets; file names, the time taken and peak memory are added at the end.

    Args:
        config: the options of the run.
        inputs: model, SAEs and text that were read.
        checks: layer -> the fit check of its SAE.
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
        "saes": {
            layer: {"hookpoint": sae.hookpoint, "latents": sae.num_latents, "k": sae.k, "sha256": sae.digest}
            for layer, sae in inputs.saes.items()
        },
        "corpus": _corpus_record(config, inputs, summary),
        "self_check": {layer: asdict(check) for layer, check in checks.items()},
        "layers": {layer: facts._asdict() for layer, facts in summary.layers.items()},
        "warnings": list(map(as_printed, [*corpus_warnings(config, inputs.survey), *warnings])),
        "documents": sum(counts.documents for counts in inputs.survey.counts),
        "passages": int(summary.passages.sum()),
        "tokens": int(summary.tokens.sum()),
        "tokens_read": harvest.tokens_read,
        "harvest_seconds": round(harvest.seconds, 3),
        "tokens_per_second": round(harvest.tokens_read / harvest.seconds, 1),
        "harvest": {
            "keys": {layer: file.key for layer, file in harvest.files.items()},
            "facts": harvest.facts,
            "batches_split": summary.batches_split,
        },
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
    }
    return redacted_settings(record)


def _corpus_record(config: RunConfig, inputs: RunInputs, summary: HarvestSummary) -> dict[str, object]:
    """The part of the record about the text: its digest, files and counts by side."""
    names = [side_name(config.domain, side) for side in Side]
    counts = {name: asdict(counts) for name, counts in zip(names, inputs.survey.counts, strict=True)}
    files = {name: [str(file.path) for file in own] for name, own in zip(names, inputs.corpus.files, strict=True)}
    return {
        "digest": f"{inputs.survey.digest:016x}",
        "split": inputs.survey.split,
        **counts,
        "files": files,
        "lengths": _lengths(config, summary, inputs.survey.populations),
    }


def result_files(staging: Path) -> list[str]:
    """Names, relative to `staging`, of all files of a result except the record itself."""
    files = (path for path in staging.rglob("*") if path.is_file() and path.name != RECORD_FILE)
    return sorted(str(path.relative_to(staging)) for path in files)


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


class _FactsPart(BaseModel):
    """A part of the record, checked strictly; entries that are not named here are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class ModelFacts(_FactsPart):
    """The language model."""

    name: str
    num_layers: int
    d_model: int


class SaeFacts(_FactsPart):
    """The SAE of one layer."""

    hookpoint: str
    latents: int
    k: int | None


class SideFacts(_FactsPart):
    """The documents of one side."""

    documents: int
    discovery_documents: int
    confirmation_documents: int
    kept_rows: int
    empty: int
    too_short: int
    duplicates: int
    on_both_sides: int
    beyond_max_documents: int


class FitFacts(_FactsPart):
    """How well an SAE reconstructs the activations at one hookpoint."""

    hookpoint: str
    fvu: float | None
    mean_error_share: float | None
    l0: float | None


class FitCheckFacts(_FactsPart):
    """The fit check of an SAE at its own hookpoint and at the neighbouring ones."""

    own: FitFacts
    neighbours: list[FitFacts]
    problem: str


class RunFacts(_FactsPart):
    """The facts in `run.json` that the page shows, checked."""

    domain: str
    created: str
    stratalens: str
    model: ModelFacts
    saes: dict[LayerKey, SaeFacts]
    split: bool
    sides: tuple[SideFacts, SideFacts]
    files: tuple[list[str], list[str]]
    max_length: int
    passages: int
    tokens: int
    self_check: dict[LayerKey, FitCheckFacts]
    warnings: list[str]
    settings: dict[str, Any]
    """Those that affect the results."""

    @property
    def populations(self) -> Populations:
        """The populations of the documents."""
        return Populations()

    @classmethod
    def of(cls, record: dict[str, Any], domain: str) -> "RunFacts":
        """Pick the facts out of the content of `run.json`.

        Args:
            record: that content.
            domain: name of the domain, by which the record names one side.

        Raises:
            ValueError: something is missing or has the wrong type.
        """
        try:
            corpus = record["corpus"]
            names = [side_name(domain, side) for side in Side]
            values = {
                "domain": domain,
                "split": corpus["split"],
                "sides": tuple(corpus[name] for name in names),
                "files": tuple(corpus["files"][name] for name in names),
                "max_length": corpus["lengths"]["max_length"],
                "settings": {
                    name: value for name, value in record["settings"].items() if name not in EXECUTION_SETTINGS
                },
            }
            copied = ("created", "stratalens", "model", "saes", "passages", "tokens", "self_check", "warnings")
            return cls.model_validate(values | {name: record[name] for name in copied})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{error} is missing") from None
