"""Preferences and shares of activation agree with scipy, scikit-learn and plain loops."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from stratalens.labels.concepts.associations import activation_shares, preference

SEGMENTS, CANDIDATES, FEATURES = 120, 7, 4


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which segments hold which candidates, and activations with many ties; the last feature never fires."""
    rng = np.random.default_rng(seed)
    holds = (rng.random((SEGMENTS, CANDIDATES)) < np.linspace(0.02, 0.9, CANDIDATES)).astype(float)
    activation = np.maximum(np.round(rng.normal(size=(SEGMENTS, FEATURES)) + holds[:, :FEATURES], 1), 0)
    activation[:, -1] = 0
    return holds, activation


@pytest.mark.parametrize("seed", range(3))
def test_preference_is_the_area_under_the_curve_of_scikit_learn(seed):
    holds, activation = random_case(seed)
    found = preference(sparse.csr_array(holds), activation)
    assert found.segments.tolist() == holds.sum(0).tolist()
    for c in range(CANDIDATES):
        for f in range(FEATURES):
            assert found.auroc[c, f] == pytest.approx(roc_auc_score(holds[:, c], activation[:, f]))


@pytest.mark.parametrize("seed", range(3))
def test_the_lower_bound_is_three_standard_errors_of_the_rank_sum_test_of_scipy(seed):
    holds, activation = random_case(seed)
    found = preference(sparse.csr_array(holds), activation)
    checked = 0
    for c in range(CANDIDATES):
        inside = holds[:, c] > 0
        for f in range(FEATURES - 1):
            x, y = activation[inside, f], activation[~inside, f]
            test = stats.mannwhitneyu(x, y, alternative="greater", method="asymptotic", use_continuity=False)
            pairs = len(x) * len(y)
            assert found.auroc[c, f] == pytest.approx(test.statistic / pairs)
            z = (found.auroc[c, f] - 0.5) * 3 / (found.auroc[c, f] - found.lower[c, f])
            assert stats.norm.sf(z) == pytest.approx(test.pvalue, rel=1e-6)
            checked += abs(z) > 1
    assert checked > 3, "differences are among the cases"


def test_a_candidate_in_no_or_every_sentence_and_a_silent_feature_are_not_preferred():
    _, activation = random_case(0)
    holds = np.zeros((SEGMENTS, 3))
    holds[:, 1] = 1
    holds[::2, 2] = 1
    found = preference(sparse.csr_array(holds), activation)
    assert (found.auroc[:2] == 0.5).all()
    assert found.auroc[2, -1] == 0.5
    assert np.isfinite(found.lower).all()
    assert (found.lower <= found.auroc).all()


def test_shares_of_activation_agree_with_a_loop():
    rng = np.random.default_rng(0)
    covers = (rng.random((SEGMENTS, CANDIDATES)) < 0.2).astype(float)
    covers[:, 3] = 0
    _, activation = random_case(1)
    units = np.flatnonzero(rng.random(SEGMENTS) < 0.5)
    found = activation_shares(sparse.csr_array(covers), activation.astype(np.float32), units)
    for c in range(CANDIDATES):
        own = [u for u in units if covers[u, c]]
        assert found.base[c] == pytest.approx(len(own) / len(units))
        for f in range(FEATURES):
            total = sum(activation[u, f] for u in units)
            share = sum(activation[u, f] for u in own) / total if total else 0
            fires = sum(activation[u, f] > 0 for u in own) / len(own) if own else 0
            assert found.share[c, f] == pytest.approx(share, rel=1e-5)
            assert found.fires[c, f] == pytest.approx(fires)
            assert found.lift[c, f] == pytest.approx(share / (len(own) / len(units) + 0.003), rel=1e-5)


def test_all_units_of_a_form_that_takes_all_activation_have_all_of_it():
    covers = np.zeros((10, 2))
    covers[:2, 0] = 1
    activation = covers[:, :1] * 3.0
    found = activation_shares(sparse.csr_array(covers), activation, np.arange(10))
    assert found.share[:, 0].tolist() == [1, 0]
    assert found.fires[:, 0].tolist() == [1, 0]
    assert found.lift[0, 0] == pytest.approx(1 / 0.203)
