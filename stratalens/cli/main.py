"""The command line: arguments to configuration to run; the only place that prints or exits."""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field, create_model

from stratalens.config import (
    LabelConfig,
    RankConfig,
    ReportConfig,
    RunConfig,
    make_config,
    read_config_file,
    validated,
)
from stratalens.errors import ConfigError, StratalensError, printable

if TYPE_CHECKING:
    from stratalens.cli.terminal import Terminal
    from stratalens.commands.analyze import Result

USAGE = """usage: stratalens COMMAND [OPTIONS]

Finds which features of a language model belong to a domain, layer by layer, and shows the evidence.

commands:
  analyze     run the complete analysis
  rank        rank the features of a finished result again: stratalens rank RESULT_DIR [OPTIONS]
  label       label the features of a finished result again: stratalens label RESULT_DIR [OPTIONS]
  report      write report.html and the figures of a finished result again: stratalens report RESULT_DIR
  show        print everything known of one feature: stratalens show RESULT_DIR LAYER FEATURE

Each command lists its options with --help.

options:
  --version   print the version
  --help      print this
"""
BAD_INPUT = 2
INTERRUPTED = 130
GO_ON = "Interrupted; run the same command again to go on with what was read and labelled so far"
SYSTEM_REFUSES = frozenset(
    [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG]
)
"""What only the machine can mend; any other failure of a file that is not told by name is a bug."""
LONGEST_LINE = 1500
STANDARD_OUTPUT = 1
"""Number of the file; Python flushes it once more at its own end."""
Parsed = TypeVar("Parsed", bound=BaseModel)
OnResult = TypeVar("OnResult", RankConfig, LabelConfig, ReportConfig)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 after a mistake in the input, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _command(words)
        finally:
            if sys.stdout is not None:  # a reader that has gone shows here, not while Python shuts down
                sys.stdout.flush()
    except StratalensError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print(
            "Interrupted; run the same command again to go on with what was read and labelled so far", file=sys.stderr
        )
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
        return 0
    except OSError as error:
        if error.errno not in SYSTEM_REFUSES:
            raise
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _fail(f"{place}the system refuses: {error.strerror}; mend that and run the same command again")
    except (MemoryError, RuntimeError) as error:
        from stratalens.models.memory import out_of_memory

        if not out_of_memory(error):
            raise
        return _fail("out of memory; lower --batch_tokens or --memory_gb, or take shallower --layers")


def entry_point() -> None:
    """Run the command line and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows only ASCII shows the rest escaped
            stream.reconfigure(errors="backslashreplace")
    code = main()
    if code == INTERRUPTED:  # threads that wait for a server would hold the process up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str) -> int:
    print(f"stratalens: {_on_one_line(message)}", file=sys.stderr)
    return BAD_INPUT


def _on_one_line(message: str) -> str:
    """What files and servers put into a message can neither break the line, nor fill the screen, nor steer it."""
    text = printable(" ".join(message.split()))
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 300]} ... {text[-300:]}"


def _command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else BAD_INPUT
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"stratalens {version('stratalens')}")
        return 0
    commands = {
        "analyze": run_analysis,
        "rank": run_ranking,
        "label": run_labelling,
        "report": run_report,
        "show": run_show,
    }
    if words[0] not in commands:
        raise ConfigError(f"unknown command `{words[0]}`; see stratalens --help")
    return commands[words[0]](words[1:])


def run_analysis(words: list[str], program: str = "stratalens analyze") -> int:
    """Run `analyze` with its options."""
    config = parse(words, program, RunConfig)
    from stratalens.cli.terminal import Terminal

    terminal = Terminal(config.quiet)
    if config.dry_run:
        from stratalens.commands.dry_run import estimate

        for line in estimate(config, terminal):
            terminal.say(line)
        return 0
    from stratalens.commands.analyze import analyze

    terminal.show(analyze(config, terminal))
    return 0


def run_ranking(words: list[str]) -> int:
    """Run `rank` with its options."""

    def act(directory: Path, options: RankConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.rank import rerank

        return rerank(directory, options, terminal)

    return _on_result(words, "rank", RankConfig, act)


def run_labelling(words: list[str]) -> int:
    """Run `label` with its options."""

    def act(directory: Path, options: LabelConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.label import relabel

        return relabel(directory, options, terminal)

    return _on_result(words, "label", LabelConfig, act)


def run_report(words: list[str]) -> int:
    """Run `report` with its options."""

    def act(directory: Path, options: ReportConfig, terminal: "Terminal") -> "Result":
        from stratalens.commands.report import redraw

        return redraw(directory)

    return _on_result(words, "report", ReportConfig, act)


def _on_result(
    words: list[str], command: str, kind: type[OnResult], act: Callable[[Path, OnResult, "Terminal"], "Result"]
) -> int:
    """Run a command that works on a finished result: RESULT_DIR comes first, its options after it."""
    program = f"stratalens {command} RESULT_DIR"
    directory, rest = _result_directory(words, program)
    options = parse(rest, program, kind)
    from stratalens.cli.terminal import Terminal

    terminal = Terminal(options.quiet)
    terminal.show(act(directory, options, terminal))
    return 0


def run_show(words: list[str]) -> int:
    """Run `show`."""
    program = "stratalens show RESULT_DIR LAYER FEATURE"
    if "-h" in words or "--help" in words:
        print(f"usage: {program}\n\nPrints everything that a result knows of one feature.")
        return 0
    directory, rest = _result_directory(words, program)
    if len(rest) != 2 or not all(word.isdecimal() and len(word) < 9 for word in rest):
        raise ConfigError(f"expected a layer and a feature, such as `stratalens show {directory} 16 163`")
    from stratalens.cli.show import show

    show(directory, int(rest[0]), int(rest[1]))
    return 0


def _result_directory(words: list[str], program: str) -> tuple[Path, list[str]]:
    """The directory that comes first, and the words after it."""
    if words and words[0] in ("-h", "--help"):
        return Path(), words
    if not words or words[0].startswith("-"):
        raise ConfigError(f"the result directory comes first: {program}")
    return Path(words[0]).expanduser(), words[1:]


def parse(words: list[str], program: str, kind: type[Parsed]) -> Parsed:
    """Configuration from arguments: defaults, then the file of `--config`, then flags.

    Args:
        words: the arguments.
        program: as named in help and complaints.
        kind: the configuration; the one of an analysis takes a `--config` file as well.

    Raises:
        ConfigError: an argument or the file is wrong.
    """
    import tyro

    _refuse_repeated(words)
    fields: dict[str, Any] = {
        name: (field.annotation, Field(field.default, description=field.description))
        for name, field in kind.model_fields.items()
    }
    takes_file = "output_dir" in kind.model_fields
    file = _config_argument(words) if takes_file else None
    if takes_file:
        described = Field(None, description="YAML file with options, or the run.json of an earlier run.")
        fields = {"config": (str | None, described), **fields}
    options = create_model("Options", __doc__=kind.__doc__, **fields)
    loaded: dict[str, Any] = make_config(**read_config_file(Path(file).expanduser())).model_dump() if file else {}
    default = options(**loaded, **({"config": file} if takes_file else {}))
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            parsed = tyro.cli(options, prog=program, args=words, default=default)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ConfigError(_one_line(complaints.getvalue(), program)) from None
    given: dict[str, Any] = parsed.model_dump(exclude={"config"})
    return validated(kind, given)


def _refuse_repeated(words: list[str]) -> None:
    flags = [word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    flags = [flag.replace("--no-", "--", 1) for flag in flags]
    for flag in flags:
        if flags.count(flag) > 1:
            raise ConfigError(f"{flag} is given more than once; give it once (several values go behind one flag)")


def _config_argument(words: list[str]) -> str | None:
    for place, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config=")
        if word == "--config":
            if place + 1 == len(words):
                raise ConfigError("--config needs a file")
            return words[place + 1]
    return None


def _one_line(complaint: str, program: str) -> str:
    """The first sentence of a framed complaint, without its frame."""
    lines = [line.strip().strip("│|").strip() for line in complaint.splitlines()[1:]]
    groups = groupby(lines, key=lambda line: any(ch.isalnum() for ch in line))
    message = next((" ".join(group) for has_words, group in groups if has_words), "")
    return f"{message or 'the arguments cannot be read'}; see {program} --help"
