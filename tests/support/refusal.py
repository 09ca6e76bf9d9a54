"""How a test drives the command line into a mistake of the user and reads the one line it ends in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stratalens.cli.main import main
from stratalens.errors import StratalensError

Options = dict[str, str | list[str]]


def with_options(arguments: list[str], options: Options) -> list[str]:
    """The arguments with these options in place of their own."""
    changed = list(arguments)
    for name, value in options.items():
        if f"--{name}" in changed:
            at = changed.index(f"--{name}")
            del changed[at : at + 2]
        changed += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return changed


def output_of(arguments: list[str]) -> Path:
    return Path(arguments[arguments.index("--output_dir") + 1])


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str], *, leaves_shards: bool = False) -> str:
    """The line that a quiet `analyze` refuses the arguments with: exit code 2, nothing else said, nothing written."""
    capsys.readouterr()
    code = main(["analyze", "--quiet", *arguments])
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert code == 2
    assert said.out == ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("stratalens: ")
    assert leaves_shards or not output_of(arguments).is_dir()
    return lines[0]


def named_error(call: Callable[[], object]) -> StratalensError | None:
    """The named error that a call ends in, if it does; any other error is a failure of the test."""
    try:
        call()
    except StratalensError as error:
        return error
    return None
