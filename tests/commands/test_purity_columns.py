"""`top_n_probability` and the lexicon shares through a whole run, and through the commands that write it again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_result import analysed, feature_file, features, other_texts, refused

import stratalens
from stratalens.cli.main import main
from stratalens.labels.feature_report import LexiconShares

pytestmark = pytest.mark.usefixtures("own_environment")

SHARES = list(LexiconShares._fields)
COLUMNS = ["top_n_probability", *SHARES]
PASSAGES = "evidence/passages.parquet"


def purity(result: Path) -> pd.DataFrame:
    return features(result).set_index(["layer", "feature_number"]).loc[:, COLUMNS].sort_index()


def show(result: Path, capsys) -> str:
    layer, number = purity(result).dropna().index[0]
    capsys.readouterr()
    assert main(["show", str(result), str(layer), str(number)]) == 0
    return capsys.readouterr().out


def test_each_feature_has_them_in_tables_card_and_terminal(finished, capsys):
    table = pd.read_csv(finished / "layer_2" / "top_5_features_analysis.csv")
    names = list(table)
    assert names[names.index("discovery_auroc") + 1 :][:4] == [*COLUMNS, "flags"]
    own = purity(finished)
    assert (own["top_n_probability"] > 0).all()
    assert (own["top_n_probability"] <= 1).all()
    assert own[SHARES].notna().any().all()
    assert (own[SHARES].fillna(0) <= 1).all(axis=None)
    assert own["lexicon_share_input"].max() > 0, "the domain's texts are of loans, banks and rates"
    latents = stratalens.load_result(finished).all_features(2)
    assert latents["top_n_probability"].sum() == pytest.approx(5)
    printed = show(finished, capsys)
    assert "Selected again if documents are redrawn" in printed
    assert "Share of activation on lexicon terms" in printed
    assert '"lexicon_share_output":[' in (finished / "report.html").read_text()


def test_the_sampled_passages_are_marked_one_of_each_sampled_text(finished):
    passages = pd.read_parquet(finished / PASSAGES)
    assert passages.loc[passages["sampled"], "content"].is_unique
    assert set(passages.loc[passages["sampled"], "content"]) == set(passages["content"])  # all texts of a small run


def test_they_survive_what_writes_the_result_again(result, finished, tmp_path):
    before = purity(finished)
    for words in (
        ["label", str(result), "--quiet"],
        ["report", str(result)],
        ["rank", str(result), "--quiet"],
        ["validate", str(result), "--name", "other", "--quiet", *other_texts(tmp_path)],
    ):
        assert main(words) == 0
        pd.testing.assert_frame_equal(purity(result), before)


def test_a_feature_that_is_new_has_shares_once_there_is_evidence_on_it(arguments, tmp_path):
    result = analysed(arguments, tmp_path / "out", "--keep_gb", "0")
    before = purity(result)
    assert main(["rank", str(result), "--top_n", "9", "--quiet"]) == 0
    ranked = purity(result)
    new = ranked.index.difference(before.index)
    assert ranked.loc[new, SHARES].isna().all(axis=None)
    assert ranked["top_n_probability"].notna().all()
    pd.testing.assert_frame_equal(ranked.loc[before.index, SHARES], before[SHARES])
    assert main(["label", str(result), "--quiet"]) == 0
    labelled = purity(result)
    assert labelled.loc[new, SHARES].notna().any(axis=None)
    pd.testing.assert_series_equal(labelled["top_n_probability"], ranked["top_n_probability"])


def test_listed_features_have_no_probability_and_another_lexicon_gives_other_shares(arguments, result, tmp_path):
    listed = analysed(arguments, tmp_path / "listed", "--features", feature_file(tmp_path, (0, 1), (2, 2)))
    assert purity(listed)["top_n_probability"].isna().all()
    (tmp_path / "own.yaml").write_text("- concept: Birds\n  terms: [bird, cloud, song]\n")
    before = purity(result)
    assert main(["label", str(result), "--quiet", "--lexicon", str(tmp_path / "own.yaml")]) == 0
    assert not np.allclose(purity(result)[SHARES].fillna(-1), before[SHARES].fillna(-1))


def test_a_result_of_an_earlier_version_is_read_and_has_none_until_it_is_ranked(result, capsys):
    for path in [*result.glob("layer_*/all_features.parquet"), result / "features.parquet"]:
        table = pd.read_parquet(path)
        table.drop(columns=[name for name in COLUMNS if name in table]).to_parquet(path, index=False)
    pd.read_parquet(result / PASSAGES).drop(columns="sampled").to_parquet(result / PASSAGES, index=False)
    assert main(["report", str(result)]) == 0
    first = features(result).iloc[0]
    assert main(["show", str(result), str(first["layer"]), str(first["feature_number"])]) == 0
    assert "Selected again" not in capsys.readouterr().out
    assert main(["rank", str(result), "--quiet"]) == 0
    assert purity(result)["top_n_probability"].notna().all()
    assert purity(result)[SHARES].isna().all(axis=None)


def test_what_no_run_writes_is_refused(result, capsys):
    sound = (result / "features.parquet").read_bytes()
    for column in COLUMNS:
        pd.read_parquet(result / "features.parquet").assign(**{column: 1.5}).to_parquet(result / "features.parquet")
        assert f"the column {column} does not hold probabilities" in refused(capsys, "report", str(result))
        (result / "features.parquet").write_bytes(sound)
    pd.read_parquet(result / PASSAGES).assign(sampled="yes").to_parquet(result / PASSAGES, index=False)
    assert "passages.parquet: damaged" in refused(capsys, "label", str(result))
    assert json.loads((result / "run.json").read_text())["files"]
