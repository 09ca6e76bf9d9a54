"""Label the reported features: from the evidence, or by a language model where one is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stratalens.config.options import LabelConfig
from stratalens.evidence.collect import CollectedEvidence
from stratalens.evidence.examples import Example, layer_examples
from stratalens.evidence.logit_lens import FeatureLens
from stratalens.evidence.top_tokens import TopToken, top_tokens
from stratalens.files.locations import cache_directory
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

ANSWERS = "answers"
"""Folder of the user's cache for the answers of labelling models."""


@dataclass(frozen=True)
class LabelledFeatures:
    """What the reported features are about, features of a layer in the order of the evidence."""

    text: AnnotatedEvidence
    labels: Mapping[int, LayerLabels]
    """Layer -> what the discovery half supports."""
    scored: Mapping[int, list[FeatureLabel]]
    """Layer -> the labels to publish, with their scores."""
    lenses: Mapping[int, list[FeatureLens]] | None
    examples: Mapping[int, list[list[Example]]]
    """Layer -> passages to show; empty lists where corpus text is to be kept out of files."""
    tokens: Mapping[int, list[list[TopToken]]]


@dataclass(frozen=True)
class Labeller:
    """A language model that labels, with its store of answers."""

    judge: LanguageJudge
    model: CachedModel

    def cost(self) -> str:
        """One line: what was asked."""
        used = self.model.usage()
        return (
            f"{self.model.name}: {used.requests:,} requests ({used.failed:,} failed), "
            f"{used.prompt_tokens:,} prompt tokens, {used.completion_tokens:,} answer tokens, "
            f"{used.cached:,} answers from the cache"
        )


def open_labeller(config: LabelConfig, progress: Progress) -> Labeller | None:
    """The language model that labels, checked with a tiny request; None where the evidence alone does.

    Raises:
        LabelingError: the model cannot be used.
        ConfigError: the prompt templates cannot.
    """
    prompts = Prompts(config.prompts)
    if config.labeling_endpoint is not None:
        model = EndpointModel(
            config.labeling_endpoint,
            config.labeling_model,
            concurrency=config.labeling_concurrency,
            timeout_seconds=config.labeling_timeout,
        )
        what = "tokens of the corpus, no sentences," if config.no_examples else "sentences of the corpus"
        progress.warn(f"{what} will be sent to {model.address}")
    elif config.labeling_model is not None:
        model = LocalModel(config.labeling_model)
    else:
        return None
    with progress.track("Checking the labelling model", None):
        model.check()
    cached = CachedModel(model, cache_directory() / ANSWERS)
    return Labeller(LanguageJudge(cached, prompts), cached)


def label_features(
    config: LabelConfig,
    collected: CollectedEvidence,
    top: Mapping[int, pd.DataFrame],
    lexicon: Lexicon,
    labeller: Labeller | None,
    progress: Progress,
    only: Mapping[int, Sequence[int]] | None = None,
) -> LabelledFeatures:
    """Label the reported features of all layers and score the labels.

    Args:
        config: how to label.
        collected: evidence and lenses of the features.
        top: layer -> reported features with their `flags`.
        lexicon: concepts for the labels.
        labeller: the language model, if any.
        progress: is told how it gets on.
        only: layer -> features that the language model is asked about; None for all.
    """
    progress.stage("labels")
    evidence, lenses = collected
    text = AnnotatedEvidence.of(evidence, lexicon, words_only=config.no_examples)
    labels, scored = label_by_evidence(text, top, progress)
    examples = {layer: layer_examples(evidence, layer, text.sets) for layer in top}
    tokens = {layer: top_tokens(evidence, layer) for layer in top}
    if labeller is not None:
        told = {
            layer: LayerPromptInput(
                examples=examples[layer],
                top_tokens=[[one.token for one in some] for some in tokens[layer]],
                promoted=_promoted(lenses, layer, len(table)),
            )
            for layer, table in top.items()
        }
        scored = label_by_model(
            text, told, labels, scored, labeller.judge, progress, show_text=not config.no_examples, only=only
        )
        progress.say(labeller.cost())
    if config.no_examples:
        examples = {layer: [[] for _ in some] for layer, some in examples.items()}
    return LabelledFeatures(text, labels, scored, lenses, examples, tokens)


def _promoted(lenses: Mapping[int, list[FeatureLens]] | None, layer: int, features: int) -> list[list[str]]:
    """Of each feature the tokens that it promotes; none where the head is unknown."""
    if lenses is None:
        return [[] for _ in range(features)]
    return [[one.token for one in lens.promoted] for lens in lenses[layer]]
