"""The command `check`: run it, and print what was measured."""

import sys

from rich.box import SIMPLE_HEAD
from rich.table import Table

from stratalens.cli.arguments import parse
from stratalens.cli.error_line import error_line
from stratalens.cli.terminal import Terminal, escaped
from stratalens.cli.usage import EXAMPLES
from stratalens.commands.check import Checked, CheckedSae, check
from stratalens.commands.check_file import prepare_check_file, write_check_file
from stratalens.config.check_options import CheckConfig
from stratalens.errors import MismatchError, counted
from stratalens.files.locations import user_path
from stratalens.saes.fit_check import FitCheck
from stratalens.saes.fit_numbers import DENSE_SHARE, HookpointFit

EXIT_MISFIT = 1
MAX_SHOWN_FVU = 100.0
LABEL_WIDTH = 18


def run_check(words: list[str], terminal: Terminal | None = None) -> int:
    """Run `check` with its options; return 0 if all SAEs fit, and 1 if one does not."""
    from stratalens.cli.library_logs import show_library_logs

    config = parse(words, "stratalens check", CheckConfig, EXAMPLES["check"])
    terminal = terminal or Terminal(config.quiet)
    show_library_logs(terminal)
    path = None if config.output_dir is None else prepare_check_file(user_path(config.output_dir))
    try:
        checked = check(config, terminal)
    except MismatchError as error:  # their shapes alone do not agree, so that there is nothing to measure
        print(error_line(str(error), words), file=sys.stderr)
        return EXIT_MISFIT
    show_checked(terminal, checked)
    if path is not None:
        write_check_file(checked, path)
    terminal.say(f"All numbers: {path.resolve()}" if path else "All numbers: add --output_dir DIR for DIR/check.json")
    return EXIT_MISFIT if checked.misfits else 0


def show_checked(terminal: Terminal, checked: Checked) -> None:
    """Print the table of each SAE, one of all of them, and the verdict."""
    dtype = str(checked.dtype).removeprefix("torch.")
    blocks = counted(checked.source.num_layers, "block")
    terminal.say(f"Model: {checked.source.name}, {blocks}, {dtype} on {checked.device}")
    passages, tokens = len(checked.text.sequences), checked.text.tokens
    terminal.say(f"Text: {checked.text.source}: {counted(passages, 'passage')}, {counted(tokens, 'token')}")
    for own in checked.saes.values():
        _show_sae(terminal, own, "" if checked.reference is None else checked.reference.name)
    if len(checked.saes) > 1:
        terminal.console.print(_overview(checked))
    number = counted(len(checked.saes), "SAE")
    if not checked.misfits:
        terminal.console.print(f"[bold green]{'It fits' if len(checked.saes) == 1 else f'All {number} fit'}.[/]")
        return
    terminal.console.print(f"[bold red]{len(checked.misfits)} of {number} {_does(len(checked.misfits))} not fit:[/]")
    for own in checked.misfits:
        terminal.say(f"{own.fit.own.hookpoint}: {own.fit.problem}")


def _does(number: int) -> str:
    return "does" if number == 1 else "do"


def _show_sae(terminal: Terminal, own: CheckedSae, reference: str) -> None:
    verdict = "[bold red]does not fit[/]" if own.fit.problem else "[bold green]fits[/]"
    kind = own.file.activation if own.file.k is None else f"{own.file.activation} {own.file.k}"
    latents = counted(own.file.num_latents, "latent")
    terminal.console.print(f"\n[bold]{escaped(own.file.module)}[/] {verdict}")
    terminal.say(f"  {kind} of {latents}, {own.fit.own.place}")
    for label, text in _facts(own, reference):
        terminal.say(f"  {label:<{LABEL_WIDTH}} {text}")
    terminal.console.print(_candidates(own.fit))


def _facts(own: CheckedSae, reference: str) -> list[tuple[str, str]]:
    fit, use, loss = own.fit.own, own.fit.use, own.loss.loss
    assert use is not None
    declared = "" if own.fit.declared_l0 is None else f", {own.fit.declared_l0:g} declared"
    norms = f"{use.median_decoder_norm:.3g} ({use.smallest_decoder_norm:.3g} to {use.largest_decoder_norm:.3g})"
    facts = [
        ("FVU", f"{_fvu(fit)}, explained variance {fit.explained_variance:.3f}"),
        ("L0", f"{fit.l0:.1f}{declared}"),
        ("Dead latents", f"{100 * use.dead_share:.1f}% fire on none of {counted(fit.tokens, 'token')}"),
        ("Dense latents", f"{100 * use.dense_share:.1f}% fire on more than {100 * DENSE_SHARE:.0f}% of them"),
        ("Decoder norms", norms),
    ]
    if loss is None:
        facts.append(("Loss recovered", f"not measured: {own.loss.left_out}"))
    else:
        shares = ", ".join(
            f"{kind} ablation loses nothing" if share is None else f"{_share(share)} of {kind} ablation"
            for kind, share in (("zero", loss.recovered_of_zero), ("mean", loss.recovered_of_mean))
        )
        nats = f"{loss.plain:.2f} plain, {loss.splice:.2f} with the SAE, {loss.zero:.2f} zero, {loss.mean:.2f} mean"
        facts.append(("Loss recovered", f"{shares} (nats: {nats}; {counted(loss.tokens, 'token')})"))
    if own.reference is not None:
        facts.append(("Moved", f"{_moved(fit, own.reference)} from {reference}"))
    return facts


def _moved(fit: HookpointFit, before: HookpointFit) -> str:
    fvu, l0 = fit.fvu - before.fvu, fit.l0 - before.l0
    return f"FVU by {fvu:+.3f} ({before.fvu:.3f} to {fit.fvu:.3f}), L0 by {l0:+.1f} ({before.l0:.1f} to {fit.l0:.1f})"


def _candidates(fit: FitCheck) -> Table:
    """The places where the SAE was tried, the best first."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("  Tried at", no_wrap=True)
    for name in ("FVU", "Mean error", "L0"):
        table.add_column(name, justify="right", no_wrap=True)
    for tried in sorted(fit.candidates, key=lambda own: own.fvu):
        is_own = tried is fit.own
        cells = (_fvu(tried), f"{tried.mean_error_share:.4f}", f"{tried.l0:.1f}")
        mark = "> " if is_own else "  "
        table.add_row(f"{mark}{escaped(tried.place)}", *cells, style="bold" if is_own else "")
    return table


def _overview(checked: Checked) -> Table:
    table = Table(title="All SAEs", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("Hookpoint", no_wrap=True)
    for name in ("FVU", "Expl. var.", "L0", "Declared", "Dead", "Dense", "Loss rec.", "of mean"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    for own in checked.saes.values():
        fit, use, loss = own.fit.own, own.fit.use, own.loss.loss
        assert use is not None
        table.add_row(
            escaped(own.file.module),
            _fvu(fit),
            f"{fit.explained_variance:.3f}",
            f"{fit.l0:.1f}",
            "-" if own.fit.declared_l0 is None else f"{own.fit.declared_l0:g}",
            f"{100 * use.dead_share:.1f}%",
            f"{100 * use.dense_share:.1f}%",
            _share(None if loss is None else loss.recovered_of_zero),
            _share(None if loss is None else loss.recovered_of_mean),
            "[red]does not fit[/]" if own.fit.problem else "[green]fits[/]",
        )
    return table


def _fvu(fit: HookpointFit) -> str:
    return f"{fit.fvu:.3f}" if fit.fvu < MAX_SHOWN_FVU else f"{fit.fvu:.0f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
