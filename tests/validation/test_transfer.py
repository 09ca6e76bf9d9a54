"""Scores of features on other text: planted effects are found, null ones are not, and verdicts follow from numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.populations import Population
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import contrast
from stratalens.validation.transfer import (
    TransferScore,
    add_scores,
    claim_passed,
    estimates_elsewhere,
    keep_validations,
    rank_correlation,
    scores_of,
    transfer_scores,
    transfers_text,
    with_validations,
)

LATENTS = 40
SHIFTS = np.array([2.0] * 5 + [0.0] * 20 + [-2.0] * 5 + [0.0] * 10)
"""Planted difference of the sides, in standard deviations; the last ten latents never fire."""
LAYERS = [Hookpoint.at(block, "resid") for block in (4, 10)]


def planted(seed: int, documents: int = 60, strata: int = 1) -> DocumentMatrix:
    """Documents of both sides, all in the discovery half."""
    rng = np.random.default_rng(seed)
    populations, values = [], []
    for stratum in range(strata):
        for side in Side:
            own = 5 + 3 * stratum + rng.normal(size=(documents, LATENTS)) + SHIFTS * (side == Side.DOMAIN)
            values.append(np.maximum(0, own))
            populations += [Population(side, Half.DISCOVERY, stratum).number] * documents
    dense = np.concatenate(values)
    dense[:, -10:] = 0
    count = len(dense)
    return DocumentMatrix(
        document=np.arange(count, dtype=np.uint64),
        population=np.array(populations),
        passages=rng.integers(1, 4, count),
        positions=np.full(count, 50),
        values=sparse.csc_array(dense),
        residual=np.zeros((count, 4)),
    )


def reported(features: list[int], specialization: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"feature_number": features, "specialization": specialization})


def test_planted_features_transfer_and_others_do_not():
    features = list(range(LATENTS))
    measured = {layer: estimates_elsewhere(planted(layer.block), Populations(), features) for layer in LAYERS}
    scores = transfer_scores("news", measured, {layer: reported(features) for layer in LAYERS})
    for own in scores.values():
        assert [number for number, score in own.items() if score.transfers] == [0, 1, 2, 3, 4]
        assert all(own[number].auroc < 0.2 for number in range(25, 30))
        for number in range(30, 40):
            assert (own[number].auroc, own[number].p_value, own[number].effect) == (0.5, 1, 0)
    p = np.concatenate([own["p_value"] for own in measured.values()])
    q = [score.q_value for own in scores.values() for score in own.values()]
    np.testing.assert_allclose(q, contrast.q_values(p))


def test_a_sign_that_differs_from_that_of_the_result_fails():
    measured = {LAYERS[0]: estimates_elsewhere(planted(1), Populations(), [0, 1])}
    scores = transfer_scores("news", measured, {LAYERS[0]: reported([0, 1], -1.0)})
    assert not any(score.transfers for score in scores[LAYERS[0]].values())


def test_documents_are_compared_within_kinds():
    """A shift that the kinds alone make is none within them."""
    two = planted(3, documents=40, strata=2)
    populations = Populations(("letter", "news"))
    within = estimates_elsewhere(two, populations, [0, 10])
    x = two.population == Population(Side.DOMAIN, Half.DISCOVERY, 0).number
    y = two.population == Population(Side.GENERAL, Half.DISCOVERY, 0).number
    dense = two.values.toarray()
    plain = stats.mannwhitneyu(dense[x][:, 0], dense[y][:, 0]).statistic / 1600
    other = stats.mannwhitneyu(
        *(dense[two.population == Population(side, Half.DISCOVERY, 1).number][:, 0] for side in Side)
    )
    assert within["auroc"][0] == pytest.approx((plain + other.statistic / 1600) / 2)
    assert within["auroc_low"][1] < 0.5 < within["auroc_high"][1]


def test_the_effect_is_the_difference_of_passage_means():
    documents = planted(5)
    own = estimates_elsewhere(documents, Populations(), [2])
    dense = documents.values.toarray()[:, 2]
    sides = [documents.population == Population(side, Half.DISCOVERY).number for side in Side]
    means = [np.repeat(dense[side], documents.passages[side]).mean() for side in sides]
    assert own["effect"][0] == pytest.approx(means[0] - means[1])
    assert own["effect_low"][0] < own["effect"][0] < own["effect_high"][0]


def test_rank_correlation():
    aurocs = [0.9, 0.7, 0.8, 0.6, 0.5]
    assert rank_correlation(aurocs) == pytest.approx(stats.spearmanr([5, 4, 3, 2, 1], aurocs).statistic)
    assert rank_correlation(sorted(aurocs, reverse=True)) == pytest.approx(1)
    assert rank_correlation([0.9, 0.7]) is None
    assert rank_correlation([0.5] * 4) is None


def score(name: str, transfers: bool) -> TransferScore:
    return TransferScore(name, 1.0, 0.5, 1.5, 0.8, 0.7, 0.9, 0.001, 0.002, transfers)


def test_the_claim_passes_only_if_every_validation_tested_it_and_it_transfers_in_all():
    good, bad = score("a", True), score("b", False)
    assert transfers_text([good, bad]) == "1 of 2"
    assert transfers_text([]) is None
    assert claim_passed([good], ["a"]) is True
    assert claim_passed([good, bad], ["a", "b"]) is False
    assert claim_passed([good], ["a", "b"]) is False
    assert claim_passed([], ["a", "b"]) is None


def test_scores_are_added_replaced_and_kept():
    layer = LAYERS[0]
    top = with_validations({layer: reported([7, 9])}, {})
    assert top[layer]["transfers"].isna().all()
    top = add_scores(top, "a", {layer: {7: score("a", True), 9: score("a", False)}})
    top = add_scores(top, "b", {layer: {7: score("b", True), 9: score("b", True)}})
    assert top[layer]["transfers"].tolist() == ["2 of 2", "1 of 2"]
    top = add_scores(top, "a", {layer: {7: score("a", False), 9: score("a", False)}})
    assert [own.name for own in scores_of(top[layer]["validations"][0])] == ["b", "a"]
    again = keep_validations({layer: reported([9, 8])}, top)
    assert again[layer]["transfers"].tolist()[0] == "1 of 2"
    assert again[layer]["transfers"].isna().tolist() == [False, True]
    assert scores_of(again[layer]["validations"][1]) == []
