"""A result that would fill the memory, or on which reading waits for ever, is refused with the name of the file."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_result import contents, refused
from special_files import made_special

from stratalens.cli.main import main
from stratalens.errors import ConfigError
from stratalens.evidence.evidence import PASSAGES_FILE
from stratalens.files import damaged
from stratalens.report import evidence_file
from stratalens.report.evidence_file import read_evidence_file

pytestmark = pytest.mark.usefixtures("own_environment")
NPZ = "evidence/layer_0.npz"
READ = ["features.parquet", "layer_0/all_features.parquet", "layer_0/evidence.json", f"evidence/{PASSAGES_FILE}", NPZ]


@pytest.mark.parametrize("kind", ["a named pipe", "a device without end"])
@pytest.mark.parametrize("name", READ)
def test_a_file_of_a_result_that_is_no_regular_file_is_refused(result, documented, capsys, tmp_path, name, kind):
    made_special(kind, result / name)
    command = ["report", str(result)] if name == "layer_0/evidence.json" else ["label", str(result), "--quiet"]
    if name == NPZ:  # without its evidence a result is read from its text again
        assert main(command) in (0, 2)
        return
    line = refused(capsys, *command)
    assert Path(name).name in line
    assert "a regular file was expected, this is a" in line
    if kind == "a named pipe" and name == "features.parquet":
        documented("Finished results", "a named pipe for features.parquet", line)


def packed_zeros(path: Path, megabytes: int) -> None:
    """An archive of which one array is all zeros: a thousandth of its size on disk."""
    buffer = io.BytesIO()
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez_compressed(buffer, **arrays | {"more": np.zeros(megabytes * 2**17)})
    path.write_bytes(buffer.getvalue())


def test_a_small_archive_of_huge_arrays_is_refused(result, documented, capsys, monkeypatch):
    monkeypatch.setattr(damaged, "MAX_UNPACKED_BYTES", 2**24)
    packed_zeros(result / NPZ, 64)
    assert (result / NPZ).stat().st_size < 500_000
    before = contents(result)
    line = refused(capsys, "label", str(result), "--quiet")
    assert "layer_0.npz: damaged, missing or of another version (unpacked it would take more than 16 MiB)" in line
    assert contents(result) == before
    documented("Finished results", "activations that fill the memory", line)


def test_an_archive_that_lies_about_the_size_of_an_array_is_refused(result, capsys):
    """The header of the array claims a terabyte, the archive holds a few bytes."""
    members = {}
    with zipfile.ZipFile(result / NPZ) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**38,)})
    with zipfile.ZipFile(result / NPZ, "w") as archive:
        for name, content in (members | {"data.npy": header.getvalue() + b"1234"}).items():
            archive.writestr(name, content)
    assert "layer_0.npz: " in refused(capsys, "label", str(result), "--quiet")


@pytest.mark.parametrize("name", ["features.parquet", "layer_0/all_features.parquet"])
def test_a_small_table_of_huge_texts_is_refused(result, capsys, monkeypatch, name):
    monkeypatch.setattr(damaged, "MAX_UNPACKED_BYTES", 2**22)
    pd.read_parquet(result / name).assign(flags="x" * 2**20).to_parquet(result / name, index=False)
    assert (result / name).stat().st_size < 500_000
    assert "unpacked it would take more than 4 MiB" in refused(capsys, "label", str(result), "--quiet")


def test_evidence_without_end_is_refused(result, documented, capsys):
    with (result / "layer_0/evidence.json").open("r+b") as stream:
        stream.truncate(evidence_file.MAX_EVIDENCE_BYTES + 1)
    line = refused(capsys, "report", str(result))
    assert (
        "evidence.json: damaged, missing or of another version (larger than 1 GiB, the limit for such a file)" in line
    )
    documented("Finished results", "evidence without end", line)


def test_evidence_of_which_everything_is_wrong_is_refused_by_its_first_fault(result, tmp_path):
    """A report of every fault would take more memory than the file."""
    content = json.loads((result / "layer_0/evidence.json").read_text())
    content["features"][0]["promoted"] = [1] * 100_000
    content["features"][0]["examples"][0]["tokens"] = [1] * 100_000
    (tmp_path / "evidence.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"features\.0\.promoted\.0: Input should be") as error:
        read_evidence_file(tmp_path / "evidence.json")
    assert len(str(error.value)) < 400


Nested = Callable[[int], str]
NESTED: dict[str, Nested] = {
    "lists": lambda depth: "[" * depth + "]" * depth,
    "tables": lambda depth: '{"a":' * depth + "1" + "}" * depth,
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("depth", [40, 900, 100_000])
def test_a_record_that_is_nested_deeply_is_refused_by_every_command(result, documented, capsys, kind, depth):
    text = (result / "run.json").read_text()
    (result / "run.json").write_text(text.rstrip()[:-1] + f', "more": {NESTED[kind](depth)}}}')
    for command in (["rank"], ["label"], ["report"], ["show"]):
        more = ["0", "0"] if command == ["show"] else []
        line = refused(capsys, *command, str(result), *more)
        assert "run.json: lists and tables are nested more than 32 deep" in line
    documented("Finished results", "a record that is nested deeply", line)


def test_a_record_without_end_is_refused(result, documented, capsys):
    with (result / "run.json").open("r+b") as stream:
        stream.truncate(64 * 2**20 + 1)
    line = refused(capsys, "report", str(result))
    assert "run.json: cannot be read: larger than 64 MiB, the limit for such a file" in line
    documented("Finished results", "a record without end", line)
