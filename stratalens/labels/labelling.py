"""What the reported features are about: evidence from a second pass, the logit lens, labels and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stratalens.config import LabelConfig
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.examples import ShownPassage, shown_passages
from stratalens.evidence.logit_lens import TokenLens
from stratalens.labels.by_evidence import label_by_evidence
from stratalens.labels.by_model import LayerMaterial, label_by_model
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.feature_label import FeatureLabel, LabelledText, LayerLabels
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.endpoint import EndpointModel
from stratalens.labels.llm.local import LocalModel
from stratalens.labels.prompts import Prompts
from stratalens.models.embedded import cache_directory
from stratalens.progress import Listener
from stratalens.report.evidence_file import TopToken, top_tokens

ANSWERS = "answers"
"""Folder of the user's cache for the answers of labelling models."""


@dataclass(frozen=True)
class Meaning:
    """What the reported features are about, features of a layer in the order of the evidence."""

    text: LabelledText
    labels: Mapping[int, LayerLabels]
    """Layer -> what the discovery half supports."""
    scored: Mapping[int, list[FeatureLabel]]
    """Layer -> the labels to publish, with their scores."""
    lenses: Mapping[int, list[TokenLens]] | None
    shown: Mapping[int, list[list[ShownPassage]]]
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


def open_labeller(config: LabelConfig, listener: Listener) -> Labeller | None:
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
        listener.warn(f"{what} will be sent to {model.address}")
    elif config.labeling_model is not None:
        model = LocalModel(config.labeling_model)
    else:
        return None
    with listener.track("Checking the labelling model", None):
        model.check()
    cached = CachedModel(model, cache_directory() / ANSWERS)
    return Labeller(LanguageJudge(cached, prompts), cached)


def find_meaning(
    config: LabelConfig,
    evidence: Evidence,
    top: Mapping[int, pd.DataFrame],
    lenses: Mapping[int, list[TokenLens]] | None,
    lexicon: Lexicon,
    labeller: Labeller | None,
    listener: Listener,
    only: Mapping[int, Sequence[int]] | None = None,
) -> Meaning:
    """Label the reported features of all layers and score the labels.

    Args:
        config: how to label.
        evidence: of the features.
        top: layer -> reported features with their `flags`.
        lenses: layer -> what the features do to the prediction; None where the head is unknown.
        lexicon: concepts for the labels.
        labeller: the language model, if any.
        listener: hears of the progress.
        only: layer -> features that the language model is asked about; None for all.
    """
    text = LabelledText.of(evidence, lexicon, words_only=config.no_examples)
    promoted = {layer: _promoted(lenses, layer, len(table)) for layer, table in top.items()}
    labels, scored = label_by_evidence(text, top, listener)
    shown = {layer: shown_passages(evidence, layer, text.sets) for layer in top}
    tokens = {layer: top_tokens(evidence, layer) for layer in top}
    if labeller is not None:
        material = {
            layer: LayerMaterial(shown[layer], [[one.token for one in some] for some in tokens[layer]], promoted[layer])
            for layer in top
        }
        scored = label_by_model(
            text, material, labels, scored, labeller.judge, listener, show_text=not config.no_examples, only=only
        )
        listener.say(labeller.cost())
    hidden = {layer: [[] for _ in some] for layer, some in shown.items()}
    return Meaning(text, labels, scored, lenses, hidden if config.no_examples else shown, tokens)


def _promoted(lenses: Mapping[int, list[TokenLens]] | None, layer: int, features: int) -> list[list[str]]:
    """Of each feature the tokens that it promotes; none where the head is unknown."""
    if lenses is None:
        return [[] for _ in range(features)]
    return [[one.token for one in lens.promoted] for lens in lenses[layer]]
