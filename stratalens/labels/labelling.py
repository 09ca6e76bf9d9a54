"""Label the reported features: from the evidence, or by a language model if one is configured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd

from stratalens.config.result_options import LabelConfig
from stratalens.corpus import Half
from stratalens.errors import LabelingError, OutputError, counted
from stratalens.evidence import Evidence
from stratalens.evidence.collect import CollectedEvidence
from stratalens.evidence.examples import layer_examples
from stratalens.evidence.similarity import PassageSet, passage_sets
from stratalens.evidence.top_tokens import top_tokens
from stratalens.files.locations import cache_folder
from stratalens.hookpoint import Hookpoint
from stratalens.labels.by_evidence import label_by_evidence
from stratalens.labels.by_model import label_by_model
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.evidence_labels import Support
from stratalens.labels.feature_label import EVIDENCE, AnnotatedEvidence, FeatureLabel, LayerLabels
from stratalens.labels.feature_report import FeatureReport, Reports
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.lexicon_shares import with_lexicon_shares
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.endpoint import EndpointModel
from stratalens.labels.llm.local import LocalModel
from stratalens.labels.prompts import Prompts
from stratalens.optional_parts import LABELLING_MODEL, LABELS, OptionalParts
from stratalens.progress import Progress

ANSWERS_FOLDER = "answers"
"""Folder for the answers of labelling models in the user's cache directory."""
NOT_LABELLED = "Not labelled"
"""Label of every feature where labelling from the evidence failed."""


@dataclass(frozen=True)
class Labeller:
    """A language model that labels and judges, and the cache of its answers."""

    judge: LanguageJudge
    model: CachedModel

    def cost(self) -> str:
        """Return one line with the number of requests and tokens used."""
        used = self.model.usage()
        return (
            f"{self.model.name}: {counted(used.requests, 'request')} ({used.failed:,} failed), "
            f"{counted(used.prompt_tokens, 'prompt token')}, {counted(used.completion_tokens, 'answer token')}, "
            f"{counted(used.cached, 'answer')} from the cache"
        )

    def require_answers(self) -> None:
        """Check that requests were answered, if there were any.

        Raises:
            LabelingError: none was.
        """
        if self.judge.silence:
            raise LabelingError(f"the labelling model answered no request ({self.judge.name}: {self.judge.silence})")


def open_labeller(config: LabelConfig, progress: Progress) -> Labeller | None:
    """Open the language model that labels, and check that it answers; None if labels come from the evidence alone.

    Raises:
        LabelingError: the model cannot be used.
        ConfigError: the prompt templates cannot be used.
    """
    prompts = Prompts(config.prompts)
    if config.labeling_endpoint is not None:
        model = EndpointModel(
            config.labeling_endpoint,
            config.labeling_model,
            concurrency=config.labeling_concurrency,
            timeout_seconds=config.labeling_timeout,
        )
        if model.exposes_key:
            progress.disclose(
                f"the API key goes to {model.address} unencrypted; use https, or a tunnel to this machine"
            )
    elif config.labeling_model is not None:
        model = LocalModel(config.labeling_model)
    else:
        return None
    with progress.track("Checking the labelling model", None):
        model.check()
    if isinstance(model, EndpointModel):
        sent = "tokens of the corpus, no sentences," if config.no_examples else "sentences of the corpus"
        progress.disclose(f"{sent} will be sent to {model.address}")
    identity = model.identity if isinstance(model, EndpointModel) else ""
    cached = CachedModel(model, cache_folder(ANSWERS_FOLDER), identity)
    return Labeller(LanguageJudge(cached, prompts, config.labeling_max_tokens), cached)


class LabelSources(NamedTuple):
    """What labels are made of."""

    lexicon: Lexicon
    labeller: Labeller | None = None
    """The language model; None to label from the evidence alone."""


def label_features(
    config: LabelConfig,
    collected: CollectedEvidence,
    top: Mapping[Hookpoint, pd.DataFrame],
    sources: LabelSources,
    parts: OptionalParts,
    only: Mapping[Hookpoint, Sequence[int]] | None = None,
) -> Reports:
    """Label the reported features of all layers and score the labels.

    Args:
        config: how to label.
        collected: evidence and lenses of the features.
        top: hookpoint -> reported features in the columns of the ranking.
        sources: lexicon and language model.
        parts: its progress is informed of each step; labels from the evidence and those by the model are optional.
        only: hookpoint -> features that the language model is asked about; None for all.

    Raises:
        Exception: labels cannot be made and are required by `parts`.
    """
    progress, evidence = parts.progress, collected.evidence
    progress.stage("labels")
    annotated, labels = None, {}
    with parts.part(LABELS):
        annotated = AnnotatedEvidence.of(evidence, sources.lexicon, words_only=config.no_examples)
        labels = label_by_evidence(annotated, top, progress)
    labels = labels or _without_labels(evidence, f"left out ({parts.missing.get(LABELS)})")
    sets = passage_sets(evidence.passages) if annotated is None else annotated.passage_sets
    reports = {place: _reports(collected, sets, place, top[place], of_layer) for place, of_layer in labels.items()}
    if annotated is not None:
        reports = with_lexicon_shares(reports, annotated)
    if sources.labeller is not None:
        judge, show_text = sources.labeller.judge, not config.no_examples
        with parts.part(LABELLING_MODEL):
            if annotated is None:
                raise LabelingError("its labels cannot be scored without the terms in the passages")
            with _as_labelling_error():
                by_model = label_by_model(annotated, reports, judge, progress, show_text=show_text, only=only)
            sources.labeller.require_answers()
            reports = by_model
        progress.say(sources.labeller.cost())
    if config.no_examples:
        reports = {place: [replace(report, examples=[]) for report in own] for place, own in reports.items()}
    return reports


@contextmanager
def _as_labelling_error() -> Iterator[None]:
    """Tell a failure of the cache of answers, on a disk of its own, from one of the disk of the result."""
    try:
        yield
    except OutputError as problem:
        raise LabelingError(str(problem)) from None


def _without_labels(evidence: Evidence, note: str) -> dict[Hookpoint, LayerLabels]:
    """Give every feature the same plain label, without support or scores."""
    plain, nothing = FeatureLabel(NOT_LABELLED, EVIDENCE, label_note=note), Support([], [])
    counts = {hookpoint: len(layer.features) for hookpoint, layer in evidence.layers.items()}
    return {hookpoint: LayerLabels([], [nothing] * count, [plain] * count) for hookpoint, count in counts.items()}


def _reports(
    collected: CollectedEvidence,
    sets: dict[Half, PassageSet],
    hookpoint: Hookpoint,
    table: pd.DataFrame,
    labels: LayerLabels,
) -> list[FeatureReport]:
    """Join all that is known of the features of one hookpoint, in the order of the evidence."""
    evidence = collected.evidence
    features = evidence.layers[hookpoint].features.tolist()
    rows = {row["feature_number"]: row for row in table.to_dict("records")}
    examples = layer_examples(evidence, hookpoint, sets)
    tokens, lenses = top_tokens(evidence, hookpoint), collected.lenses.get(hookpoint)
    return [
        FeatureReport(
            hookpoint=hookpoint,
            feature=feature,
            statistics=rows[feature],
            label=labels.scored[column],
            support=labels.support[column],
            top_tokens=tokens[column],
            lens=None if lenses is None else lenses[column],
            examples=examples[column],
        )
        for column, feature in enumerate(features)
    ]
