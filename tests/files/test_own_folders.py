"""What a run removes, moves or writes into is looked at first: a link or something of another user is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from refusal import output_of, refusal, with_options

from stratalens.errors import OutputError
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.files.record import recorded_names
from stratalens.files.result_names import LOCK_FILE, WORK_FOLDER, result_names

KIND = "Output, disk and cache"
STATE = f"{'0f' * 16}.state"
RECORD = '{"format": 1, "stratalens": "0.1.0", "files": ["report.html", "layer_0/evidence.json"]}'
NOBODY = 65534


@pytest.fixture
def outside(tmp_path) -> Path:
    """Files that are none of the run's business, under names that would interest it."""
    folder = tmp_path / "outside"
    for name in ("thesis.txt", "staging/thesis.txt", "complete/report.html", "complete/run.json", "shards/thesis.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(RECORD if name.endswith(".json") else "mine")
    return folder


@pytest.fixture
def output(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def looked_at(folder: Path) -> dict[str, object]:
    """Everything below a folder: links by what they point to, files by their content."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        found[name] = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
        )
    return found


def refused(output: Path) -> str:
    """The one line with which a run in a directory is refused; it never begins, and everything stays as it was."""
    before = looked_at(output.parent)
    with pytest.raises(OutputError) as error, working_in(output):
        pytest.fail("the run began")
    assert looked_at(output.parent) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def made(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def publish(output: Path) -> None:
    with working_in(output) as work:
        made(work.staging / "run.json", RECORD)
        made(work.staging / "report.html")
        made(work.staging / "layer_0" / "evidence.json")


FOLDERS = [
    *("", "/staging", "/complete", "/shards", "/shards/layer_0", "/staging/layer_0", "/staging/evidence"),
    *("/complete/harvest", "/complete/layer_12"),
]
FOLDERS_OF_A_RESULT = ["layer_0", "layer_31", "evidence", "harvest"]


@pytest.mark.parametrize("name", [*(WORK_FOLDER + name for name in FOLDERS), *FOLDERS_OF_A_RESULT])
def test_a_link_in_the_place_of_a_folder_is_refused_and_not_followed(output, outside, documented, name):
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).symlink_to(outside)
    line = refused(output)
    assert line == f"{output / name}: a link, where a run makes a folder; move it away or choose another --output_dir"
    if name == WORK_FOLDER:
        documented(KIND, "a link in the place of an unfinished run", line)


FILES = [
    *("shards/context.json", f"shards/layer_0/{STATE}", "staging/report.html", "complete/run.json"),
    *("complete/layer_0/evidence.json", "anything", "shards/thesis.txt"),
]


@pytest.mark.parametrize("name", [*(f"{WORK_FOLDER}/{name}" for name in FILES), "run.json"])
@pytest.mark.parametrize("target", ["thesis.txt", "complete/run.json", "nowhere"])
def test_a_link_in_the_place_of_a_file_is_refused_and_not_followed(output, outside, documented, name, target):
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).symlink_to(outside / target)
    line = refused(output)
    assert line == f"{output / name}: a link, where a run writes a file; move it away or choose another --output_dir"
    if name == "run.json":
        documented(KIND, "a link in the place of the record", line)


def test_a_link_that_points_to_another_folder_of_the_same_result_is_refused_as_well(output):
    publish(output)
    (output / "layer_1").symlink_to("layer_0")
    assert refused(output).startswith(f"{output}/layer_1: a link, where a run makes a folder")


@pytest.mark.parametrize("name", [WORK_FOLDER, "layer_0", "evidence", "harvest"])
def test_a_file_in_the_place_of_a_folder_is_refused(output, documented, name):
    made(output / name)
    line = refused(output)
    assert line == f"{output / name}: not a folder, where a run makes one; move it away or choose another --output_dir"
    if name == "harvest":
        documented(KIND, "a file in the place of a folder of the result", line)


STRANGERS = {
    "a file": lambda path: made(path / "notes.txt"),
    "a file among the shards": lambda path: made(path / "shards" / "layer_0" / "precious.state"),
    "a file in a new result": lambda path: made(path / "complete" / "data" / "precious.csv"),
    "a folder": lambda path: made(path / "backup" / "report.html"),
    "a folder in the place of a file": lambda path: made(path / "shards" / "context.json" / "x"),
    "a deep folder": lambda path: made(path.joinpath("staging", *["d"] * 300, "x")),
    "a named pipe": lambda path: os.mkfifo(made(path / "shards" / "context.json").with_name("x.tmp")),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_something_that_no_run_leaves_is_not_removed_with_an_unfinished_run(output, documented, case):
    STRANGERS[case](output / WORK_FOLDER)
    line = refused(output)
    assert "nothing that a run leaves here; move it away or choose another --output_dir" in line
    if case == "a file":
        documented(KIND, "a file of yours in the folder of unfinished runs", line)


def test_a_new_result_without_its_record_or_with_more_than_that_lists_is_not_moved(output, documented):
    complete = output / WORK_FOLDER / "complete"
    made(complete / "report.html")
    line = refused(output)
    assert "complete: holds files that no run.json in it lists; move it away or choose another" in line
    documented(KIND, "a finished run whose files have no record", line)
    for record in (
        '{"files": ["report.html"]}',
        '{"format": 1, "files": ["report.html"]}',
        '{"stratalens": "0.1.0", "files": ["report.html"]}',
        '{"format": 1, "stratalens": "0.1.0", "files": ["features.parquet"]}',
        '{"format": 1, "stratalens": "0.1.0", "files": {"report.html": 1}}',
        "[" * 100_000,
        "",
    ):
        made(complete / "run.json", record)
        assert refused(output) == line


@pytest.fixture
def as_superuser(error_book) -> None:
    if os.geteuid() != 0:
        error_book.impossible.add((KIND, "files of another user"))
        pytest.skip("only the superuser can give files to another user")


@pytest.mark.parametrize(
    "name",
    [
        *("", "/shards", "/shards/layer_0", f"/shards/layer_0/{STATE}", "/complete", "/complete/run.json"),
        "/complete/layer_0/evidence.json",
    ],
)
def test_what_another_user_left_unfinished_is_refused(as_superuser, output, documented, name):
    unfinished = output / WORK_FOLDER
    made(unfinished / "shards" / "layer_0" / STATE)
    for inner, content in (("run.json", RECORD), ("report.html", "x"), ("layer_0/evidence.json", "x")):
        made(unfinished / "complete" / inner, content)
    os.chown(f"{unfinished}{name}", NOBODY, NOBODY)
    line = refused(output)
    assert line == (
        f"{unfinished}{name}: belongs to user {NOBODY}, not to user 0, who runs this; if you trust what is there, make "
        "it yours with `chown -R`, else choose another --output_dir"
    )
    if not name:
        documented(KIND, "files of another user", line)


@pytest.mark.parametrize("name", FOLDERS_OF_A_RESULT)
def test_a_folder_of_a_result_that_belongs_to_another_user_is_refused(as_superuser, output, name):
    (output / name).mkdir()
    os.chown(output / name, NOBODY, NOBODY)
    assert refused(output).startswith(f"{output / name}: belongs to user {NOBODY}, not to user 0")


RECORDED = {"report.html": "mine", "layer_0/evidence.json": "mine"}


@pytest.mark.parametrize("writes", [None, result_names()])
def test_a_record_of_another_user_chooses_no_file_that_is_replaced_or_removed(as_superuser, output, writes):
    for name, content in {**RECORDED, "run.json": RECORD}.items():
        made(output / name, content)
    os.chown(output / "run.json", NOBODY, NOBODY)
    assert recorded_names(output) == set()
    before = looked_at(output)
    with pytest.raises(OutputError) as error, working_in(output, writes=writes, overwrite=True):
        pytest.fail("the run began")
    assert str(error.value).startswith(f"{output}/run.json: belongs to user {NOBODY}, not to user 0, who runs this;")
    assert looked_at(output) == before


@pytest.mark.parametrize("writes", [None, result_names()])
@pytest.mark.parametrize("name", RECORDED)
def test_a_file_of_another_user_in_the_place_of_a_recorded_one_is_refused_before_the_work(
    as_superuser, output, writes, name
):
    for inner, content in {**RECORDED, "run.json": RECORD}.items():
        made(output / inner, content)
    os.chown(output / name, NOBODY, NOBODY)
    before = looked_at(output)
    with pytest.raises(OutputError) as error, working_in(output, writes=writes, overwrite=True):
        pytest.fail("the run began")
    assert str(error.value).startswith(f"{output / name}: belongs to user {NOBODY}, not to user 0, who runs this;")
    assert looked_at(output) == before


def test_overwrite_replaces_no_file_of_another_user(as_superuser, output):
    os.chown(made(output / "report.html", "theirs"), NOBODY, NOBODY)
    refusal_of_it = pytest.raises(OutputError, match=f"report.html: belongs to user {NOBODY}")
    with refusal_of_it, working_in(output, overwrite=True) as work:
        made(work.staging / "run.json", RECORD)
        made(work.staging / "report.html")
    assert looked_at(output) == {"report.html": b"theirs"}


def test_a_record_that_becomes_another_users_during_a_run_is_refused_at_its_end(as_superuser, output):
    publish(output)
    before = looked_at(output)

    def run() -> None:
        with working_in(output) as work:
            made(work.staging / "run.json", RECORD)
            os.chown(output / "run.json", NOBODY, NOBODY)

    with pytest.raises(OutputError, match=f"run.json: belongs to user {NOBODY}"):
        run()
    assert looked_at(output) == before


def test_the_output_directory_itself_may_belong_to_another_user_and_be_a_link(as_superuser, output, tmp_path):
    os.chown(output, NOBODY, NOBODY)
    (tmp_path / "link").symlink_to(output)
    publish(tmp_path / "link")
    publish(tmp_path / "link")
    assert sorted(looked_at(output)) == ["layer_0", "layer_0/evidence.json", "report.html", "run.json"]


LOCKS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a lock that is a link": (lambda lock, other: lock.symlink_to(other), "a link, where a run writes its lock"),
    "a lock that is a link to nothing": (lambda lock, _other: lock.symlink_to("none"), "a link, where a run writes"),
    "a lock that has another name": (
        lambda lock, other: os.link(other, lock),
        "a file that has another name as well (a hard link), where a run writes its lock",
    ),
    "a lock that is a folder": (lambda lock, _other: lock.mkdir(), "not a file, where a run writes its lock"),
    "a lock that is a named pipe": (lambda lock, _other: os.mkfifo(lock), "not a file, where a run writes its lock"),
    "a lock that is another file": (lambda lock, _other: made(lock, "notes"), "not a lock, where a run writes one"),
    "a lock of too many digits": (lambda lock, _other: made(lock, "7" * 99), "not a lock, where a run writes one"),
    "a lock of another user": (
        lambda lock, _other: os.chown(made(lock, "4711\n"), NOBODY, NOBODY) if os.geteuid() == 0 else pytest.skip(),
        f"belongs to user {NOBODY}, not to user 0, who runs this",
    ),
}
DOCUMENTED_LOCKS = ("a lock that is a link", "a lock that has another name", "a lock that is another file")


@pytest.mark.parametrize("case", LOCKS)
def test_something_else_in_the_place_of_the_lock_is_refused_and_stays(output, outside, documented, case):
    make, message = LOCKS[case]
    make(output / LOCK_FILE, outside / "thesis.txt")
    line = refused(output)
    assert line.startswith(f"{output / LOCK_FILE}: {message}")
    assert line.endswith(" choose another --output_dir")
    if case in DOCUMENTED_LOCKS:
        documented(KIND, case, line)


@pytest.mark.parametrize("content", ["", "4711\n", "4711"])
def test_a_lock_that_a_killed_run_left_is_taken_over(output, content):
    made(output / LOCK_FILE, content)
    publish(output)
    assert not (output / LOCK_FILE).exists()


def test_what_becomes_a_link_during_a_run_is_refused_and_not_followed_at_its_end(output, outside):
    publish(output)
    before = looked_at(outside)

    def swap(work: WorkDirectories) -> None:
        made(work.staging / "run.json", RECORD)
        (output / WORK_FOLDER).rename(output / "moved")
        (output / WORK_FOLDER).symlink_to(outside)

    with pytest.raises(OutputError, match="a link, where a run makes a folder"), working_in(output) as work:
        swap(work)
    assert looked_at(outside) == before
    assert (output / WORK_FOLDER).is_symlink()


def test_an_analysis_is_refused_before_it_reads_anything(output, outside, tiny_arguments, capsys):
    assert output_of(tiny_arguments) == output
    (output / WORK_FOLDER).symlink_to(outside)
    before = looked_at(output.parent)
    missing_text = with_options(tiny_arguments, {"domain_data": "/no/such.txt"})
    for usual in (missing_text, [*tiny_arguments, "--harvest", "refresh"], [*tiny_arguments, "--overwrite"]):
        line = refusal(usual, capsys, leaves_shards=True)
        assert f"{WORK_FOLDER}: a link, where a run makes a folder" in line
    assert looked_at(output.parent) == before
