"""Kinds and sources of text through a whole run: tables, files, cards, and ranking again."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusal import with_options

import stratalens
from stratalens.cli.main import main
from stratalens.corpus import Half, Side
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.by_part import parts_of
from stratalens.ranking.separation import separation

KINDS = ("filing", "news")
WORDS = "bank loan rate tide moss fern rail oven clay harp".split()  # noqa: SIM905


def write(path: Path, side: str, kind: str, count: int) -> Path:
    rng = np.random.default_rng([ord(side[0]), len(kind)])
    rows = [
        {
            "id": f"{side}-{kind}-{number}",
            "from": f"paper {number % 3}",
            "text": f"{side} {kind} {' '.join(rng.choice(WORDS, 30 if kind == 'news' else 12))} {rng.integers(10**9)}",
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pairs")
    words = []
    for number, kind in enumerate(KINDS):
        files = [write(folder / f"{side}-{kind}.jsonl", side, kind, 24 + 6 * number) for side in ("domain", "general")]
        words += ["--pair", kind, *map(str, files)]
    return words


def without_text(arguments: list[str]) -> list[str]:
    at = arguments.index("--domain_data")
    return [*arguments[:at], *arguments[at + 4 :]]


@pytest.fixture
def result(tiny_arguments, pairs, tmp_path) -> stratalens.Result:
    assert main(["analyze", "--quiet", *without_text(tiny_arguments), *pairs, "--source_column", "from"]) == 0
    return stratalens.load_result(tmp_path / "out")


def documents_of(result: stratalens.Result, hookpoint: Hookpoint):
    return result.harvest[hookpoint].state(64).documents.matrix(64)


def test_auroc_and_test_are_stratified_and_activations_are_pooled(result):
    populations = result.record.populations
    assert populations.strata == KINDS
    for hookpoint, table in result.findings.latents.items():
        matrix = documents_of(result, hookpoint)
        dense = matrix.values.toarray()
        rows = [
            [
                np.flatnonzero(
                    np.isin(matrix.population, populations.where(side=side, half=Half.CONFIRMATION, stratum=at))
                )
                for side in Side
            ]
            for at in range(2)
        ]
        live = table["live"].to_numpy()
        found = separation([(dense[x][:, live], dense[y][:, live]) for x, y in rows])
        pooled = separation([tuple(dense[np.concatenate(own)][:, live] for own in zip(*rows, strict=True))])
        for column, expected in (
            ("auroc", found.auroc),
            ("auroc_low", found.interval.low),
            ("p_value", found.p_value),
            ("pooled_auroc", pooled.auroc),
        ):
            np.testing.assert_allclose(table.loc[live, column], expected, rtol=1e-12)
        identity = table["domain_activation"] - table["general_activation"]
        np.testing.assert_allclose(table["specialization"], identity, atol=1e-12)


def test_transfer_rank_is_the_order_of_the_half_that_selects(result, tiny_arguments, pairs, tmp_path):
    options = {"output_dir": str(tmp_path / "by_transfer")}
    words = [*with_options(without_text(tiny_arguments), options), *pairs, "--rank_by", "transfer", "--quiet"]
    assert main(["analyze", *words]) == 0
    by_transfer = stratalens.load_result(tmp_path / "by_transfer")
    for hookpoint, table in by_transfer.findings.top.items():
        assert sorted(table["transfer_rank"]) == list(range(1, len(table) + 1))
        everything = result.findings.latents[hookpoint]
        assert everything["transfer_rank"].notna().equals(everything["live"])
        assert sorted(everything["transfer_rank"].dropna()) == list(range(1, everything["live"].sum() + 1))


def test_kinds_and_sources_stand_beside_each_feature(result, capsys):
    table = pd.read_parquet(result.output_dir / "features.parquet")
    first = table.iloc[0]
    kinds, sources = parts_of(first["auroc_by_kind"]), parts_of(first["auroc_by_source"])
    assert [part.name for part in kinds] == list(KINDS)
    assert [(part.domain_documents, part.general_documents) for part in kinds] == [(12, 12), (15, 15)]
    weights = [12 * 12 / 24, 15 * 15 / 30]
    mean = np.average([part.auroc for part in kinds], weights=weights)
    assert mean == pytest.approx(first["auroc"])
    assert {(part.side, part.name) for part in sources} == {
        (side, f"paper {number}") for side in ("domain", "general") for number in range(3)
    }
    assert sum(part.domain_documents for part in sources if part.side == "domain") == 27
    assert {part.general_documents for part in sources if part.side == "domain"} == {27}
    documents = pd.read_parquet(result.output_dir / "documents.parquet")
    counts = documents.groupby(["side", "half", "kind"]).size().to_dict()
    assert counts["general", "confirmation", "news"] == 15
    assert set(documents["source"]) == {"paper 0", "paper 1", "paper 2"}
    csv = (result.output_dir / "consolidated_top_features_all_layers.csv").read_text()
    assert "transfer_rank" in csv
    assert "auroc_by" not in csv
    capsys.readouterr()
    assert main(["show", str(result.output_dir), str(first["layer"]), str(first["feature_number"])]) == 0
    printed = capsys.readouterr().out
    assert "within filing" in printed
    assert "source paper 1" in printed
    page = (result.output_dir / "report.html").read_text()
    assert '"kindsOfText":2' in page


def test_ranking_again_changes_nothing(result):
    before = {path: path.read_bytes() for path in result.output_dir.rglob("*.parquet")}
    assert main(["rank", str(result.output_dir), "--quiet"]) == 0
    assert {path: path.read_bytes() for path in result.output_dir.rglob("*.parquet")} == before
    again = stratalens.load_result(result.output_dir)
    np.testing.assert_array_equal(again.sources.source, result.sources.source)
    assert again.sources.names == (("paper 0", "paper 1", "paper 2"),) * 2


def test_controls_stand_in_record_page_and_terminal_and_survive_ranking(result, capsys):
    controls = result.record.controls
    assert controls is not None
    assert set(controls.hookpoints) == set(result.record.layers)
    assert controls.null_contrast is not None
    assert controls.null_contrast.repetitions == 200
    assert controls.words is not None
    assert controls.words.auroc > 0.9  # each text begins with the name of its side
    assert controls.words.domain_documents == 27
    assert sum(own.behind_best is None for own in controls.hookpoints.values()) == 1
    page = (result.output_dir / "report.html").read_text()
    assert 'id="controls-table"' in page
    assert "Null contrast: 200 times" in page
    capsys.readouterr()
    assert main(["rank", str(result.output_dir), "--rank_by", "auroc"]) == 0
    assert "Controls: by chance a discovery in" in capsys.readouterr().out
    again = stratalens.load_result(result.output_dir).record.controls
    assert again is not None
    assert again.words == controls.words


def test_a_record_repeats_a_run_of_pairs(result, tmp_path):
    words = ["--config", str(result.output_dir / "run.json"), "--output_dir", str(tmp_path / "again"), "--quiet"]
    assert main(["analyze", *words]) == 0
    again = stratalens.load_result(tmp_path / "again")
    assert again.record.corpus.digest == result.record.corpus.digest
    assert again.recorded.pair == result.recorded.pair


def test_a_result_without_the_new_columns_is_read_and_shown(result, capsys):
    """A result of an earlier version has neither the columns nor the file of documents."""
    new = ["pooled_auroc", "transfer", "transfer_rank", "auroc_by_kind", "auroc_by_source"]
    for path in [*result.output_dir.glob("layer_*/all_features.parquet"), result.output_dir / "features.parquet"]:
        table = pd.read_parquet(path)
        table.drop(columns=[name for name in new if name in table]).to_parquet(path, index=False)
    (result.output_dir / "documents.parquet").unlink()
    record = json.loads((result.output_dir / "run.json").read_text())
    record["files"].remove("documents.parquet")
    del record["controls"]
    (result.output_dir / "run.json").write_text(json.dumps(record))
    old = stratalens.load_result(result.output_dir)
    assert "transfer_rank" not in old.top_features
    feature = old.top_features.iloc[0]
    assert main(["report", str(result.output_dir)]) == 0
    assert main(["show", str(result.output_dir), str(feature["layer"]), str(feature["feature_number"])]) == 0
    assert "Transfer" not in capsys.readouterr().out.replace("Tr.", "")
    assert main(["rank", str(result.output_dir), "--quiet"]) == 0
    assert "transfer_rank" in stratalens.load_result(result.output_dir).top_features


def test_a_further_run_of_the_same_text_reads_nothing_again(result, tiny_arguments, pairs, capsys):
    capsys.readouterr()
    assert main(["analyze", *without_text(tiny_arguments), *pairs, "--source_column", "from"]) == 0
    printed = capsys.readouterr()
    assert "reusing the harvest of layers 0 2" in printed.out
    assert "with another" not in printed.out + printed.err
    context = json.loads(json.dumps(result.record.harvest.model_dump()))["facts"]
    assert context["kinds of text"] == list(KINDS)
