"""The command line: parse the arguments, run the command, turn errors into one line and an exit code."""

import errno
import gc
import io
import os
import re
import signal
import sys
import time

from stratalens.cli.arguments import parse
from stratalens.cli.error_line import error_line
from stratalens.cli.interruption import repeat_interruption
from stratalens.cli.on_result import (
    result_directory,
    run_effect,
    run_labelling,
    run_ranking,
    run_report,
    run_token_test,
    run_validation,
)
from stratalens.cli.open_terminal import open_terminal
from stratalens.cli.usage import EXAMPLES, USAGE
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError, StratalensError
from stratalens.hookpoint import NAME, Hookpoint

STARTED = time.perf_counter()
"""When this module was imported: the beginning of the stage `start`."""
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
INTERRUPTED_MESSAGE = "Interrupted; run the same command again to continue with what was read and labelled so far"
MACHINE_ERRORS = frozenset(
    [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG]
)
"""Errors that only the user can fix on the machine; any other `OSError` that gets here is a bug."""
GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""How many new objects start a search for garbage: libraries make many as they are imported, and no garbage."""
STDOUT_DESCRIPTOR = 1
"""File descriptor of standard output; Python flushes it once more when it exits."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 if SAEs do not fit, 2 after a mistake, 130 after Ctrl-C.

    Args:
        arguments: the command and its options; None for those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _command(words)
        finally:
            if sys.stdout is not None:  # a closed pipe must raise its error here, not while Python shuts down
                sys.stdout.flush()
    except StratalensError as error:
        return _fail(str(error), words)
    except KeyboardInterrupt:
        print(INTERRUPTED_MESSAGE, file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT_DESCRIPTOR)
        return 0
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        reason = (error.strerror or "unknown").lower()
        message = f"{path}operating system error: {reason}; {_remedy(error.errno)} and run the same command again"
        return _fail(message, words)
    except (MemoryError, RuntimeError) as error:
        from stratalens.models.memory import out_of_memory

        if not out_of_memory(error):
            raise
        return _fail("out of memory; lower --batch_tokens or --memory_gb, or choose shallower --layers", words)


def entry_point() -> None:
    """Run the command line and end the process with its exit code."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    sys.unraisablehook = repeat_interruption
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows only ASCII shows other characters escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except KeyboardInterrupt:  # a second one, while the first is being told
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:  # threads that wait for a server would keep the process alive
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # What Python tidies up now takes a while, and ends by the signal, without a word, if it is interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # a last search for garbage among the objects of all libraries would take more than a second
    sys.exit(code)


def _remedy(error_number: int | None) -> str:
    """Say what the user can do about an error of the operating system."""
    if error_number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    return "give access to it" if error_number in (errno.EACCES, errno.EPERM, errno.EROFS) else "fix this"


def _fail(message: str, words: list[str]) -> int:
    """Print an error without the secrets of the words of the command line, which it may repeat."""
    print(error_line(message, words), file=sys.stderr)
    return EXIT_BAD_INPUT


def _command(words: list[str]) -> int:
    """Run the command that the first word names and return its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else EXIT_BAD_INPUT
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"stratalens {version('stratalens')}")
        return 0
    commands = {
        "analyze": run_analysis,
        "show": run_show,
        "rank": run_ranking,
        "label": run_labelling,
        "validate": run_validation,
        "token_test": run_token_test,
        "effect": run_effect,
        "steer": run_steer,
        "report": run_report,
        "check": run_check,
        "domains": run_domains,
    }
    if words[0] not in commands:
        raise ConfigError(f"unknown command `{words[0]}`; see stratalens --help")
    return commands[words[0]](words[1:])


def run_analysis(words: list[str], program: str = "stratalens analyze") -> int:
    """Run `analyze`, or a dry run of it, with its options and return the exit code."""
    notes: list[str] = []
    config = parse(words, program, RunConfig, EXAMPLES["analyze"], notes.append)
    terminal = open_terminal(config.quiet)
    for note in notes:
        terminal.warn(note)
    if config.dry_run:
        from stratalens.commands.dry_run import dry_run

        for line in dry_run(config, terminal):
            terminal.say(line)
        return 0
    from stratalens.commands.analyze import analyze

    result = analyze(config, terminal, started=STARTED)
    terminal.show_result(result)
    terminal.show_timings(result)
    return 0


def run_show(words: list[str]) -> int:
    """Run `show` and return the exit code."""
    program = "stratalens show RESULT_DIR LAYER FEATURE"
    if "-h" in words or "--help" in words:
        print(f"usage: {program}\n\nPrints everything that is known about one feature.\n\nExample: {EXAMPLES['show']}")
        return 0
    directory, rest = result_directory(words, program)
    words = rest[0].split("/", 1) if len(rest) == 1 else rest
    place, feature = words if len(words) == 2 else ("", "")
    if not NAME.fullmatch(place) or not re.fullmatch(r"\d{1,8}", feature):
        raise ConfigError(
            f"expected a layer and a feature, such as `stratalens show {directory} 16 163`, or with the site of an "
            f"SAE, such as `stratalens show {directory} 16_mlp 163`"
        )
    from stratalens.cli.show import show

    show(directory, Hookpoint.parse(place), int(feature))
    return 0


def run_steer(words: list[str]) -> int:
    """Run `steer` and return the exit code."""
    from stratalens.cli.steer import run_steer

    return run_steer(words)


def run_check(words: list[str]) -> int:
    """Run `check` and return the exit code."""
    from stratalens.cli.check import run_check

    return run_check(words)


def run_domains(words: list[str]) -> int:
    """Run `domains` and return the exit code."""
    program = "stratalens domains [PATH ...]"
    if "-h" in words or "--help" in words:
        print(
            f"usage: {program}\n\nLists the built-in domains, or checks the texts, the lexicon and the sentence pairs "
            f"of those that are named.\n\nExample: {EXAMPLES['domains']}"
        )
        return 0
    if options := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"unknown option `{options[0]}`; {program} takes none")
    from stratalens.commands.domains import examine_domain
    from stratalens.corpus.builtin import BUILT_IN_DOMAINS

    terminal, names = open_terminal(quiet=False), words or BUILT_IN_DOMAINS
    found = []
    with terminal.track("Looking at domains", len(names)) as advance:
        for name in names:
            found.append(examine_domain(name))
            advance(1, 0)
    terminal.show_domains(found)
    return 0
