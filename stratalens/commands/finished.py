"""What commands on a finished result share: its evidence, read or collected again, and publishing it again."""

from dataclasses import replace

from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.evidence import Evidence, collect_evidence
from stratalens.evidence.collect import CollectedEvidence, summarise_harvest
from stratalens.files.output_dir import WorkDirectories
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.open_model import open_model
from stratalens.labels.labelling import LabelledFeatures
from stratalens.progress import Progress
from stratalens.report import publish
from stratalens.report.evidence_file import EVIDENCE_FILE, read_lenses
from stratalens.report.publish import with_labels, write_record, write_result_page
from stratalens.report.run_record import recorded_settings, shown_settings
from stratalens.report.saved import EVIDENCE_FOLDER, Findings, Result


def load_evidence(result: Result) -> CollectedEvidence | None:
    """The evidence kept with the result; None where it was made without examples."""
    folder = result.output_dir / EVIDENCE_FOLDER
    layers = list(result.findings.top)
    if not all((folder / f"layer_{layer}.npz").is_file() for layer in layers):
        return None
    evidence = Evidence.load(folder, layers)
    found = {
        layer: read_lenses(result.output_dir / f"layer_{layer}" / EVIDENCE_FILE, one.features.tolist())
        for layer, one in evidence.layers.items()
    }
    lenses = {layer: one for layer, one in found.items() if one is not None}
    return CollectedEvidence(evidence, lenses if len(lenses) == len(layers) else None)


def collect_again(result: Result, config: RunConfig, findings: Findings, progress: Progress) -> CollectedEvidence:
    """Read the text and run the model again, over the passages that evidence takes.

    Raises:
        ConfigError: text or model are not what the result was made from.
    """
    layers = tuple(str(layer) for layer in sorted(findings.top))
    config = config.model_copy(update={"layers": layers, "features": None})
    inputs = find_inputs(config, progress)
    if f"{inputs.survey.digest:016x}" != result.record["corpus"]["digest"]:
        raise ConfigError(f"{result.output_dir}: its text has changed since; run the analysis again")
    if inputs.source.digest != result.record["model"]["digest"]:
        raise ConfigError(f"{result.output_dir}: its model has changed since; run the analysis again")
    opened = open_model(config, inputs, progress)
    fvu = {layer: facts.fvu for layer, facts in findings.facts.items()}
    _, locations = summarise_harvest(result.harvest, fvu, findings.features)
    return collect_evidence(config, inputs, opened, findings.features, locations, progress)


def publish_again(
    result: Result,
    config: RunConfig,
    findings: Findings,
    labelled: LabelledFeatures,
    evidence: Evidence,
    work: WorkDirectories,
) -> Result:
    """Write the files of a finished result anew, with the evidence to keep; its harvest stays."""
    hookpoints = {int(layer): sae["hookpoint"] for layer, sae in result.record["saes"].items()}
    settings = shown_settings(config, result.record["model"]["name"])
    findings = with_labels(findings, labelled)
    tables = publish(config, findings, labelled, evidence, hookpoints, settings, work.staging)
    record = result.record | {"settings": recorded_settings(config)}
    write_result_page(tables, record, result.harvest, work.staging, work.staging)
    record = write_record(record, result.harvest, work.staging)
    return replace(result, config=config, record=record, findings=findings)
