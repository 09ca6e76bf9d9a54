"""A streamed dataset gives the rows that a file of them would, from a directory in the Hub's layout as from the Hub."""

import json
import logging
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from refusal import output_of, refusal, with_options

from stratalens.cli.main import main
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError

ROWS = [{"id": f"doc{number}#a", "body": f" text {number} ", "number": number} for number in range(40)]
CARD = """---
configs:
- config_name: en
  data_files:
  - {split: train, path: "en/train*"}
  - {split: test, path: "en/test*"}
- config_name: de
  data_files:
  - {split: train, path: "de/*"}
---
"""


def write(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(params=["jsonl", "parquet", "csv"])
def dataset(request, tmp_path) -> Path:
    """Two configs; `train` of `en` in two files."""
    root = tmp_path / "shelf"
    kind = request.param
    write(ROWS[:25], root / "en" / f"train-0.{kind}")
    write(ROWS[25:], root / "en" / f"train-1.{kind}")
    write(ROWS[:3], root / "en" / f"test.{kind}")
    write([{"body": "ohne Kennung", "number": 1}], root / "de" / f"all.{kind}")
    (root / "README.md").write_text(CARD)
    return root


REMOTE = "Texts elsewhere"


def read(given: str) -> list[Row]:
    return [row for file in find_files([given]) for row in read_rows(file)]


def problem(given: str) -> str:
    with pytest.raises(CorpusError) as error:
        read(given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_split_comes_whole_with_its_ids_and_in_the_same_order_each_time(dataset, capfd, caplog):
    expected = [Row(row["body"].strip(), row["id"]) for row in ROWS]
    with caplog.at_level(logging.WARNING):
        assert read(f"hf:{dataset}:en:train:body") == read(f"hf:{dataset}:en:train:body") == expected
    assert read(f"hf:{dataset}:en:test:body") == expected[:3]
    assert read(f"hf:{dataset}:de:train:body") == [Row("ohne Kennung", None)]
    assert capfd.readouterr() == ("", "")


def test_a_relative_directory_and_one_without_configs_are_read(tmp_path, monkeypatch):
    write(ROWS, tmp_path / "plain" / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [row.identifier for row in read("hf:plain:train:body")] == [row["id"] for row in ROWS]


def test_what_is_not_there_is_refused_with_what_is(dataset, documented):
    documented(REMOTE, "a dataset without such a config", problem(f"hf:{dataset}:fr:train:body"))
    documented(REMOTE, "a dataset without such a split", problem(f"hf:{dataset}:en:validation:body"))
    documented(REMOTE, "a dataset without such a column", problem(f"hf:{dataset}:en:train:text").split(", or skip")[0])
    assert "'en', 'de'" in problem(f"hf:{dataset}:fr:train:body")
    assert "'en', 'de'" in problem(f"hf:{dataset}:train:body")
    assert "'train', 'test'" in problem(f"hf:{dataset}:en:validation:body")
    assert "no column `text` (found: id, body, number)" in problem(f"hf:{dataset}:en:train:text")
    assert "the text column holds int, not text" in problem(f"hf:{dataset}:en:train:number")


@pytest.mark.parametrize("given", ["hf:", "hf:name", "hf:name:train", "hf:a::train:text", "hf:a:b:c:d:e"])
def test_another_form_is_refused_with_the_expected_one(given, documented):
    line = problem(given)
    assert "expected hf:DATASET_ID:SPLIT:COLUMN or hf:DATASET_ID:CONFIG:SPLIT:COLUMN" in line
    documented(REMOTE, f"`{given}` for a dataset", line)


def test_a_directory_without_data_and_a_name_that_cannot_be_looked_up_are_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert "doesn't contain any data files" in problem(f"hf:{tmp_path}/empty:train:text")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "cannot be read (Couldn't " in problem("hf:no-such/dataset:train:text")


def test_a_broken_file_is_refused_on_one_line(dataset, capfd):
    for path in (dataset / "de").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + b'"\xff{')
    assert "shelf" in problem(f"hf:{dataset}:de:train:body")
    assert capfd.readouterr() == ("", "")


def test_a_card_that_names_an_address_nested_in_another_is_refused(tmp_path, documented):
    write(ROWS, tmp_path / "train.jsonl")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(tmp_path / "train.jsonl", "train.jsonl")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    nested = f"zip://train.jsonl::{tmp_path}/a.zip"
    (shelf / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {nested}\n---\n")
    line = problem(f"hf:{shelf}:train:body")
    assert f"it names {nested}; files of a dataset may have addresses of file, http," in line
    documented(REMOTE, "a dataset whose card nests addresses", line)


def test_code_that_comes_with_a_dataset_is_never_run(tmp_path):
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    write(ROWS, tmp_path / "scripted" / "train.jsonl")
    with suppress(CorpusError):
        read(f"hf:{tmp_path}/scripted:train:body")
    assert not (tmp_path / "ran").exists()


def test_a_missing_package_is_refused_with_the_command_that_installs_it(dataset, monkeypatch, documented):
    monkeypatch.setitem(sys.modules, "datasets", None)
    line = problem(f"hf:{dataset}:en:train:body")
    assert line.endswith("pip install 'stratalens[datasets]'")
    documented(REMOTE, "a dataset without the package `datasets`", line)


def test_the_package_is_imported_only_when_a_dataset_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    code = f"""import sys
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
print([row.text for file in find_files([{str(tmp_path / "a.jsonl")!r}]) for row in read_rows(file)])
find_files(["hf:name:train:text"])
print([name for name in ("datasets", "fsspec", "pyarrow") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['x']\n[]\n"


def test_a_run_on_a_dataset_is_the_run_on_its_rows(tiny_arguments, small_texts, tmp_path, capsys):
    shelf = tmp_path / "general"
    shelf.mkdir()
    (shelf / "train.jsonl").write_bytes(small_texts[1].read_bytes())
    records = []
    for number, general in enumerate((str(small_texts[1]), f"hf:{shelf}:train:text")):
        arguments = with_options(
            tiny_arguments, {"general_data": general, "output_dir": str(tmp_path / f"out{number}")}
        )
        assert main(["analyze", *arguments]) == 0
        records.append(json.loads((output_of(arguments) / "run.json").read_text()))
    assert records[0]["corpus"]["digest"] == records[1]["corpus"]["digest"]
    assert records[1]["corpus"]["files"]["general"] == [f"hf:{shelf}:train:text"]
    wrong = with_options(tiny_arguments, {"general_data": f"hf:{shelf}:test:text"})
    assert "'train'" in refusal(wrong, capsys)
