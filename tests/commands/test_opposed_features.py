"""The list of opposed features through a whole run, and through every command that writes a result again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_result import analysed, feature_file, other_texts

import stratalens
from stratalens.cli.main import main
from stratalens.ranking.opposed import OPPOSED_COLUMNS

pytestmark = pytest.mark.usefixtures("own_environment")

FILES = [f"layer_{layer}/opposed_5_features.csv" for layer in (0, 2)]


def lists(result: Path) -> dict[str, bytes]:
    return {path.relative_to(result).as_posix(): path.read_bytes() for path in result.glob("layer_*/opposed_*")}


def test_each_layer_has_a_list_with_the_numbers_of_the_table_of_all_latents(finished):
    assert sorted(lists(finished)) == FILES
    saved = stratalens.load_result(finished)
    for layer, name in zip((0, 2), FILES, strict=True):
        table = pd.read_csv(finished / name)
        reported = pd.read_csv(finished / f"layer_{layer}" / "top_5_features_analysis.csv")
        labels = ("label", "control_auroc", "transfers", "token_test", "causal", "claims", "top_n_probability")
        expected = [
            own
            for own in reported
            if own not in labels and not own.startswith(("label_", "detection", "fuzz", "lexicon"))
        ]
        assert list(table) == expected
        everything = pd.read_parquet(finished / f"layer_{layer}" / "all_features.parquet").set_index("feature_number")
        assert 0 < len(table) <= 5
        assert table["rank"].tolist() == list(range(1, len(table) + 1))
        for column in set(table) - {*OPPOSED_COLUMNS.values(), "feature_number", "flags", "site"}:
            np.testing.assert_allclose(table[column], everything.loc[table["feature_number"], column], rtol=1e-6)
        assert (table["discovery_specialization"] < 0).all()
        assert not set(table["feature_number"]) & set(reported["feature_number"])
        assert saved.opposed_features(layer)["feature_number"].tolist() == table["feature_number"].tolist()
        count = (
            f"{len(table)} features fire less on financial text, {table['confirmed'].sum()} of them confirmed: {name}"
        )
        assert count in (finished / "report.html").read_text()
    assert set(FILES) <= set(saved.record.files)


def test_show_tells_that_a_feature_fires_less_on_the_domain(finished, capsys):
    first = stratalens.load_result(finished).opposed_features(2).iloc[0]
    assert main(["show", str(finished), "2", str(first["feature_number"])]) == 0
    verdict = "confirmed" if first["confirmed"] else "not confirmed"
    assert f"It fires less on financial text: rank 1 of those that do, {verdict}" in capsys.readouterr().out


def test_ranking_again_writes_the_list_of_the_new_options(result, finished):
    assert main(["rank", str(result), "--quiet"]) == 0
    assert lists(result) == lists(finished)
    assert main(["rank", str(result), "--top_n", "3", "--rank_by", "auroc", "--quiet"]) == 0
    assert sorted(lists(result)) == ["layer_0/opposed_3_features.csv", "layer_2/opposed_3_features.csv"]
    table = stratalens.load_result(result).opposed_features(2)
    assert table["auroc"].is_monotonic_increasing
    assert len(table) == 3


def test_the_list_survives_what_writes_the_result_again(result, finished, tmp_path):
    added = int(stratalens.load_result(result).all_features(0).query("live & ~selected")["feature_number"].iloc[0])
    for words in (
        ["label", str(result), "--quiet"],
        ["label", str(result), "--quiet", "--features", feature_file(tmp_path, (0, added))],
        ["report", str(result)],
        ["validate", str(result), "--name", "other", "--quiet", *other_texts(tmp_path)],
    ):
        assert main(words) == 0
        assert lists(result) == lists(finished)
        assert set(FILES) <= set(stratalens.load_result(result).record.files)
        assert FILES[0] in (result / "report.html").read_text()


def test_a_list_of_features_to_report_changes_nothing(arguments, finished, tmp_path):
    own = analysed(arguments, tmp_path / "listed", "--features", feature_file(tmp_path, (0, 1), (2, 2)))
    assert {name: pd.read_csv(own / name)["feature_number"].tolist() for name in FILES} == {
        name: pd.read_csv(finished / name)["feature_number"].tolist() for name in FILES
    }


def test_a_result_of_an_earlier_version_has_none_until_it_is_ranked(result, finished):
    for path in result.glob("layer_*/all_features.parquet"):
        pd.read_parquet(path).drop(columns=list(OPPOSED_COLUMNS)).to_parquet(path, index=False)
    record = json.loads((result / "run.json").read_text())
    record["files"] = [name for name in record["files"] if name not in FILES]
    (result / "run.json").write_text(json.dumps(record))
    for name in FILES:
        (result / name).unlink()
    for command in ("report", "label"):
        assert main([command, str(result)]) == 0
        assert lists(result) == {}
        assert "opposed_" not in (result / "report.html").read_text()
    with pytest.raises(KeyError):
        stratalens.load_result(result).opposed_features(0)
    assert main(["rank", str(result), "--quiet"]) == 0
    assert lists(result) == lists(finished)
