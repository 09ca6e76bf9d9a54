"""Output on the terminal: messages, progress bars with the time left, and compact tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from textwrap import shorten
from typing import NamedTuple

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stratalens.commands.domains import DomainFindings
from stratalens.errors import printable
from stratalens.files.redaction import as_printed
from stratalens.progress import Advance
from stratalens.report.control_sentences import controls_line
from stratalens.report.effect_sentences import effects_line
from stratalens.report.page.wording import TRANSFER_NOTE
from stratalens.report.saved import Result
from stratalens.report.tables import places
from stratalens.validation.claims import counts_sentence

MAX_FEATURES_SHOWN = 10
FILE_WIDTH = 150
"""Width, in characters, of tables that are written to a file or a pipe."""
NUMBERS_WIDTH = 106
"""Width, in characters, of the columns before the label."""
TEST_WIDTH = 16
"""Width, in characters, of the column of each test besides confirmation."""
MIN_LABEL_WIDTH = 12


class ShownTest(NamedTuple):
    """A test of features, as the tables show it."""

    title: str
    column: str
    """Of the table of features."""
    passed: str
    """Column of the layer comparison: how many features passed."""


SHOWN_TESTS = (
    ShownTest("Confirmed", "confirmed", "confirmed_features"),
    ShownTest("Transfers", "transfers", "transferring_features"),
    ShownTest("Context", "token_test", "features_in_context"),
    ShownTest("Causal", "causal", "causal_features"),
)


def escaped(text: str) -> str:
    """Escape rich's markup and control characters in a text, so that the terminal shows it as it is."""
    return escape(printable(text))


class Terminal:
    """Prints the messages of a run; warnings and progress bars go to standard error.

    Args:
        quiet: print nothing but where text is sent.
    """

    def __init__(self, quiet: bool = False):
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = FILE_WIDTH
        self.errors = Console(quiet=quiet, highlight=False, stderr=True, soft_wrap=True)
        self._never_quiet = Console(highlight=False, stderr=True, soft_wrap=True)

    def say(self, message: str) -> None:
        """Print one line."""
        self.console.print(escaped(as_printed(message)))

    def warn(self, message: str) -> None:
        """Print one line that starts with `Note:`."""
        self.errors.print(_note(message))

    def disclose(self, message: str) -> None:
        """Print one line that starts with `Note:`, whether quiet or not."""
        self._never_quiet.print(_note(message))

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        """Show a progress bar with rows done, tokens per second and time left."""
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.errors,
            transient=rows is None,
            disable=not self.errors.is_terminal,
        )
        with bar:
            task = bar.add_task(title, total=rows, speed="")
            tokens = 0

            def advance(rows_done: int, tokens_done: int) -> None:
                nonlocal tokens
                tokens += tokens_done
                elapsed = bar.tasks[task].elapsed or 0
                speed = f"{tokens / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
                bar.update(task, advance=rows_done, speed=speed)

            yield advance

    def stage(self, name: str) -> None:
        """Print nothing: the progress bars name the stages that take long."""

    def show_result(self, result: Result) -> None:
        """Print the layer table, the top features, where the results are and a command to run next."""
        self.console.print(_layer_table(result))
        numbers = NUMBERS_WIDTH + TEST_WIDTH * (len(_tested(result)) - 1)
        self.console.print(_feature_table(result, max(MIN_LABEL_WIDTH, self.console.width - numbers)))
        if "transfer_rank" in result.top_features:
            self.say(f"Tr.: {TRANSFER_NOTE}")
        self.say(f"Tests passed: {counts_sentence(result.tables.claims)}")
        for validation in result.record.validations:
            self.say(f"Validation {validation.describe()}")
        if result.record.token_test is not None:
            self.say(f"Token test: {result.record.token_test.describe()}")
        for effect in result.record.effects:
            self.say(f"Effects: {effects_line(effect, places(result.layers), result.tables.domain)}")
        if result.record.controls is not None:
            self.say(controls_line(result.record.controls, places(result.layers)))
        self.say(f"Results: {result.output_dir.resolve()}")
        best = result.top_features.head(1)
        for place, number in zip(places(best), best["feature_number"], strict=True):
            self.say(f"Next: stratalens show {quote(str(result.output_dir))} {place} {number}")

    def show_domains(self, domains: Sequence[DomainFindings]) -> None:
        """Print what is known about some domains, and what is wrong with them."""
        table = Table(title="Domains", title_justify="left", box=SIMPLE_HEAD)
        for name in ("Domain", "Documents", "General", "Kinds", "Concepts", "Told apart by form"):
            table.add_column(name, justify="left" if name == "Domain" else "right", no_wrap=True)
        for own in domains:
            form = "-" if own.form_auroc is None else f"AUROC {own.form_auroc:.2f}"
            counts = (*own.documents, len(own.kinds) or "-", own.concepts or "-")
            table.add_row(escaped(own.name), *map(str, counts), form)
        self.console.print(table)
        for own in domains:
            self.say(f"{own.name}: {own.description or 'no description'} ({own.folder})")
            if own.kinds:
                self.say(f"  compared within kinds: {', '.join(own.kinds)}")
            self.say(f"  sentence pairs in which a word has another sense: {own.sense_pairs or 'none'}")
            for warning in own.warnings:
                self.warn(f"{own.name}: {warning}")

    def show_timings(self, result: Result) -> None:
        """Print how long each stage of the run took, and the peak of its memory."""
        seconds = result.record.seconds
        stages = ", ".join(f"{stage} {took:.1f}" for stage, took in seconds.items())
        peak = result.record.peak_memory_bytes / 1e9
        self.say(f"Took {sum(seconds.values()):.1f} s ({stages}); peak memory {peak:.2f} GB")


def _note(message: str) -> str:
    return f"[yellow]Note:[/yellow] {escaped(as_printed(message))}"


def _layer_table(result: Result) -> Table:
    table = Table(title="Layers, best first", title_justify="left", box=SIMPLE_HEAD)
    tested = _tested(result)
    titles = [test.title for test in tested]
    for name in ("Layer", "Avg spec.", "Max spec.", "% of norm", "AUROC", *titles, "Top feature"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in zip(places(result.layers), result.layers.to_dict("records"), strict=True):
        table.add_row(
            place,
            f"{row['avg_specialization']:.3f}",
            f"{row['max_specialization']:.3f}",
            f"{100 * row['avg_normalised_specialization']:.2f}",
            f"{row['avg_auroc']:.3f}",
            *(_share_passed(row[test.passed], row["total_features"]) for test in tested),
            str(row["top_feature"]),
        )
    return table


def _tested(result: Result) -> list[ShownTest]:
    """The tests that features were put to; confirmation always, because it may lack documents."""
    tested = {own.claim.column for own in result.tables.claims if own.tested} | {"confirmed"}
    return [test for test in SHOWN_TESTS if test.column in tested]


def _feature_table(result: Result, label_width: int) -> Table:
    domain = result.tables.domain
    title = f"Top {domain} features across layers (Det.: AUROC of the label on text it was not made from)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    tested = _tested(result)
    titles = [test.title for test in tested]
    for name in ("#", "Layer", "Feature", "Spec.", "95% interval", "% of norm", "AUROC", "Tr.", *titles, "Det."):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Label", no_wrap=True)
    shown = result.top_features.head(MAX_FEATURES_SHOWN)
    for position, (place, row) in enumerate(zip(places(shown), shown.to_dict("records"), strict=True), 1):
        table.add_row(
            str(position),
            place,
            str(row["feature_number"]),
            f"{row['specialization']:.3f}",
            f"{row['specialization_low']:.2f} to {row['specialization_high']:.2f}",
            f"{100 * row['normalised_specialization']:.2f}",
            f"{row['auroc']:.3f}",
            _rank(row.get("transfer_rank")),
            *(_verdict(row[test.column]) for test in tested),
            "-" if pd.isna(row["detection_auroc"]) else f"{row['detection_auroc']:.2f}",
            escaped(shorten(str(row["label"]), label_width, placeholder=" …")),
        )
    return table


def _share_passed(passed: float | None, features: int) -> str:
    return "-" if passed is None or pd.isna(passed) else f"{passed:.0f}/{features}"


def _verdict(value: object) -> str:
    """The cell of a test: `yes`, `no`, its words, or a dash where it was not made."""
    if value is True or value is False:
        return "yes" if value else "no"
    return value if isinstance(value, str) else "-"


def _rank(value: object) -> str:
    """A rank, or a dash where a result of an earlier version has none."""
    return str(value) if isinstance(value, int) else "-"
