"""The column `seed_match`: for the shipped SAEs alone, wherever they lie, with a cosine for each latent."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import stratalens
from stratalens.files.hashing import sha256_of
from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.ranking.rank import Ranking
from stratalens.ranking.seed_match import with_seed_match
from stratalens.saes.seed_match import SEED_MATCH_FILE, seed_match

WEIGHTS = sorted(SAE_DIRECTORY.glob("layers.*/sae.safetensors"))
PLACE = Hookpoint(4)


def ranking(numbers: list[int]) -> Ranking:
    table = pd.DataFrame({"feature_number": numbers})
    return Ranking(top={PLACE: table}, latents={PLACE: pd.DataFrame({"feature_number": range(2304)})}, candidates={})


@pytest.mark.parametrize("path", WEIGHTS, ids=[path.parent.name for path in WEIGHTS])
def test_every_latent_of_the_shipped_saes_has_a_cosine(path):
    cosines = seed_match(sha256_of(path))
    assert cosines is not None
    assert cosines.shape == (len(load_file(path)["W_dec"]),)
    assert ((cosines > 0) & (cosines <= 1)).all()
    assert np.unique(cosines).size > 2000


def test_the_file_holds_nothing_else():
    table = pd.read_parquet(SEED_MATCH_FILE)
    assert list(table) == ["sha256", "latent", "cosine"]
    assert set(table["sha256"]) == {sha256_of(path) for path in WEIGHTS}
    assert not table.duplicated(["sha256", "latent"]).any()


def test_the_column_goes_by_the_weights_and_not_by_the_place(tmp_path):
    copy = shutil.copy(WEIGHTS[0], tmp_path / "sae.safetensors")
    digest = sha256_of(copy)
    found = with_seed_match(ranking([7, 3]), {PLACE: digest})
    expected = seed_match(digest)
    assert expected is not None
    np.testing.assert_array_equal(found.top[PLACE]["seed_match"], expected[[7, 3]])
    np.testing.assert_array_equal(found.latents[PLACE]["seed_match"], expected)
    other = with_seed_match(ranking([7, 3]), {PLACE: "0" * 64})
    assert "seed_match" not in other.top[PLACE]


def test_a_run_of_the_embedded_model_has_the_column(embedded_run):
    result = stratalens.load_result(embedded_run)
    for place, table in result.findings.top.items():
        expected = seed_match(result.record.saes[str(place)].sha256)
        assert expected is not None
        np.testing.assert_allclose(table["seed_match"], expected[table["feature_number"]])
