"""CSV files that begin with a byte order mark: every command that writes them keeps it, and all read them."""

import codecs
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from finished_result import analysed, contents, feature_file, labels
from refusal import with_options

import stratalens
from stratalens.cli.main import main

pytestmark = pytest.mark.usefixtures("own_environment")

TABLE = "consolidated_top_features_all_layers.csv"


@pytest.fixture
def marked(result) -> Path:
    """A finished result whose CSV files begin with the mark."""
    assert main(["rank", str(result), "--quiet", "--csv_bom"]) == 0
    return result


def csv_files(directory: Path) -> dict[str, bytes]:
    files = {name: raw for name, raw in contents(directory).items() if name.endswith(".csv")}
    assert len(files) == 11, "three of the result and four of each of two layers"
    return files


def all_marked(directory: Path) -> bool:
    begin = {raw.startswith(codecs.BOM_UTF8) for raw in csv_files(directory).values()}
    assert len(begin) == 1, "all or none"
    assert not any(raw.count(codecs.BOM_UTF8) > 1 for raw in csv_files(directory).values())
    return begin.pop()


def without_marks(directory: Path) -> dict[str, bytes]:
    """All files but the record, CSV files without their marks."""
    files = contents(directory)
    del files["run.json"]
    return {name: raw.removeprefix(codecs.BOM_UTF8) if name.endswith(".csv") else raw for name, raw in files.items()}


def test_analyze_writes_the_mark_and_else_the_same_files(arguments, finished, tmp_path):
    out = analysed(arguments, tmp_path / "out", "--csv_bom")
    assert all_marked(out)
    assert not all_marked(finished)
    names = [name for name in without_marks(out) if not name.endswith(".html")]  # the page tells when it was made
    assert {name: without_marks(out)[name] for name in names} == {name: without_marks(finished)[name] for name in names}
    assert json.loads((out / "run.json").read_text())["settings"]["csv_bom"] is True
    again = with_options(["analyze", "--quiet", *arguments], {"output_dir": str(tmp_path / "again")})
    assert main([*again, "--config", str(out / "run.json")]) == 0
    assert all_marked(tmp_path / "again")


@pytest.mark.figures
@pytest.mark.parametrize("command", ["rank", "label"])
def test_a_command_that_rewrites_a_result_adds_the_mark(result, command):
    before = without_marks(result)
    assert main([command, str(result), "--quiet", "--csv_bom"]) == 0
    assert all_marked(result)
    assert without_marks(result) == before


@pytest.mark.parametrize(
    "words", [["rank", "--top_n", "4"], ["rank"], ["label"], ["label", "--no_examples"], ["report"]]
)
def test_a_result_that_has_the_mark_keeps_it(marked, words):
    for _ in range(2):
        assert main([words[0], str(marked), "--quiet", *words[1:]]) == 0
        assert all_marked(marked)


def test_a_result_with_marks_is_read_as_any_other(marked, finished, tmp_path, capsys):
    theirs, own = stratalens.load_result(finished), stratalens.load_result(marked)
    pd.testing.assert_frame_equal(own.top_features, theirs.top_features)
    number = next(iter(labels(marked, 2)))
    shown = []
    for directory in (marked, finished):
        capsys.readouterr()
        assert main(["show", str(directory), "2", str(number)]) == 0
        shown.append(capsys.readouterr().out.replace(str(directory), "OUT"))
    assert shown[0] == shown[1]
    pd.testing.assert_frame_equal(pd.read_csv(marked / TABLE), pd.read_csv(finished / TABLE))


def test_a_table_with_the_mark_lists_features(marked, arguments, tmp_path):
    out = analysed(arguments, tmp_path / "new", "--features", str(marked / TABLE))
    assert {layer: set(labels(out, layer)) for layer in (0, 2)} == {
        layer: set(labels(marked, layer)) for layer in (0, 2)
    }
    copied = Path(shutil.copy(marked / TABLE, tmp_path / "list.csv"))
    assert main(["label", str(marked), "--quiet", "--features", str(copied)]) == 0
    plain = Path(feature_file(tmp_path, *((2, number) for number in labels(marked, 2))))
    plain.write_bytes(codecs.BOM_UTF8 + plain.read_bytes())
    assert main(["label", str(marked), "--quiet", "--features", str(plain)]) == 0
