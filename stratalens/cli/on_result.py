"""Commands on a finished result: its directory is their first word."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stratalens.cli.arguments import parse
from stratalens.cli.open_terminal import open_terminal
from stratalens.cli.usage import EXAMPLES
from stratalens.config.effect_options import EffectConfig
from stratalens.config.result_options import LabelConfig, RankConfig, ReportConfig
from stratalens.config.token_test_options import TokenTestConfig
from stratalens.config.validate_options import ValidateConfig
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path

if TYPE_CHECKING:
    from stratalens.cli.terminal import Terminal
    from stratalens.report.saved import Result

ResultOptions = TypeVar(
    "ResultOptions", RankConfig, LabelConfig, ReportConfig, ValidateConfig, TokenTestConfig, EffectConfig
)


def run_ranking(words: list[str]) -> int:
    """Run `rank` with its options and return the exit code."""

    def run(directory: Path, options: RankConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.rank import rank

        return rank(directory, options, terminal)

    return _run_on_result(words, "rank", RankConfig, run)


def run_labelling(words: list[str]) -> int:
    """Run `label` with its options and return the exit code."""

    def run(directory: Path, options: LabelConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.label import label

        return label(directory, options, terminal)

    return _run_on_result(words, "label", LabelConfig, run)


def run_validation(words: list[str]) -> int:
    """Run `validate` with its options and return the exit code."""

    def run(directory: Path, options: ValidateConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.validate import validate

        return validate(directory, options, terminal)

    return _run_on_result(words, "validate", ValidateConfig, run)


def run_token_test(words: list[str]) -> int:
    """Run `token_test` with its options and return the exit code."""

    def run(directory: Path, options: TokenTestConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.token_test import token_test

        return token_test(directory, options, terminal)

    return _run_on_result(words, "token_test", TokenTestConfig, run)


def run_effect(words: list[str]) -> int:
    """Run `effect` with its options and return the exit code."""

    def run(directory: Path, options: EffectConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.effect import effect

        return effect(directory, options, terminal)

    return _run_on_result(words, "effect", EffectConfig, run)


def run_report(words: list[str]) -> int:
    """Run `report` with its options and return the exit code."""

    def run(directory: Path, options: ReportConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.report import report

        return report(directory)

    return _run_on_result(words, "report", ReportConfig, run)


def _run_on_result(
    words: list[str],
    command: str,
    kind: type[ResultOptions],
    run: Callable[[Path, ResultOptions, "Terminal"], "Result"],
) -> int:
    """Run a command on a finished result (its directory is the first word, options follow) and print the result."""
    program = f"stratalens {command} RESULT_DIR"
    directory, rest = result_directory(words, program)
    options = parse(rest, program, kind, EXAMPLES[command])
    terminal = open_terminal(options.quiet)
    terminal.show_result(run(directory, options, terminal))
    return 0


def result_directory(words: list[str], program: str) -> tuple[Path, list[str]]:
    """Split the words into the directory, which comes first, and the others."""
    if words and words[0] in ("-h", "--help"):
        return Path(), words
    if not words or words[0].startswith("-"):
        raise ConfigError(f"the result directory comes first: {program}")
    return user_path(words[0]), words[1:]
