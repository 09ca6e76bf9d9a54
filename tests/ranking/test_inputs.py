"""Inputs of the ranking: small ones are read once and stay in memory, large ones one layer at a time."""

from stratalens.ranking import estimates
from stratalens.ranking.estimates import RankingInputs
from stratalens.report import load_result


def inputs_of(directory) -> RankingInputs:
    return load_result(directory).ranking_inputs


def test_inputs_stay_in_memory_while_they_are_small_together(result, monkeypatch):
    inputs = inputs_of(result)
    first, *others = inputs
    assert others
    assert all(inputs[place] is inputs[place] for place in inputs)
    assert inputs[first].size > inputs[first].documents.values.nnz * 8
    monkeypatch.setattr(estimates, "MAX_KEPT_BYTES", inputs[first].size)
    limited = inputs_of(result)
    assert limited[first] is limited[first]
    assert limited[others[0]] is not limited[others[0]]
