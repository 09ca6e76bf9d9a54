"""The record of a run: what is needed to run it again, what it found of its input, and what it took."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from stratalens.config import LabelConfig, RunConfig
from stratalens.corpus.corpus import Corpus, Side
from stratalens.corpus.survey import Survey
from stratalens.files.output_dir import RECORD_FILE
from stratalens.files.redaction import redacted_settings
from stratalens.harvest.inputs import Prepared
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.store import FORMAT, HarvestFile
from stratalens.models.source import ModelSource
from stratalens.ranking.rank import mean_norm
from stratalens.report.tables import LayerFacts, Tables
from stratalens.saes.fit_check import LayerCheck
from stratalens.saes.sae import SaeFile

PACKAGES = ("stratalens", "torch", "transformers", "tokenizers", "numpy", "scipy", "pandas", "safetensors")


HOW = ("quiet", "dry_run", "output_dir", "harvest", "workers", "memory_gb")
"""Settings that say how the work was done and have no part in what came out; `run.json` alone has them."""


def side_name(domain: str, side: int) -> str:
    """`financial` or `general`."""
    return domain if side == Side.DOMAIN else "general"


def describe_files(domain: str, corpus: Corpus) -> list[str]:
    """A line a side: how many files, and what a document is in them."""
    lines = []
    for side, files in zip(Side, corpus.files, strict=True):
        units = sorted({file.unit for file in files})
        shown = str(files[0].path) if len(files) == 1 else f"{len(files)} files"
        lines.append(f"{side_name(domain, side).capitalize()} text: {shown} (a document is a {' or a '.join(units)})")
    return lines


def describe_survey(domain: str, survey: Survey) -> str:
    """One line: documents a side, how they are split, what was left out."""
    parts = []
    for side, counts in zip(Side, survey.counts, strict=True):
        halves = f"{counts.discovery_documents} discovery, {counts.confirmation_documents} confirmation"
        out = {
            "empty": counts.empty,
            "too short": counts.too_short,
            "duplicate": counts.duplicates,
            "beyond --max_documents": counts.beyond_max_documents,
        }
        left = ", ".join(f"{number} {reason}" for reason, number in out.items() if number)
        split = f" ({halves})" if survey.split else ""
        parts.append(f"{counts.documents} {side_name(domain, side)}{split}" + (f", skipped {left}" if left else ""))
    return "Documents: " + "; ".join(parts)


def corpus_warnings(config: RunConfig, survey: Survey) -> list[str]:
    """What the documents at hand do not allow."""
    found = []
    if common := survey.counts[0].on_both_sides:
        found.append(f"{common} texts stand on both sides and were dropped from both; mend the data if you can")
    if not survey.split:
        found.append(
            "fewer than 10 documents a side in a half: nothing was held back, features were selected and estimated on "
            "the same documents, estimates flatter them, and `confirmed` stays empty"
        )
    return found


def describe_model(source: ModelSource, saes: Mapping[int, SaeFile], device: torch.device, dtype: torch.dtype) -> str:
    """One line: what is loaded, and how."""
    widths = sorted({sae.num_latents for sae in saes.values()})
    layers = " ".join(map(str, saes))
    return (
        f"Model: {source.name}, blocks 0 to {max(saes)} of {source.num_layers}, "
        f"{str(dtype).removeprefix('torch.')} on {device}; "
        f"SAEs of {' and '.join(f'{w:,}' for w in widths)} latents at layers {layers}"
    )


def describe_check(check: LayerCheck) -> str:
    """One line of the self-check."""
    others = ", ".join(f"{fit.hookpoint} {fit.mean_error_share:.4f}" for fit in check.neighbours)
    verdict = "fits" if not check.problem else f"DOES NOT FIT: {check.problem}"
    return (
        f"SAE of {check.own.hookpoint}: FVU {check.own.fvu:.3f}, L0 {check.own.l0:.1f}, "
        f"error in the mean {check.own.mean_error_share:.4f} ({others or 'no neighbours'}): {verdict}"
    )


@dataclass(frozen=True)
class TextReading:
    """The harvest of a run, and what it took."""

    files: Mapping[int, HarvestFile]
    facts: Mapping[str, object]
    """What the text was read with."""
    tokens_read: int
    """Tokens that this run read itself; the others an earlier one had read."""
    seconds: float


@dataclass(frozen=True)
class HarvestSummary:
    """What the harvest says of layers and text, apart from single latents."""

    layers: Mapping[int, LayerFacts]
    batches_split: Mapping[int, int]
    """Layer -> batches that did not fit into memory and were halved."""
    passages: Int[np.ndarray, "population"]
    tokens: Int[np.ndarray, "population"]
    countable_positions: Int[np.ndarray, "population"]


def layer_facts(fvu: float, stats: FeatureStats) -> LayerFacts:
    """What the layer comparison says besides the features."""
    countable, kept = int(stats.countable_positions.sum()), int(stats.positions.sum())
    return LayerFacts(fvu, mean_norm(stats), 1 - kept / max(1, countable))


def warnings(config: RunConfig, checks: Mapping[int, LayerCheck], summary: HarvestSummary, tables: Tables) -> list[str]:
    """What a reader must know before trusting the numbers, beyond what the documents showed."""
    found = [
        f"the SAE of {check.own.hookpoint} may not fit: {check.problem}" for check in checks.values() if check.problem
    ]
    if any(summary.batches_split.values()):
        found.append(
            f"{max(summary.batches_split.values())} batches did not fit into memory and were halved, which may change "
            "the last digits; a lower --batch_tokens avoids it"
        )
    if tables.below_threshold:
        found.append(
            f"{tables.below_threshold} of {len(tables.consolidated)} reported features are below "
            f"--min_specialization {config.min_specialization:g} and left out of the top {config.top_features_n} file"
        )
    if config.domain_data and not config.general_data:
        found.append(
            "your texts were contrasted with the built-in general texts, which differ in style as well as in subject; "
            "--general_data with text of the same kind separates the two"
        )
    return found


def recorded_settings(config: LabelConfig) -> dict[str, object]:
    """The options as `run.json` keeps them: without the credentials of any address among them."""
    return redacted_settings(config.model_dump(mode="json"))


def settings(config: RunConfig, base_model: str) -> dict[str, object]:
    """The settings of the run with its defaults resolved, enough to run it again save for credentials."""
    values = recorded_settings(config)
    shown = {"base_model": base_model, "sae_model": config.sae_model or "embedded"}
    return shown | {k: v for k, v in values.items() if k not in (*shown, *HOW)}


def build(
    config: RunConfig,
    ready: Prepared,
    checks: Mapping[int, LayerCheck],
    summary: HarvestSummary,
    reading: TextReading,
    warned: list[str],
    peak_memory_bytes: int,
) -> dict[str, object]:
    """The content of `run.json`, without the names of the files."""
    sides = {
        side_name(config.domain, side): asdict(counts) for side, counts in zip(Side, ready.survey.counts, strict=True)
    }
    return {
        "format": FORMAT,
        "stratalens": _version("stratalens"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": recorded_settings(config),
        "model": ready.source._asdict(),
        "saes": {
            layer: {"hookpoint": sae.hookpoint, "latents": sae.num_latents, "k": sae.k, "sha256": sae.digest}
            for layer, sae in ready.saes.items()
        },
        "corpus": {
            "digest": f"{ready.survey.digest:016x}",
            "split": ready.survey.split,
            **sides,
            "files": {
                side_name(config.domain, side): [str(file.path) for file in files]
                for side, files in zip(Side, ready.corpus.files, strict=True)
            },
            "lengths": _lengths(config, summary),
        },
        "self_check": {layer: asdict(check) for layer, check in checks.items()},
        "layers": {layer: facts._asdict() for layer, facts in summary.layers.items()},
        "warnings": [*corpus_warnings(config, ready.survey), *warned],
        "documents": sum(counts.documents for counts in ready.survey.counts),
        "passages": int(summary.passages.sum()),
        "tokens": int(summary.tokens.sum()),
        "tokens_read": reading.tokens_read,
        "harvest_seconds": round(reading.seconds, 3),
        "tokens_per_second": round(reading.tokens_read / reading.seconds, 1),
        "harvest": {
            "keys": {layer: file.key for layer, file in reading.files.items()},
            "facts": reading.facts,
            "batches_split": summary.batches_split,
        },
        "peak_memory_bytes": peak_memory_bytes,
        "versions": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
    }


def files(staging: Path) -> list[str]:
    """Names of all files of a result but the record itself."""
    found = (path for path in staging.rglob("*") if path.is_file() and path.name != RECORD_FILE)
    return sorted(str(path.relative_to(staging)) for path in found)


def _lengths(config: RunConfig, summary: HarvestSummary) -> dict[str, object]:
    """Mean countable positions a passage on each side: maxima grow with length."""
    lengths: dict[str, object] = {"max_length": config.max_length}
    for side in Side:
        populations = [2 * side, 2 * side + 1]
        passages = max(1, int(summary.passages[populations].sum()))
        mean = float(summary.countable_positions[populations].sum()) / passages
        lengths[f"mean_{side_name(config.domain, side)}_passage"] = round(mean, 2)
    return lengths


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
