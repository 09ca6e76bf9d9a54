"""In transformers of which it is known what each latent does, verdicts are right: measured as on a real model."""

import math

import numpy as np
import pytest
import torch
from made_changes import shuffled_sides
from planted_changes import feature_changes, layer_changes
from planted_model import CARRIER, DECOY, DOMAIN_TOKENS, EVERYWHERE, PLACE, PlantedModel, planted_model

from stratalens.effects.changes import EffectDocuments, FeatureChanges
from stratalens.effects.feature_effects import FeatureEffect, feature_effects, is_causal
from stratalens.effects.layer_effects import layer_effects
from stratalens.hookpoint import Hookpoint

SEEDS = 100
LAYER_SEEDS = 10
SHUFFLES = 3
ABLATED = (CARRIER, DECOY, EVERYWHERE)
MEASURED = tuple[EffectDocuments, list[FeatureChanges]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured(one_thread) -> list[MEASURED]:
    """Documents and changes of the model of each seed."""
    planted = map(planted_model, range(SEEDS))
    return [(one.text.documents, feature_changes(one, ABLATED)) for one in planted]


@pytest.fixture(scope="module")
def effects(measured) -> list[dict[int, FeatureEffect]]:
    return [feature_effects(documents, {PLACE: changes})[PLACE] for documents, changes in measured]


def test_the_carrier_moves_the_domain(effects):
    assert sum(is_causal(one[CARRIER]) for one in effects) >= 90


def test_a_latent_that_fires_on_the_domain_and_does_nothing_does_not_move_it(effects):
    """Its vectors are as long as the carrier's, on the same tokens."""
    assert all(one[DECOY].domain_documents_fired == one[CARRIER].domain_documents_fired for one in effects)
    norm, other = (np.mean([one[latent].domain_norm for one in effects]) for latent in (DECOY, CARRIER))
    assert norm == pytest.approx(other, rel=0.1)
    assert sum(is_causal(one[DECOY]) for one in effects) <= 8
    assert sum(one[DECOY].verdict == "no measurable effect" for one in effects) >= 90


def test_what_both_sides_need_moves_everything(effects):
    """In some models the head happens to need it more on one side."""
    assert sum(one[EVERYWHERE].verdict == "moves everything" for one in effects) >= 75


def test_under_shuffled_sides_there_are_no_discoveries(measured):
    """Features do something, but no more on one side than on the other."""
    wrong, runs = 0, SEEDS * SHUFFLES
    for seed, (documents, changes) in enumerate(measured):
        rng = np.random.default_rng(seed)
        for _ in range(SHUFFLES):
            found = feature_effects(shuffled_sides(rng, documents), {PLACE: changes})[PLACE]
            wrong += any(map(is_causal, found.values()))
    assert wrong / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs), wrong


def test_only_a_layer_whose_feature_is_the_carrier_is_what_the_domain_needs():
    """Each latent is the matched control of the other."""
    found = {CARRIER: 0, DECOY: 0}
    for seed in range(LAYER_SEEDS):
        planted = planted_model(seed)
        layers = {Hookpoint(latent): layer_changes(planted, latent) for latent in found}
        for place, effect in layer_effects(planted.text.documents, layers, seed).items():
            assert effect.matched is not None
            found[place.block] += effect.verdict == "the domain loses more"
    assert found[CARRIER] >= 8, found
    assert found[DECOY] <= 1, found


@pytest.fixture(scope="module")
def planted() -> PlantedModel:
    return planted_model(SEEDS)


def test_the_decoy_is_written_and_read_nowhere_after_the_embeddings(planted):
    decoy = planted.probe.sae.decoder.weight[DECOY]
    for name, weight in planted.model.named_parameters():
        if "norm" in name or "embed" in name:
            continue
        side = weight.T if "o_proj" in name or "down_proj" in name else weight
        assert (side @ decoy).abs().max() < 1e-5, name


def test_the_model_writes_more_of_the_domain_on_its_side(planted):
    ids = np.stack([one.token_ids for one in planted.text.passages])[:, 2:]
    share = ((ids >= 1) & (ids <= DOMAIN_TOKENS)).mean(1)
    domain = planted.text.documents.domain[planted.text.document]
    assert share[domain].mean() > 3 * share[~domain].mean() > 0
