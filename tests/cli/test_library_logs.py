"""Log lines of other libraries are notes of one line without secrets; a quiet run prints only errors among them."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stratalens.cli.library_logs import LIBRARIES, MAX_LOG_CHARACTERS, show_library_logs
from stratalens.cli.terminal import Terminal

SECRET = "Sw0rdfish"
ADDRESS = f"http://me:{SECRET}@host.invalid/x?sig={SECRET}"


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Give back what a test changes in the loggers of this process."""
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [(logger, vars(logger).copy()) for logger in loggers]
    last = logging.lastResort
    yield
    logging.lastResort = last
    for logger, attributes in before:
        vars(logger).clear()
        vars(logger).update(attributes)


@pytest.mark.parametrize("name", [*LIBRARIES, "huggingface_hub.utils._http", "fsspec.local"])
def test_a_warning_is_a_note_of_one_line_without_secrets(capsys, name):
    show_library_logs(Terminal())
    logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(name).warning("thrown while requesting %s\nRetrying\x1b[2J in 1s", ADDRESS)
    said = capsys.readouterr()
    start = f"Note: {name.split('.')[0]}: thrown while requesting http://***@host.invalid/x?sig=*** Retrying"
    assert said.out == ""
    assert said.err.startswith(start)
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.err


def test_a_quiet_run_prints_errors_alone(capsys):
    show_library_logs(Terminal(quiet=True))
    logger = logging.getLogger("huggingface_hub")
    logger.setLevel(logging.WARNING)
    logger.warning(ADDRESS)
    assert capsys.readouterr().err == ""
    logger.error("refused: %s", ADDRESS)
    assert capsys.readouterr().err == "Note: huggingface_hub: refused: http://***@host.invalid/x?sig=***\n"


def test_a_handler_that_a_library_adds_later_prints_nothing(capsys):
    show_library_logs(Terminal(quiet=True))
    for name in LIBRARIES:
        logging.getLogger(name).addHandler(logging.StreamHandler(sys.stderr))
        logging.getLogger(name).warning(ADDRESS)
    assert capsys.readouterr() == ("", "")


def test_a_line_whose_arguments_do_not_fit_and_one_that_is_long_are_printed_as_well(capsys):
    show_library_logs(Terminal())
    logging.getLogger("fsspec").warning("%d is %s", "x")
    assert capsys.readouterr().err == "Note: fsspec: %d is %s\n"
    logging.getLogger("fsspec").warning("x" * 10_000)
    assert len(capsys.readouterr().err) == len("Note: \n") + MAX_LOG_CHARACTERS


@pytest.mark.real
@pytest.mark.parametrize("quiet", [True, False])
def test_the_password_of_an_endpoint_of_the_hub_is_not_printed(tmp_path, tiny_saes, quiet):
    words = ["--base_model", "someone/none", "--sae_model", str(tiny_saes), "--output_dir", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": f"http://me:{SECRET}@127.0.0.1:1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-m", "stratalens", "analyze", *words, *(["--quiet"] if quiet else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    assert lines[-1].startswith("stratalens: someone/none: not a local directory, not in the Hub cache")
    assert all(line.startswith("Note: ") for line in lines[:-1])
    assert len(lines) == 1 if quiet else any("http://***@127.0.0.1:1" in line for line in lines)
