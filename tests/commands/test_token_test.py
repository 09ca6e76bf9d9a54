"""The token test through whole commands: its columns and files, what is kept, what is read again, what is refused."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from finished_result import analysed, contents, feature_file, refused
from refusal import with_options

import stratalens
from stratalens.cli.main import main
from stratalens.commands.token_test import token_test
from stratalens.config.token_test_options import TokenTestConfig
from stratalens.progress import Advance, NoProgress
from stratalens.validation.token_verdicts import TokenTestScore, token_test_of

pytestmark = pytest.mark.usefixtures("own_environment")
SUBJECTS = {"domain": "loan bank rate bond price fund note", "general": "river stone bird cloud song moss fern"}


def write_texts(folder: Path, documents: int = 160) -> None:
    """Two files of so many documents each, of some 70 tokens."""
    for name, words in SUBJECTS.items():
        rows = []
        for number in range(documents):
            rng = random.Random(f"{name} {number}")
            text = f"No. {number}: {' '.join(rng.choices(words.split(), k=22))} {rng.randrange(10**9)}"
            rows.append(json.dumps({"id": f"{name}-{number}", "text": text}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(rows))


@pytest.fixture(scope="module")
def long_arguments(arguments, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("long texts")
    write_texts(folder)
    return with_options(arguments, {f"{name}_data": str(folder / f"{name}.jsonl") for name in SUBJECTS})


@pytest.fixture(scope="module")
def untested(long_arguments, tmp_path_factory) -> Path:
    return analysed(long_arguments, tmp_path_factory.mktemp("untested") / "out")


@pytest.fixture(scope="module")
def in_the_run(long_arguments, tmp_path_factory) -> Path:
    """A result of `analyze --token_test`; tests must not change it."""
    return analysed(long_arguments, tmp_path_factory.mktemp("tested") / "out", "--token_test")


@pytest.fixture
def result(untested, tmp_path) -> Path:
    return Path(shutil.copytree(untested, tmp_path / "out"))


@pytest.fixture
def tested(in_the_run, tmp_path) -> Path:
    return Path(shutil.copytree(in_the_run, tmp_path / "tested"))


def reported(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "features.parquet")


def scores(directory: Path) -> dict[tuple[int, int], TokenTestScore | None]:
    table = reported(directory)
    keys = zip(table["layer"], table["feature_number"], strict=True)
    return dict(zip(keys, map(token_test_of, table["token_test_scores"]), strict=True))


def record(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text())


def test_a_run_and_a_finished_result_are_tested_alike(result, in_the_run, capsys):
    assert reported(result)["token_test"].isna().all()
    assert record(result)["token_test"] is None
    capsys.readouterr()
    assert main(["token_test", str(result)]) == 0
    printed = capsys.readouterr().out
    assert "tokens to read, about" in printed
    assert " (of 10 reported features)" in printed
    found = scores(result)
    assert found == scores(in_the_run)
    assert all(score is not None and score.ngrams for score in found.values())
    assert record(result)["token_test"] == record(in_the_run)["token_test"]
    assert record(result)["token_test"]["verdicts"] == reported(result)["token_test"].value_counts().to_dict()
    for name in ("token_test.csv", "token_test/layer_0.state", "token_test/layer_2.state"):
        assert (result / name).read_bytes() == (in_the_run / name).read_bytes(), name
        assert name in record(result)["files"]
    table = pd.read_csv(result / "token_test.csv")
    assert len(table) == 10
    assert {"d", "d_low", "q_value", "own_d", "masked_share_kept", "ngrams"} <= set(table)
    assert "token_test_scores" not in (result / "consolidated_top_features_all_layers.csv").read_text()
    assert pd.read_csv(result / "layer_0" / "top_5_features_analysis.csv")["token_test"].notna().all()
    page = (result / "report.html").read_text()
    assert "Token test: " in page


def test_ranking_and_labelling_keep_it_and_a_second_test_reads_only_what_is_new(tested, tmp_path, capsys):
    before = scores(tested)
    assert main(["rank", str(tested), "--quiet"]) == 0
    assert scores(tested) == before
    assert main(["rank", str(tested), "--top_n", "7", "--quiet"]) == 0
    kept = scores(tested)
    assert {key: own for key, own in kept.items() if own is not None} == before
    assert reported(tested)["token_test"].isna().sum() == 4
    assert pd.read_csv(tested / "token_test.csv")["token_test"].isna().sum() == 4
    layer, feature = next(key for key, own in kept.items() if own is None)
    capsys.readouterr()
    assert main(["show", str(tested), str(layer), str(feature)]) == 0
    assert "Not tested with tokens alone" in capsys.readouterr().out
    assert main(["token_test", str(tested)]) == 0
    assert "were read before" in capsys.readouterr().out
    again = scores(tested)
    assert all(own is not None for own in again.values())
    assert main(["label", str(tested), "--features", feature_file(tmp_path, (layer, feature)), "--quiet"]) == 0
    assert scores(tested) == again
    assert main(["token_test", str(tested)]) == 0
    assert "Token test: 0 tokens to read" in capsys.readouterr().out


class Stopping(NoProgress):
    """Raises as Ctrl-C does, after so many reports of the test."""

    def __init__(self, reports: int):
        self.left = reports

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        def advance(_rows: int, _tokens: int) -> None:
            self.left -= title == "Testing tokens"
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


def test_a_test_that_was_stopped_continues_and_ends_in_the_same_bytes(result, in_the_run, capsys):
    before = contents(result)
    with pytest.raises(KeyboardInterrupt):
        token_test(result, TokenTestConfig(), Stopping(9))
    assert {name: own for name, own in contents(result).items() if ".unfinished" not in name} == before
    assert any(".unfinished/shards" in name for name in contents(result))
    capsys.readouterr()
    assert main(["token_test", str(result)]) == 0
    assert "were read before" in capsys.readouterr().out
    whole = {name: own for name, own in contents(in_the_run).items() if not name.endswith(".json")}
    names = [name for name in whole if name.startswith(("token_test", "features", "layer_", "consol"))]
    assert [name for name in names if contents(result)[name] != whole[name]] == []
    assert not (result / ".unfinished").exists()


def test_other_senses_are_shown(tested, tmp_path, capsys):
    pairs = [
        {
            "word": "bank",
            "domain": f"the bank set a loan rate of {n} and the bond price fell",
            "other": f"the bank of the river {n} with a bird and a stone",
        }
        for n in range(5)
    ]
    (tmp_path / "senses.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert main(["token_test", str(tested), "--senses", str(tmp_path / "senses.jsonl"), "--quiet"]) == 0
    assert record(tested)["token_test"]["pairs"] == 5
    (layer, feature), score = next((key, own) for key, own in scores(tested).items() if own)
    assert (score.pairs_silent or 0) <= (score.pairs_fired or 0) <= 5
    capsys.readouterr()
    assert main(["show", str(tested), str(layer), str(feature)]) == 0
    shown = capsys.readouterr().out
    assert f"silent on the word in {score.pairs_silent} of {score.pairs_fired} pairs" in shown
    assert f"Token test: {score.verdict}: " in shown


def test_too_little_general_text_is_refused_and_a_run_goes_on_without(finished, arguments, tmp_path, capsys):
    result = Path(shutil.copytree(finished, tmp_path / "small"))
    before = contents(result)
    assert "at least 64 are needed; give more or longer general texts" in refused(
        capsys, "token_test", str(result), "--quiet"
    )
    assert contents(result) == before
    run = analysed(arguments, tmp_path / "run", "--token_test")
    assert "snippets" in record(run)["missing_parts"]["token test"]
    assert record(run)["token_test"] is None
    assert not (run / "token_test.csv").exists()
    assert stratalens.load_result(run).record.settings["token_test"] is True


def test_a_record_with_a_token_test_repeats_the_run(in_the_run, tmp_path):
    words = ["--config", str(in_the_run / "run.json"), "--output_dir", str(tmp_path / "again"), "--quiet"]
    assert main(["analyze", *words, "--allow_poor_fit"]) == 0
    assert scores(tmp_path / "again") == scores(in_the_run)


def test_without_examples_only_single_tokens_are_shown(long_arguments, tmp_path):
    run = analysed(long_arguments, tmp_path / "bare", "--token_test", "--no_examples")
    both_read_twice = analysed(long_arguments, tmp_path / "whole", "--token_test", "--keep_gb", "0")
    for key, score in scores(run).items():
        whole = scores(both_read_twice)[key]
        assert score is not None
        assert whole is not None
        assert score._replace(ngrams=whole.ngrams) == whole
        assert len(score.ngrams) <= 8
    table = scores(run)
    assert main(["token_test", str(run), "--quiet"]) == 0  # the evidence is collected again
    assert scores(run) == table


HOSTILE = [
    "",
    "[]",
    "{}",
    '{"verdict": "context"}',
    json.dumps({"d": float("nan")}),
    "[" * 100_000,
]


@pytest.mark.parametrize("cell", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_cells_are_refused(tested, cell, capsys):
    table = reported(tested)
    table.loc[0, "token_test_scores"] = cell
    table.to_parquet(tested / "features.parquet", index=False)
    assert "the column token_test_scores does not hold" in refused(capsys, "rank", str(tested), "--quiet")


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "sure"},
        {"d": 9},
        {"p_value": 2},
        {"ngrams": ["x"] * 99},
        {"ngrams": ["x" * 999]},
        {"pairs_fired": -1},
    ],
    ids=str,
)
def test_scores_that_no_test_gives_are_refused(tested, changes, capsys):
    table = reported(tested)
    score = json.loads(table.loc[0, "token_test_scores"])
    table.loc[0, "token_test_scores"] = json.dumps(score | changes)
    table.to_parquet(tested / "features.parquet", index=False)
    assert "the column token_test_scores does not hold" in refused(capsys, "report", str(tested), "--quiet")


@pytest.mark.parametrize("changes", [{"features": -1}, {"verdicts": {"sure": 1}}, {"hookpoints": ["../x"]}], ids=str)
def test_a_record_that_no_test_writes_is_refused(tested, changes, capsys):
    content = record(tested)
    content["token_test"] |= changes
    (tested / "run.json").write_text(json.dumps(content))
    assert "run.json: damaged" in refused(capsys, "report", str(tested), "--quiet")


def test_a_new_analysis_tells_that_it_drops_the_test(long_arguments, tested, capsys):
    capsys.readouterr()
    assert main(["analyze", *with_options(long_arguments, {"output_dir": str(tested)})]) == 0
    assert "has a token test, which the new one will not have" in capsys.readouterr().err
    assert not (tested / "token_test.csv").exists()
    assert not (tested / "token_test").exists()


def test_damaged_values_are_read_again(tested, capsys):
    before = scores(tested)
    path = tested / "token_test" / "layer_2.state"
    path.write_bytes(path.read_bytes()[:-4])
    capsys.readouterr()
    assert main(["token_test", str(tested)]) == 0
    assert "were read before" in capsys.readouterr().out
    assert scores(tested) == before


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_a_run_refuses_pairs_that_are_none_before_the_work(tiny_arguments, tmp_path, capsys, more):
    (tmp_path / "empty.jsonl").write_text("")
    words = [*tiny_arguments, "--senses", str(tmp_path / "empty.jsonl"), *more]
    assert "no sentence pair in this file" in refused(capsys, "analyze", *words)
    assert not (tmp_path / "out" / "run.json").exists()
