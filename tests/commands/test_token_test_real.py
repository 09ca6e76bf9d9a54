"""The token test of the embedded model: what it says of features of the domain, and of those that fire everywhere."""

import shutil
from pathlib import Path

import pandas as pd

from stratalens.cli.main import main

KEYS = ["layer", "feature_number"]


def test_features_of_the_domain_and_features_of_any_text_are_told_apart(embedded_run, tmp_path, capsys):
    result = Path(shutil.copytree(embedded_run, tmp_path / "results"))
    assert main(["rank", str(result), "--top_n", "2", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["token_test", str(result)]) == 0
    assert "of 10 reported features" in capsys.readouterr().out
    table = pd.read_csv(result / "token_test.csv").set_index(KEYS)
    features = pd.read_parquet(result / "features.parquet").set_index(KEYS).loc[table.index]
    of_domain = features["domain_density"] > 2 * features["general_density"]
    assert 3 <= of_domain.sum() < len(table)
    assert (table.loc[of_domain, "own_d"] > 3).all()
    assert (table.loc[of_domain, "d"] > 0.5).all()
    assert (table["own_active_share"] >= 0.5).all()
    kept = table["masked_share_kept"]
    assert kept[of_domain].max() < 0.9
    assert kept[of_domain].mean() < kept[~of_domain].mean()
    silent = table["pairs_silent"] / table["pairs_fired"]
    assert silent[of_domain].min() > 0.8 > silent[~of_domain].max()
