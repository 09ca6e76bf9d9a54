"""The token test of the embedded model: features of single words are told, and masking takes them away."""

import json
import shutil
from pathlib import Path

import pandas as pd

from stratalens.cli.main import main


def top_shares(result: Path) -> dict[tuple[int, int], float]:
    """(layer, feature) -> share of its activation on the tokens that it fires on most."""
    shares = {}
    for path in sorted(result.glob("layer_*/evidence.json")):
        layer = int(path.parent.name.removeprefix("layer_"))
        for feature in json.loads(path.read_text())["features"]:
            shares[layer, feature["feature_number"]] = sum(token["share"] for token in feature["top_tokens"])
    return shares


def test_features_of_few_tokens_are_token_driven(embedded_run, tmp_path, capsys):
    result = Path(shutil.copytree(embedded_run, tmp_path / "results"))
    assert main(["rank", str(result), "--top_n", "2", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["token_test", str(result)]) == 0
    assert "of 10 reported features" in capsys.readouterr().out
    table = pd.read_csv(result / "token_test.csv").set_index(["layer", "feature_number"])
    shares = pd.Series(top_shares(result)).loc[table.index]
    assert table.loc[shares.idxmax(), "token_test"] == "token-driven"
    assert (table.loc[shares > 0.3, "d"] > 0.5).all()
    assert (table["own_d"] > 0.8).all()
    assert (table["own_active_share"] >= 0.5).all()
    assert table["masked_share_kept"].min() < 0.6 < table["masked_share_kept"].max()
