"""Steps shared by the commands on a finished result: read its evidence or collect it again, publish it again."""

from dataclasses import replace

from stratalens.commands.sources import SOURCES, require_allowed_sources
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.evidence import Evidence, collect_evidence
from stratalens.evidence.collect import CollectedEvidence, summarise_harvest
from stratalens.files.output_dir import WorkDirectories
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.open_model import open_model
from stratalens.optional_parts import LENS, OptionalParts
from stratalens.ranking.estimates import RankingInputs
from stratalens.report import publish
from stratalens.report.evidence_file import EVIDENCE_FILE, read_lenses
from stratalens.report.publish import ResultContent, with_labels, write_record
from stratalens.report.recording import recorded_settings
from stratalens.report.saved import EVIDENCE_FOLDER, Findings, Result


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


def collect_again(result: Result, config: RunConfig, findings: Findings, parts: OptionalParts) -> CollectedEvidence:
    """Collect the evidence of these findings again: run the model over the passages that it is made of.

    Raises:
        ConfigError: the text or the model has changed since the result was made, or must be fetched and
            `allow_fetch` is not set.
    """
    require_allowed_sources(result.output_dir / RECORD_FILE, config, SOURCES, is_record=True)
    inputs = find_inputs(config, parts.progress, findings.top)
    if f"{inputs.survey.digest:016x}" != result.record.corpus.digest:
        raise ConfigError(f"{result.output_dir}: its text has changed since; run the analysis again")
    if inputs.source.digest != result.record.model.digest:
        raise ConfigError(f"{result.output_dir}: its model has changed since; run the analysis again")
    opened = open_model(config, inputs, parts.progress)
    fvu = {hookpoint: facts.fvu for hookpoint, facts in findings.facts.items()}
    _, locations = summarise_harvest(result.harvest, fvu, findings.features, inputs.survey.populations)
    parts.missing.pop(LENS, None)  # what failed in the run is tried again
    return collect_evidence(config, inputs, opened, findings.features, locations, parts)


def ranking_inputs(result: Result) -> RankingInputs:
    """What the features of a result are ranked from: its harvest."""
    norms = {hookpoint: table["decoder_norm"].to_numpy() for hookpoint, table in result.findings.latents.items()}
    return RankingInputs(result.harvest, norms, result.record.populations, result.sources)


def publish_again(result: Result, content: ResultContent, work: WorkDirectories, parts: OptionalParts) -> Result:
    """Rewrite the files of a finished result with new findings, labels and evidence; its harvest stays.

    Args:
        result: as it was before.
        content: the new one, with the findings before they have the new labels, and with the record as it was.
        work: where the files are written.
        parts: figures and page are optional.

    Returns:
        the result with its new options, record and findings.
    """
    findings = with_labels(content.findings, content.reports)
    record = content.record.model_copy(update={"settings": recorded_settings(content.config)})
    record = publish(content._replace(findings=findings, record=record), work.staging, parts)
    record = write_record(record, result.harvest, work.staging)
    return replace(result, recorded=content.config, record=record, findings=findings)
