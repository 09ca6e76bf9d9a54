"""A file with a checksum is read as it was written or not at all, and takes no memory before its checksum fits."""

import os
import tracemalloc
from pathlib import Path

import pytest
from special_files import SPECIAL, made_special

from stratalens.files import atomic
from stratalens.files.atomic import checksum_fits, read_checksummed, write_checksummed

NAME = "what it is"
BODY = b"content\nof two lines" * 100_000


@pytest.fixture
def path(tmp_path) -> Path:
    write_checksummed(tmp_path / "a.state", NAME, BODY)
    return tmp_path / "a.state"


@pytest.mark.parametrize("body", [b"", b"\n", BODY, b"x" * 2**20, b"x" * (2**20 + 1)])
def test_what_was_written_is_read_under_its_name_alone(tmp_path, body):
    path = tmp_path / "folder" / "a.state"
    write_checksummed(path, NAME, body)
    assert read_checksummed(path, NAME) == body
    assert checksum_fits(path, NAME)
    assert read_checksummed(path, "another") is None
    assert not checksum_fits(path, "another")


DAMAGE = {
    "empty": lambda raw: b"",
    "cut off": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b"x",
    "altered": lambda raw: raw[:-9] + b"X" + raw[-8:],
    "without a checksum": lambda raw: raw.partition(b"\n")[2],
    "with a checksum in capitals": lambda raw: raw[:64].upper() + raw[64:],
    "with a space for the end of the line": lambda raw: raw[:64] + b" " + raw[65:],
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_was_damaged_is_not_read(path, case):
    path.write_bytes(DAMAGE[case](path.read_bytes()))
    assert read_checksummed(path, NAME) is None
    assert not checksum_fits(path, NAME)


def test_a_huge_file_whose_checksum_does_not_fit_takes_no_memory(path):
    os.truncate(path, 300 * 2**20)
    tracemalloc.start()
    assert read_checksummed(path, NAME) is None
    assert not checksum_fits(path, NAME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_file_beyond_the_limit_is_not_read_although_its_checksum_fits(path, monkeypatch):
    monkeypatch.setattr(atomic, "MAX_CHECKSUMMED_BYTES", path.stat().st_size)
    assert read_checksummed(path, NAME) == BODY
    monkeypatch.setattr(atomic, "MAX_CHECKSUMMED_BYTES", path.stat().st_size - 1)
    assert read_checksummed(path, NAME) is None
    assert not checksum_fits(path, NAME)


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    path = made_special(kind, tmp_path / "a.state")
    for read in (read_checksummed, checksum_fits):
        with pytest.raises(OSError, match=SPECIAL[kind]):
            read(path, NAME)
