"""Whether the two sides are of the same kinds of text: can a classifier tell them apart without their subject?

It sees how often function words and punctuation marks occur, how long a text is and how many digits it has. Words about
number, place and time are left out of the function words: they are part of what a text is about.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stratalens.corpus.text_sample import SampledText
from stratalens.corpus.words import FUNCTION_WORDS

MAX_AUROC = 0.75
"""Sides that are told apart better than this are of different kinds."""
MAX_P = 1e-3
FOLDS = 5
REGULARISATION = 0.03
"""Inverse strength of the classifier's penalty, as scikit-learn counts it."""
NUMBER_PLACE_AND_TIME = frozenset(
    [
        *(
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "fifteen",
            "twenty",
        ),
        *(
            "forty",
            "fifty",
            "sixty",
            "hundred",
            "first",
            "third",
            "few",
            "last",
            "least",
            "less",
            "more",
            "most",
            "much",
        ),
        *(
            "many",
            "several",
            "next",
            "former",
            "latter",
            "due",
            "above",
            "across",
            "along",
            "among",
            "amongst",
            "around",
        ),
        *("back", "behind", "below", "beneath", "beside", "besides", "between", "beyond", "down", "up", "off", "out"),
        *("over", "onto", "toward", "towards", "through", "throughout", "under", "upon", "within", "inside", "here"),
        *(
            "there",
            "where",
            "wherever",
            "somewhere",
            "anywhere",
            "everywhere",
            "nowhere",
            "whence",
            "whereas",
            "thence",
        ),
        *("whither", "hence", "further", "formerly", "latterly", "again", "already", "always", "often", "sometimes"),
        *("sometime", "once", "ever", "never", "now", "then", "since", "until", "till", "while", "whilst", "during"),
        *("before", "after", "afterwards", "beforehand", "meanwhile", "get", "go", "put", "see", "seem", "seems"),
        *("seemed", "seeming", "become", "becomes", "became", "becoming", "found", "done", "cannot", "everyone"),
        *("someone", "anyone", "nobody", "everything", "something", "nothing", "anything"),
    ]
)
_WORDS = sorted(FUNCTION_WORDS - NUMBER_PLACE_AND_TIME)
_MARKS = tuple(".,;:!?-–—()[]\"'“”‘’/*#&\n")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Likeness(NamedTuple):
    """How well the sides are told apart by form alone."""

    auroc: float
    """Cross-validated AUROC, within kinds of text where there are several; 0.5 for sides of the same form."""
    p: float
    """One-sided p-value that it is above 0.5, by Mann and Whitney's test of all documents."""

    @property
    def differs(self) -> bool:
        """Whether the sides are of different kinds of text."""
        return self.auroc > MAX_AUROC and self.p < MAX_P


def likeness(
    sides: tuple[Sequence[SampledText], Sequence[SampledText]], kinds: tuple[Sequence[int], Sequence[int]]
) -> Likeness | None:
    """Train the classifier on parts of the texts and let it judge the rest.

    Texts of one document are always in the same part.

    Args:
        sides: sampled texts of each side.
        kinds: for each text a number of its kind.

    Returns:
        How well it tells the sides apart; None if there are too few documents.
    """
    texts = [*sides[0], *sides[1]]
    is_domain = np.repeat([1, 0], [len(side) for side in sides])
    document = np.array([text.document for text in texts], np.uint64)
    if min((len(np.unique(document[is_domain == side])) for side in (0, 1)), default=0) < FOLDS:
        return None
    features = np.stack([_features(text.text) for text in texts])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=2000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, features, is_domain, groups=document, cv=folds, method="decision_function")
    kind = np.concatenate([np.asarray(own, np.int64) for own in kinds])
    p = scipy.stats.mannwhitneyu(scores[is_domain == 1], scores[is_domain == 0], alternative="greater").pvalue
    return Likeness(_auroc_within(kind, is_domain, np.asarray(scores)), float(p))


def _auroc_within(kind: Int[np.ndarray, "text"], is_domain: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC of the kinds, weighted as the AUROC of a latent is."""
    weights, values = [], []
    for own in (kind == number for number in np.unique(kind)):
        n = int(is_domain[own].sum())
        m = int(own.sum()) - n
        if n and m:
            weights.append(n * m / (n + m))
            values.append(roc_auc_score(is_domain[own], scores[own]))
    return float(np.average(values, weights=weights)) if values else 0.5


def _features(text: str) -> Float[np.ndarray, "feature"]:
    """Frequencies, as square roots, which stabilises their variance, and the logarithm of the length."""
    words = Counter(word.lower().replace("’", "'") for word in _WORD.findall(text))
    length = max(1, len(text.split()))
    counts = [words[word] for word in _WORDS]
    counts += [text.count(mark) for mark in _MARKS]
    counts += [sum(map(str.isdigit, text)), len(_NUMBER.findall(text))]
    return np.array([*np.sqrt(np.array(counts) / length), np.log(length)])
