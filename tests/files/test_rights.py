"""Results follow the umask; answers, unfinished states and the cache are the user's alone; no one else's are used."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from chat_servers import MisbehavingServer, ok
from refusal import refusal

from stratalens.cli.main import main
from stratalens.errors import OutputError
from stratalens.files.locations import cache_folder
from stratalens.files.output_dir import WORK_FOLDER, working_in
from stratalens.harvest.store import ShardStore, key_of
from stratalens.hookpoint import Hookpoint
from stratalens.labels.llm.cache import CachedModel
from stratalens.labels.llm.endpoint import EndpointModel

OUTPUT = "Output, disk and cache"
ANOTHER_USER = 12345


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask of this process for the time of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def all_rights(root: Path) -> dict[str, set[int]]:
    """Rights of all files and of all folders below a folder and of itself."""
    paths = [root, *root.rglob("*")]
    return {
        "files": {rights(path) for path in paths if path.is_file()},
        "folders": {rights(path) for path in paths if path.is_dir()},
    }


def test_every_file_and_folder_of_a_result_follows_the_umask(umask, tmp_path, tiny_arguments):
    umask(0o027)
    assert main(["analyze", "--quiet", *tiny_arguments]) == 0
    kinds = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kinds >= {".csv", ".json", ".parquet", ".npz", ".state", ".html"}
    assert all_rights(tmp_path / "out") == {"files": {0o640}, "folders": {0o750}}


def stored(output: Path) -> ShardStore:
    """Store a state in an output directory, in a run that is then stopped."""
    store = ShardStore(output / WORK_FOLDER / "shards")
    with suppress(KeyboardInterrupt), working_in(output):
        store.write(Hookpoint(0), key_of("a shard"), b"what was read")
        raise KeyboardInterrupt
    return store


def test_what_a_stopped_run_leaves_is_for_the_user_alone(umask, tmp_path):
    umask(0)
    store = stored(tmp_path / "out")
    assert rights(tmp_path / "out") == 0o777
    assert rights(tmp_path / "out" / WORK_FOLDER) == 0o700
    assert rights(store.path(Hookpoint(0), key_of("a shard"))) == 0o600


def test_what_an_earlier_version_left_open_to_others_is_closed(tmp_path):
    stored(tmp_path / "out")
    (tmp_path / "out" / WORK_FOLDER).chmod(0o755)
    store = stored(tmp_path / "out")
    assert rights(tmp_path / "out" / WORK_FOLDER) == 0o700
    assert store.holds(Hookpoint(0), key_of("a shard"))


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    """Where the cache will be."""
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_answers_are_for_the_user_alone_whatever_the_umask(umask, cache):
    umask(0)
    with MisbehavingServer(ok("fine")) as server:
        model = CachedModel(EndpointModel(server.url, "stub"), cache_folder("answers"))
        model.reply([{"role": "user", "content": "what?"}], max_tokens=5)
    assert all_rights(cache) == {"files": {0o600}, "folders": {0o700}}


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
@pytest.mark.parametrize("folder", ["", "answers"])
def test_a_cache_that_others_can_write_into_is_refused_until_that_right_is_taken_away(cache, folder, mode):
    (cache / "answers").mkdir(parents=True)
    (cache / folder).chmod(mode)
    with pytest.raises(OutputError, match="other users could change what is in this cache") as caught:
        cache_folder("answers")
    command = str(caught.value).split("`")[1]
    assert command == f"chmod -R go-w {cache / folder}"
    assert os.system(command) == 0
    assert cache_folder("answers") == cache / "answers"


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o700])
def test_a_cache_that_others_can_only_read_is_used_and_its_folders_are_closed(cache, mode):
    (cache / "answers").mkdir(parents=True)
    for folder in (cache, cache / "answers"):
        folder.chmod(mode)
    assert cache_folder("answers") == cache / "answers"
    assert rights(cache / "answers") == 0o700
    assert rights(cache) == mode, "the user may have named a directory with other things in it"


def test_a_cache_that_is_a_link_to_a_directory_of_the_user_is_used(cache, tmp_path):
    (tmp_path / "large disk").mkdir()
    cache.symlink_to(tmp_path / "large disk")
    assert cache_folder("answers").is_dir()
    assert rights(tmp_path / "large disk" / "answers") == 0o700


@pytest.fixture
def given_away(error_book) -> Callable[[Path], None]:
    """Gives a file or a link to another user."""
    if os.geteuid() != 0:
        error_book.impossible.add((OUTPUT, "a cache of another user"))
        pytest.skip("only the superuser can give files away")
    return lambda path: os.chown(path, ANOTHER_USER, -1, follow_symlinks=False)


@pytest.mark.parametrize("folder", ["", "answers"])
def test_a_cache_of_another_user_is_refused(cache, given_away, documented, folder):
    (cache / "answers").mkdir(parents=True)
    given_away(cache / folder)
    with pytest.raises(OutputError, match=f"user {ANOTHER_USER}, to whom it belongs, could change") as caught:
        cache_folder("answers")
    if not folder:
        documented(OUTPUT, "a cache of another user", str(caught.value))


def test_a_link_of_another_user_to_a_directory_of_ones_own_is_refused(cache, given_away, tmp_path):
    (tmp_path / "precious").mkdir()
    cache.symlink_to(tmp_path / "precious")
    given_away(cache)
    with pytest.raises(OutputError, match=f"user {ANOTHER_USER}"):
        cache_folder("answers")
    assert list((tmp_path / "precious").iterdir()) == []


def test_a_run_with_a_cache_that_others_can_write_into_ends_in_one_line(cache, capsys, documented, tmp_path):
    cache.mkdir()
    cache.chmod(0o777)
    line = refusal(["--output_dir", str(tmp_path / "out")], capsys)
    documented(OUTPUT, "a cache that others can write into", line)
    assert list(cache.iterdir()) == []
