"""Ceilings: how well the sides can be told apart by what the features are made from, or by the words alone.

Every probe is fitted on the documents of the discovery half, of all kinds together, and measured on those of the
confirmation half, within kinds, as a feature is.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.survey import Survey
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.separation import separation

NUMBERS_OF_FEATURES = (1, 5, 30)
"""Of the best reported features, that a probe reads."""
REGULARISATION = 0.01
"""Inverse strength of the penalty of the probe on the hookpoint, as scikit-learn counts it: it has many dimensions."""
WORDS_REGULARISATION = 10.0
"""The same for the bag of words, whose values are small."""
MIN_DOCUMENTS_WITH_WORD = 2
MAX_WORDS = 20_000
MAX_ITERATIONS = 1000
MIN_OF_A_SIDE = 2
"""Fewer documents of a kind have no variance."""


class HeldOutAuroc(NamedTuple):
    """How well a probe tells the sides of documents apart that it was not fitted on."""

    auroc: float
    low: float
    """Lower end of the 95% interval."""
    high: float
    domain_documents: int
    """Documents it was measured on."""
    general_documents: int


class FeatureProbe(NamedTuple):
    """A logistic probe on the best reported features."""

    features: int
    """How many it reads."""
    held_out: HeldOutAuroc


class Ceilings(NamedTuple):
    """Probes at one hookpoint."""

    mean_difference: HeldOutAuroc | None
    """Projection on the difference of the sides' mean residual vectors."""
    logistic_probe: HeldOutAuroc | None
    """Logistic regression on the mean residual vector of each document."""
    best_features: list[FeatureProbe]


class _Split(NamedTuple):
    """Sides, kinds and halves of some documents, a row each."""

    population: Int[np.ndarray, "document"]
    populations: Populations

    @property
    def fitted(self) -> Int[np.ndarray, "fitted"]:
        """Rows of the discovery half."""
        return np.flatnonzero(self.populations.halves[self.population] == Half.DISCOVERY)

    @property
    def is_domain(self) -> np.ndarray:
        """Boolean, of all rows."""
        return self.populations.sides[self.population] == Side.DOMAIN

    def measure(self, scores: Float[np.ndarray, "document"]) -> HeldOutAuroc | None:
        """AUROC of the scores in the confirmation half, within kinds; None where no kind has enough documents."""
        pairs = []
        for stratum in range(len(self.populations.strata)):
            wanted = [self.populations.where(side=side, half=Half.CONFIRMATION, stratum=stratum) for side in Side]
            sides = [scores[np.isin(self.population, own)][:, None] for own in wanted]
            if min(map(len, sides)) >= MIN_OF_A_SIDE:
                pairs.append((sides[0], sides[1]))
        if not pairs:
            return None
        found = separation(pairs)
        auroc, low, high = (float(column[0]) for column in (found.auroc, *found.interval))
        domain, general = (sum(len(pair[side]) for pair in pairs) for side in Side)
        return HeldOutAuroc(auroc, low, high, domain, general)

    @property
    def has_both_sides(self) -> bool:
        """Whether the discovery half has documents of both sides."""
        return len(np.unique(self.is_domain[self.fitted])) == len(Side)


def ceilings(source: RankingInput, features: pd.DataFrame) -> Ceilings:
    """Fit and measure the probes of one hookpoint.

    Args:
        source: its documents.
        features: its reported features; the best ones are those with the highest `discovery_auroc`, because the order
            of the table comes from the confirmation half.
    """
    documents = source.documents
    split = _Split(documents.population, source.populations)
    return Ceilings(
        _mean_difference(documents.residual, split),
        _logistic(documents.residual, split, REGULARISATION),
        feature_probes(source, features),
    )


def feature_probes(source: RankingInput, features: pd.DataFrame) -> list[FeatureProbe]:
    """Fit and measure the probes on the best features of one hookpoint; the arguments are those of `ceilings`."""
    split = _Split(source.documents.population, source.populations)
    ordered = features.sort_values(["discovery_auroc", "feature_number"], ascending=[False, True])
    numbers = ordered["feature_number"].to_numpy()
    counts = list(dict.fromkeys(min(count, len(numbers)) for count in NUMBERS_OF_FEATURES if len(numbers)))
    dense = source.documents.values[:, numbers].toarray()
    probes = [(count, _logistic(dense[:, :count], split, 1.0)) for count in counts]
    return [FeatureProbe(count, held_out) for count, held_out in probes if held_out is not None]


def _mean_difference(values: Float[np.ndarray, "document d_model"], split: _Split) -> HeldOutAuroc | None:
    fitted, domain = values[split.fitted], split.is_domain[split.fitted]
    if not split.has_both_sides:
        return None
    return split.measure(values @ (fitted[domain].mean(0) - fitted[~domain].mean(0)))


def _logistic(values: Float[np.ndarray, "document column"], split: _Split, strength: float) -> HeldOutAuroc | None:
    if not split.has_both_sides:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))
    model.fit(values[split.fitted], split.is_domain[split.fitted])
    return split.measure(np.asarray(model.decision_function(values)))


def words_ceiling(survey: Survey) -> HeldOutAuroc | None:
    """A logistic regression on the words of the sampled texts (TF-IDF), a few hundred documents a side.

    Returns:
        None where it cannot be fitted or measured: too few documents, or none with words that two of them share.
    """
    texts = [text for side in survey.samples for text in side]
    population = survey.populations_of(texts)
    own: dict[int, list[str]] = {}
    of_document: dict[int, int] = {}
    for text, number in zip(texts, population, strict=True):
        own.setdefault(text.document, []).append(text.text)
        of_document[text.document] = number
    split = _Split(np.array(list(of_document.values()), np.int64), survey.populations)
    joined = np.array(["\n".join(parts) for parts in own.values()], dtype=object)
    words = TfidfVectorizer(min_df=MIN_DOCUMENTS_WITH_WORD, max_features=MAX_WORDS, sublinear_tf=True)
    if not split.has_both_sides:
        return None
    try:
        fitted = words.fit_transform(joined[split.fitted])
    except ValueError:  # no word is in two documents
        return None
    model = LogisticRegression(C=WORDS_REGULARISATION, max_iter=MAX_ITERATIONS)
    model.fit(fitted, split.is_domain[split.fitted])
    return split.measure(np.asarray(model.decision_function(words.transform(joined))))
