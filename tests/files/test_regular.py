"""Only regular files are read, and of a small file no more than a limit: nothing waits or fills the memory."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from special_files import SPECIAL, made_special

from stratalens.errors import CapacityError
from stratalens.files.regular import (
    named_when_out_of_memory,
    open_regular,
    read_regular,
    require_regular,
    size_text,
)

READERS: dict[str, Callable[[Path], object]] = {
    "opened": open_regular,
    "read": lambda path: read_regular(path, 100),
    "checked": require_regular,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused_at_once_also_behind_a_link(tmp_path, kind, reader):
    path = made_special(kind, tmp_path / "file")
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(OSError, match=SPECIAL[kind]):
            READERS[reader](name)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
        server.bind("socket")
        with pytest.raises(OSError, match="a regular file was expected, this is a socket"):
            open_regular(Path("socket"))


def test_a_regular_file_is_read_also_behind_a_link_and_up_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, 100) == b"x" * 100
        with open_regular(tmp_path / name) as stream:
            assert stream.read() == b"x" * 100


def test_a_larger_file_is_refused_without_reading_it(tmp_path):
    with (tmp_path / "file").open("wb") as stream:
        stream.truncate(2**40)  # a terabyte that takes no space
    with pytest.raises(OSError, match="larger than 1 MiB, the limit for such a file"):
        read_regular(tmp_path / "file", 2**20)


def test_a_file_whose_size_is_not_known_before_is_bounded_as_well():
    name = Path("/proc/self/maps")  # regular, of size 0, with contents
    if not name.exists():
        pytest.skip("no such file on this system")
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular(name, 10)


def test_an_error_of_memory_names_the_file(documented):
    with pytest.raises(CapacityError) as error, named_when_out_of_memory("texts.jsonl"):
        raise MemoryError
    assert str(error.value).startswith("texts.jsonl: out of memory while it was read; ")
    documented("Memory and workers", "no memory for a file", str(error.value))


@pytest.mark.parametrize(
    ("size", "text"), [(2**30, "1 GiB"), (64 * 2**20, "64 MiB"), (2**10, "1 KiB"), (1500, "1500 bytes")]
)
def test_a_limit_is_written_in_a_whole_number_of_units(size, text):
    assert size_text(size) == text
