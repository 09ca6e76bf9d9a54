"""One run at a time works in a directory, and its result is published completely or not at all, even after a kill."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stratalens.errors import OutputError
from stratalens.files import publishing
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.files.result_names import RECORD_FILE, WORK_FOLDER


class Killed(BaseException):
    """A process that ends at once."""


class RunFailedError(Exception):
    """Anything that goes wrong during a run."""


def stopped(directory: Path, work: Callable[[WorkDirectories], object] = lambda _work: None) -> None:
    """Do some work in a directory that then goes wrong."""
    with working_in(directory) as directories:
        work(directories)
        raise RunFailedError


def write(folder: Path, files: dict[str, str], kept: tuple[str, ...] = ()) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / RECORD_FILE).write_text(record_of([*files, *kept]))


def record_of(names: Iterable[object]) -> str:
    return json.dumps({"format": 1, "stratalens": "0.1.0", "files": list(names)})


def publish(directory: Path, files: dict[str, str], kept: tuple[str, ...] = ()) -> None:
    with working_in(directory) as work:
        write(work.staging, files, kept)


def files_in(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


TABLE, HARVEST = "consolidated_top_features_all_layers.csv", "harvest/layer_1.state"
OLD = {
    TABLE: "old table",
    "layer_1/evidence.json": "old evidence",
    "layer_1/all_features.parquet": "old latents",
    HARVEST: "old state",
}
NEW = {TABLE: "new table", "layer_2/evidence.json": "new evidence", "report.html": "new page"}
EXPECTED = {**NEW, HARVEST: "old state", "mine.txt": "mine", RECORD_FILE: record_of([*NEW, HARVEST])}


@pytest.fixture
def directory(tmp_path) -> Path:
    """A finished result with a file of the user's own beside it."""
    publish(tmp_path / "out", OLD)
    (tmp_path / "out" / "mine.txt").write_text("mine")
    return tmp_path / "out"


def test_a_new_result_replaces_the_earlier_files_but_those_it_names_and_the_users_own(directory):
    publish(directory, NEW, kept=(HARVEST,))
    assert files_in(directory) == EXPECTED
    assert not (directory / "layer_1").exists()


def test_after_an_error_the_earlier_result_is_unchanged(directory):
    before = files_in(directory)
    with pytest.raises(RunFailedError):
        stopped(directory, lambda work: write(work.staging, NEW))
    assert files_in(directory) == before


@contextmanager
def killed_at(step: int, monkeypatch) -> Iterator[None]:
    """Kill the process before its n-th change of the file system while results are published."""
    left = step

    def killing(change: Callable) -> Callable:
        def changed(*arguments, **options):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "unlink"), (Path, "replace"), (Path, "rmdir"), (Path, "rename")):
            patch.setattr(owner, name, killing(getattr(owner, name)))
        patch.setattr(publishing, "remove_folder", killing(publishing.remove_folder))
        yield


def test_after_a_kill_at_any_step_the_directory_holds_the_old_result_or_the_next_command_completes_the_new_one(
    tmp_path, monkeypatch
):
    outcomes = set()
    for step in range(40):
        directory = tmp_path / str(step)
        publish(directory, OLD)
        (directory / "mine.txt").write_text("mine")
        before = files_in(directory)

        def publish_and_die(work: WorkDirectories) -> None:
            write(work.staging, NEW, kept=(HARVEST,))
            with killed_at(step, monkeypatch):  # noqa: B023
                publishing.mark_complete(work.staging, work.result, overwrite=False)
                publishing.publish_complete(work.result, overwrite=False)

        with pytest.raises((Killed, RunFailedError)) as how:
            stopped(directory, publish_and_die)
        if how.type is RunFailedError:
            break
        with pytest.raises(RunFailedError):
            stopped(directory)
        assert files_in(directory) in (before, EXPECTED), step
        outcomes.add(files_in(directory) == EXPECTED)
    assert len(list(tmp_path.iterdir())) > len(OLD) + len(NEW), "every step was tried"
    assert outcomes == {True, False}


def test_a_second_run_in_the_same_directory_is_refused_and_names_the_first(tmp_path, documented):
    code = "import sys; from pathlib import Path; from stratalens.files.output_dir import working_in\n"
    code += "with working_in(Path(sys.argv[1])): print('working', flush=True); sys.stdin.read()"
    directory = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "working\n"
    with pytest.raises(OutputError, match=rf"another run \(process {first.pid}\) is working here") as error:
        stopped(directory)
    documented(
        "Output, disk and cache", "another run in the directory", str(error.value).replace(str(first.pid), "4711")
    )
    first.kill()
    first.communicate()
    publish(directory, NEW)
    assert set(files_in(directory)) == {*NEW, RECORD_FILE}


def test_names_in_a_record_never_point_outside_the_directory(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    directory = tmp_path / "out"
    publish(directory, OLD)
    (directory / RECORD_FILE).write_text(record_of(["../outside.txt", str(outside), TABLE, 5, None]))
    publish(directory, NEW)
    assert outside.read_text() == "kept"
    assert (directory / TABLE).read_text() == "new table"


def test_a_directory_that_was_created_for_a_failed_run_is_removed_again(tmp_path):
    with pytest.raises(RunFailedError):
        stopped(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_shards_stay_when_a_run_is_stopped_and_go_when_it_ends(tmp_path):
    directory = tmp_path / "out"

    name = f"layer_1/{'a1' * 16}.state"

    def read(work: WorkDirectories) -> None:
        (work.shards / name).parent.mkdir(parents=True)
        (work.shards / name).write_text("read")

    with pytest.raises(RunFailedError):
        stopped(directory, read)
    assert files_in(directory) == {f"{WORK_FOLDER}/shards/{name}": "read"}
    with working_in(directory) as work:
        assert (work.shards / name).read_text() == "read"
        write(work.staging, NEW)
    assert set(files_in(directory)) == {*NEW, RECORD_FILE}


def test_a_path_that_is_not_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot be written: .*; choose another --output_dir"):
            stopped(path)
