"""Run the command line with a user's mistake and read the one line of its error message."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stratalens.cli.main import main
from stratalens.errors import StratalensError

Options = dict[str, str | list[str]]


def with_options(arguments: list[str], options: Options) -> list[str]:
    """The arguments with these options set or replaced."""
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
    """The error line of a quiet `analyze` with these arguments; checks exit code 2, no other output, no files."""
    capsys.readouterr()
    code = main(["analyze", "--quiet", *arguments])
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert code == 2
    assert output.out == "", output.out
    assert len(lines) == 1, lines
    assert lines[0].startswith("stratalens: ")
    assert leaves_shards or not output_of(arguments).is_dir()
    return lines[0]


def named_error(call: Callable[[], object]) -> StratalensError | None:
    """The StratalensError that a call raises, or None; any other error fails the test."""
    try:
        call()
    except StratalensError as error:
        return error
    return None
