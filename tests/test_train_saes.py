"""`scripts/train_saes.py` trains SAEs of any causal language model, which are found again where they were trained."""

import json
from dataclasses import replace

import pytest
import train_saes
from sae_training.recipe import Recipe

from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.models.source import find_model
from stratalens.saes import find_saes

SITES = ("resid", "mlp", "attn")


@pytest.fixture
def recipe(tiny_model, tmp_path) -> Recipe:
    sizes = {"num_latents": 48, "k": 4, "tokens": 6000, "components": 4, "batch_tokens": 512, "epochs": 2}
    return Recipe(output=tmp_path / "my saes", base_model=str(tiny_model), layers=(1, 2), sites=SITES, **sizes)


def test_saes_of_several_sites_are_found_where_they_were_trained_and_explain_something(recipe):
    train_saes.main(recipe)
    config = make_config(base_model=recipe.base_model, sae_model=str(recipe.output), sites=SITES)
    found = find_saes(config, find_model(config))
    assert list(map(str, found)) == ["1", "1_attn", "1_mlp", "2", "2_attn", "2_mlp"]
    record = json.loads((recipe.output / "training.json").read_text())
    assert record["weights"] == {sae.module: sae.digest for sae in found.values()}
    assert record["recipe"]["sites"] == list(SITES)
    for measured in record["held_out"].values():
        assert measured["all"]["fvu"] < 0.8
        assert measured["all"]["l0"] <= recipe.k
    assert not (recipe.output / "README.md").exists()


def test_tokens_in_memory_are_all_read_once_in_an_epoch(recipe):
    _, cutter, model = train_saes.open_model(recipe)
    batches = train_saes.training_batches(recipe, cutter)
    activations = train_saes.Activations(model, recipe.hookpoints)
    stream = activations.shuffled(batches, recipe)
    place = recipe.hookpoints[0]
    epoch = [next(stream)[place]]
    kept = activations.kept
    assert kept > 4000, "all were read for the first batch"
    epoch += [next(stream)[place] for _ in range(kept // recipe.batch_tokens - 1)]
    rows = {tuple(row.tolist()) for vectors in epoch for row in vectors}
    assert kept - recipe.batch_tokens < sum(map(len, epoch)) <= kept
    assert len(rows) > 0.9 * sum(map(len, epoch)), "no row comes twice, but for equal tokens in equal places"
    assert len(list(zip(range(20), stream, strict=False))) == 20
    assert activations.kept == kept, "the model reads nothing again"


def test_a_site_whose_vectors_are_no_output_of_a_module_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"^1_attn_heads: the vectors at this site are not the output of a module"):
        train_saes.main(replace(recipe, sites=("attn_heads",)))


def test_the_shipped_saes_are_not_overwritten_by_others(recipe):
    with pytest.raises(ConfigError, match="name a folder with --output"):
        train_saes.main(replace(recipe, output=Recipe().output))
