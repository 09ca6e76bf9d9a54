"""The command `steer`: run it, and print what the model writes, plain and steered side by side."""

from itertools import takewhile
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from stratalens.cli.arguments import parse
from stratalens.cli.on_result import result_directory
from stratalens.cli.open_terminal import open_terminal
from stratalens.cli.terminal import Terminal, escaped
from stratalens.cli.usage import EXAMPLES
from stratalens.config.steer_options import SteerConfig, parse_features

if TYPE_CHECKING:
    from stratalens.commands.steer import Continuation, Steered, SteeredText

PROGRAM = "stratalens steer RESULT_DIR FEATURE [FEATURE ...]"
MIN_TABLE_WIDTH = 100
"""Narrower terminals, files and pipes show the two texts below each other."""
EMPTY = "(nothing: the model ends the text at once)"


def run_steer(words: list[str]) -> int:
    """Run `steer` with its options and return the exit code."""
    directory, rest = result_directory(words, PROGRAM)
    named = list(takewhile(lambda word: not word.startswith("-"), rest))
    options = parse(rest[len(named) :], PROGRAM, SteerConfig, EXAMPLES["steer"])
    features = parse_features(named)
    terminal = open_terminal(options.quiet)
    from stratalens.commands.steer import steer

    show_steered(terminal, steer(directory, features, options, terminal), options.strength)
    return 0


def show_steered(terminal: Terminal, steered: "Steered", strength: float) -> None:
    """Print what is added, and every continuation; the continuations even when quiet."""
    for own in steered.features:
        label = f" ({own.label})" if own.label else ""
        terminal.say(
            f"Feature {own.own}{label}: weight {own.own.weight:g} x strength {strength:g} x mean activation "
            f"{own.mean_activation:.3g}"
        )
    for push in steered.pushes:
        terminal.say(push)
    quiet, terminal.console.quiet = terminal.console.quiet, False
    for text in steered.texts:
        _show_text(terminal, text)
    terminal.console.quiet = quiet
    if steered.exported is not None:
        terminal.say(f"Control vector: {steered.exported.resolve()}")


def _show_text(terminal: Terminal, text: "SteeredText") -> None:
    console = terminal.console
    console.print(f"\n[bold]Prompt:[/bold] {escaped(text.prompt)}")
    columns = {name: own for name, own in (("Plain", text.plain), ("Steered", text.steered))}
    if not console.is_terminal or console.width < MIN_TABLE_WIDTH:
        for name, own in columns.items():
            console.print(f"[bold]{name}, {_perplexity(own)}:[/bold] {_shown(own)}")
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, expand=True)
    for name, own in columns.items():
        table.add_column(f"{name}, {_perplexity(own)}", ratio=1, overflow="fold")
    table.add_row(*map(_shown, columns.values()))
    console.print(table, soft_wrap=False)


def _shown(own: "Continuation") -> str:
    return escaped(own.text) if own.text else f"[dim]{EMPTY}[/dim]"


def _perplexity(own: "Continuation") -> str:
    return "perplexity -" if own.perplexity is None else f"perplexity {own.perplexity:.3g}"
