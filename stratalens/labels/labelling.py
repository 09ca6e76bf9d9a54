"""Label the reported features: from the evidence, or by a language model if one is configured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stratalens.config.options import LabelConfig
from stratalens.evidence.collect import CollectedEvidence
from stratalens.evidence.examples import Example, layer_examples
from stratalens.evidence.logit_lens import FeatureLens
from stratalens.evidence.top_tokens import TopToken, top_tokens
from stratalens.files.locations import cache_folder
from stratalens.hookpoint import Hookpoint
from stratalens.labels.by_evidence import label_by_evidence
from stratalens.labels.by_model import LayerPromptInput, label_by_model
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.feature_label import AnnotatedEvidence, FeatureLabel, LayerLabels
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.endpoint import EndpointModel
from stratalens.labels.llm.local import LocalModel
from stratalens.labels.prompts import Prompts
from stratalens.progress import Progress

ANSWERS_FOLDER = "answers"
"""Folder for the answers of labelling models in the user's cache directory."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Labels of the reported features, with the evidence that is published with them.

    The features of a layer are in the order of the evidence.
    """

    annotated_evidence: AnnotatedEvidence
    labels: Mapping[Hookpoint, LayerLabels]
    """Hookpoint -> labels from the discovery half, with their support."""
    scored: Mapping[Hookpoint, list[FeatureLabel]]
    """Hookpoint -> the labels to publish, with their scores."""
    lenses: Mapping[Hookpoint, list[FeatureLens]]
    """Hookpoint -> tokens that each feature promotes and suppresses; see `CollectedEvidence`."""
    examples: Mapping[Hookpoint, list[list[Example]]]
    """Hookpoint -> passages to publish; empty lists if corpus text is to be kept out of files."""
    tokens: Mapping[Hookpoint, list[list[TopToken]]]
    """Hookpoint -> tokens with most of each feature's activation."""


@dataclass(frozen=True)
class Labeller:
    """A language model that labels and judges, and the cache of its answers."""

    judge: LanguageJudge
    model: CachedModel

    def cost(self) -> str:
        """Return one line with the number of requests and tokens used."""
        used = self.model.usage()
        return (
            f"{self.model.name}: {used.requests:,} requests ({used.failed:,} failed), "
            f"{used.prompt_tokens:,} prompt tokens, {used.completion_tokens:,} answer tokens, "
            f"{used.cached:,} answers from the cache"
        )


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
    cached = CachedModel(model, cache_folder(ANSWERS_FOLDER))
    return Labeller(LanguageJudge(cached, prompts), cached)


def label_features(
    config: LabelConfig,
    collected: CollectedEvidence,
    top: Mapping[Hookpoint, pd.DataFrame],
    lexicon: Lexicon,
    labeller: Labeller | None,
    progress: Progress,
    only: Mapping[Hookpoint, Sequence[int]] | None = None,
) -> LabelledFeatures:
    """Label the reported features of all layers and score the labels.

    Args:
        config: how to label.
        collected: evidence and lenses of the features.
        top: hookpoint -> reported features with their `flags`.
        lexicon: concepts for the labels.
        labeller: the language model; None to label from the evidence.
        progress: informed of each step.
        only: hookpoint -> features that the language model is asked about; None for all.
    """
    progress.stage("labels")
    evidence, lenses = collected
    annotated_evidence = AnnotatedEvidence.of(evidence, lexicon, words_only=config.no_examples)
    labels, scored = label_by_evidence(annotated_evidence, top, progress)
    examples = {hookpoint: layer_examples(evidence, hookpoint, annotated_evidence.passage_sets) for hookpoint in top}
    tokens = {hookpoint: top_tokens(evidence, hookpoint) for hookpoint in top}
    if labeller is not None:
        prompt_inputs = {
            hookpoint: LayerPromptInput(
                examples=examples[hookpoint],
                top_tokens=[[token.token for token in feature_tokens] for feature_tokens in tokens[hookpoint]],
                promoted=_promoted(lenses, hookpoint, len(table)),
            )
            for hookpoint, table in top.items()
        }
        scored = label_by_model(
            annotated_evidence,
            prompt_inputs,
            labels,
            scored,
            labeller.judge,
            progress,
            show_text=not config.no_examples,
            only=only,
        )
        progress.say(labeller.cost())
    if config.no_examples:
        examples = {hookpoint: [[] for _ in of_features] for hookpoint, of_features in examples.items()}
    return LabelledFeatures(annotated_evidence, labels, scored, lenses, examples, tokens)


def _promoted(lenses: Mapping[Hookpoint, list[FeatureLens]], hookpoint: Hookpoint, features: int) -> list[list[str]]:
    """Return the tokens that each feature promotes; empty lists without a logit lens."""
    if hookpoint not in lenses:
        return [[] for _ in range(features)]
    return [[token.token for token in lens.promoted] for lens in lenses[hookpoint]]
