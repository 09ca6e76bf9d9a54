"""Errors of the operating system and interruptions end in one line and an exit code, without a partial result."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from refusal import output_of, refusal, with_options
from threads import one_thread

from stratalens.cli.main import entry_point

PROGRAM = [sys.executable, "-c", "from stratalens.cli.main import entry_point; entry_point()"]
OUTPUT = "Output, disk and cache"


@pytest.fixture(autouse=True)
def few_threads(monkeypatch) -> Iterator[None]:
    """One thread here and in programs started from here; more would only wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with one_thread():
        yield


AS_BOUND_USER = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]
"""Starts a program as a superuser without the right to ignore file permissions."""


@pytest.fixture
def bound_by_permissions(tmp_path, error_book) -> Iterator[Callable[..., list[str]]]:
    """Runs commands, all in one process, as a user bound by file permissions; returns their error messages."""
    is_root = os.geteuid() == 0
    if is_root and shutil.which("setpriv") is None:
        error_book.impossible |= {key for key in error_book.page if "may not be" in key[1]}
        pytest.skip("the superuser may read everything, and setpriv is not installed to change that")

    def lines(*commands: Sequence[str]) -> list[str]:
        program = (
            "import sys\nfrom stratalens.cli.main import main\n"
            f"print([main(words) for words in {[list(words) for words in commands]!r}])"
        )
        done = subprocess.run(
            [*(AS_BOUND_USER if is_root else []), sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"STRATALENS_CACHE": str(tmp_path / "read-only" / "cache")},
        )
        assert done.stdout == f"{[2] * len(commands)}\n", done.stderr
        assert len(done.stderr.splitlines()) == len(commands), done.stderr
        return done.stderr.splitlines()

    yield lines
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


@pytest.mark.real
def test_paths_that_may_not_be_read_or_written_are_named(bound_by_permissions, documented, tmp_path, tiny_arguments):
    locked = tmp_path / "locked"
    (locked / "inside").mkdir(parents=True)
    for name in ("a.jsonl", "run.yaml", "list.txt", "run.json"):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0)
    locked.chmod(0)
    (tmp_path / "read-only").mkdir(mode=0o555)
    free = tmp_path / "free"
    free.mkdir()
    usual = ["analyze", "--quiet", *with_options(tiny_arguments, {"output_dir": str(free / "out")})]
    cases: dict[tuple[str, str], list[str]] = {
        ("Texts", "a file that may not be read"): with_options(usual, {"domain_data": str(tmp_path / "a.jsonl")}),
        ("Texts", "a file below a directory that may not be entered"): with_options(
            usual, {"domain_data": str(locked / "inside" / "a.txt")}
        ),
        ("Configuration files", "a file that may not be read"): [*usual, "--config", str(tmp_path / "run.yaml")],
        ("Feature lists, lexicons and prompts", "a list that may not be read"): [
            *usual,
            *("--features", str(tmp_path / "list.txt")),
        ],
        ("Base models", "a directory that may not be entered"): with_options(
            usual, {"base_model": str(locked / "inside")}
        ),
        ("SAE checkpoints", "a directory that may not be read"): with_options(usual, {"sae_model": str(locked)}),
        (OUTPUT, "an output directory that may not be written"): with_options(
            usual, {"output_dir": str(tmp_path / "read-only")}
        ),
        (OUTPUT, "an output directory below one that may not be entered"): with_options(
            usual, {"output_dir": str(locked / "inside" / "out")}
        ),
        (OUTPUT, "a cache that may not be written"): ["analyze", "--quiet", "--output_dir", str(free / "out")],
        ("Finished results", "a result that may not be read"): ["label", str(locked / "inside")],
        ("Finished results", "a record that may not be read"): ["show", str(tmp_path), "0", "0"],
    }
    for (kind, case), line in zip(cases, bound_by_permissions(*cases.values()), strict=True):
        assert "ermission denied" in line, (case, line)
        documented(kind, case, line)
    assert list(free.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path, error_book) -> Iterator[Path]:
    """A file system of 300 kB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount_point)], capture_output=True
    )
    if mounted.returncode != 0:
        for case in ("a full disk", "a full disk for the cache"):
            error_book.impossible.add((OUTPUT, case))
        pytest.skip("only the superuser can mount a small disk to fill")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def test_a_full_disk_is_reported_and_no_result_stays_on_it(tiny_disk, capsys, monkeypatch, documented, tiny_arguments):
    (tiny_disk / "mine.txt").write_text("mine")
    arguments = with_options(tiny_arguments, {"output_dir": str(tiny_disk / "out")})
    line = refusal(arguments, capsys, leaves_shards=True)
    assert "the disk is full; free some space and run the same command again, or choose another --output_dir" in line
    documented(OUTPUT, "a full disk", line)
    monkeypatch.setenv("STRATALENS_CACHE", str(tiny_disk / "cache"))
    line = refusal(["--output_dir", str(tiny_disk / "other")], capsys)
    assert "STRATALENS_CACHE" in line
    documented(OUTPUT, "a full disk for the cache", line)
    left = {path.name for path in tiny_disk.rglob("*") if path.is_file()} - {"context.json"}
    assert {name for name in left if not name.endswith(".state")} == {"mine.txt"}


@pytest.mark.real
@pytest.mark.serial
def test_ctrl_c_ends_a_run_with_one_line_within_two_seconds(documented, tiny_arguments):
    output = output_of(tiny_arguments)
    started = subprocess.Popen(
        [*PROGRAM, "analyze", "--quiet", *tiny_arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not output.exists() and started.poll() is None:
        time.sleep(0.02)
    time.sleep(1)
    moment = time.perf_counter()
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert time.perf_counter() - moment < 2
    assert (started.returncode, out) == (130, "")
    assert len(err.splitlines()) == 1, err
    assert not (output / "run.json").exists()
    documented("Interruptions", "Ctrl-C during a run (exit code 130)", err)


@pytest.mark.real
@pytest.mark.parametrize("words", [["--help"], ["analyze", "--help"], ["show", "--help"]])
def test_a_closed_pipe_is_not_an_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, *words], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.real
def test_a_terminal_that_knows_only_ascii_and_file_names_that_are_not_utf_8_do_not_end_a_run(
    monkeypatch, tmp_path, tiny_arguments, small_texts
):
    (tmp_path / "texts").mkdir()
    name = os.fsencode(tmp_path) + b"/texts/caf\xe9.jsonl"
    shutil.copy(small_texts[0], name)
    output = tmp_path / "Ergebnisse für 😀"
    words = with_options(tiny_arguments, {"output_dir": str(output), "domain_data": str(tmp_path / "texts")})
    monkeypatch.setattr(sys, "argv", ["stratalens", "analyze", *words])
    shown = io.BytesIO()
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as stop:
        entry_point()
    assert stop.value.code == 0
    assert f"{tmp_path}/Ergebnisse f\\xfcr \\U0001f600".encode() in shown.getvalue()
    record = json.loads((output / "run.json").read_text())
    assert [os.fsencode(path) for path in record["corpus"]["files"]["financial"]] == [name]


def test_a_name_that_is_not_utf_8_is_refused(capsys, documented, tmp_path, tiny_arguments):
    line = refusal(with_options(tiny_arguments, {"output_dir": os.fsdecode(b"caf\xe9")}), capsys)
    assert "the name 'caf\\udce9' is not UTF-8; rename it, or choose another" in line
    documented("Commands and options", "a name that is not UTF-8", line)


def test_an_unexpected_error_of_the_operating_system_is_one_line_and_a_bug_is_not(monkeypatch, capsys):
    from stratalens.cli import main as cli

    def fail(error: BaseException) -> None:
        def command(_words: list[str]) -> int:
            raise error

        monkeypatch.setattr(cli, "_command", command)

    fail(OSError(errno.EIO, "Input/output error", "/mnt/data.txt"))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "stratalens: /mnt/data.txt: operating system error: input/output error; "
        "fix this and run the same command again\n"
    )
    fail(MemoryError())
    assert cli.main([]) == 2
    assert "out of memory; lower --batch_tokens" in capsys.readouterr().err
    for bug in (FileNotFoundError(errno.ENOENT, "no", "x"), KeyError("x"), OSError("x")):
        fail(bug)
        with pytest.raises(type(bug)):
            cli.main([])
