"""Print everything that is known about one feature of a result."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stratalens.cli.terminal import FILE_WIDTH, escaped
from stratalens.errors import counted, printable
from stratalens.files.damaged import damaged
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import FIGURES, PAGE, without_parts
from stratalens.ranking.by_part import TextParts
from stratalens.report import load_result
from stratalens.report.effect_sentences import PROVES, effect_lines
from stratalens.report.evidence_file import EVIDENCE_FILE, StoredEvidence, StoredExample, read_evidence_file
from stratalens.report.latent_attribution import latent_attribution
from stratalens.report.page.wording import FLAG_MEANINGS, KINDS
from stratalens.report.saved import Result, require_feature
from stratalens.report.token_test_sentences import NOT_TESTED, token_test_lines
from stratalens.validation.claims import CLAIMS
from stratalens.validation.token_verdicts import token_test_of
from stratalens.validation.transfer import scores_of

STRONG_SHARE = 0.5
"""Tokens with at least this share of the passage's highest activation are marked."""
PURITY = {
    "top_n_probability": "Selected again if documents are redrawn",
    "lexicon_share_input": "Share of activation on lexicon terms",
    "lexicon_share_output": "Share of activation just before them",
    "seed_match": "Best cosine in an SAE of another seed",
    "attribution": "Loss without it by attribution, nats",
}
"""Column that may be empty -> as it is shown."""
TOKENS_AROUND_PEAK = 40
"""Tokens that are shown on either side of the strongest one."""


def show(directory: Path, hookpoint: Hookpoint, feature: int) -> None:
    """Print statistics, label, evidence and examples of one feature.

    Args:
        directory: the `output_dir` of a run.
        hookpoint: of the SAE.
        feature: its number, the index of the latent in the SAE.

    Raises:
        ConfigError: there is no such result, layer or feature.
    """
    saved = load_result(directory)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    require_feature(saved, hookpoint, feature)
    latents = saved.findings.latents
    top = saved.findings.top[hookpoint]
    reported = top[top["feature_number"] == feature]
    domain = saved.config.domain
    if len(reported):
        row = reported.iloc[0].to_dict()
        console.print(f"[bold]Feature {feature} of layer {hookpoint}: {escaped(str(row['label']))}[/bold]")
        console.print(f"Rank {row['rank']} of {counted(len(top), f'reported {domain} feature')} of the layer")
        _print_label(console, row)
    else:
        row = latents[hookpoint].iloc[feature].to_dict()
        row["attribution"] = latent_attribution(saved, hookpoint, feature)
        console.print(f"[bold]Feature {feature} of layer {hookpoint}[/bold], not among the {len(top)} reported ones")
        _print_unreported(console, row, domain)
    parts = saved.tables.parts[hookpoint].get(feature, TextParts([], []))
    _print_statistics(console, row, parts, domain)
    if len(reported):
        _print_claims(console, saved, hookpoint, feature)
        _print_untested(console, saved, row)
        _print_token_test(console, saved, row)
        _print_effects(console, saved, hookpoint, feature)
        _print_evidence(console, saved, _stored_evidence(saved, hookpoint, feature))
    else:
        from stratalens.commands.latent import latent_report  # it needs libraries that a reported feature does not

        report = latent_report(saved, hookpoint, feature)
        if report is not None:
            console.print(f"Label from the evidence that was kept of it: {escaped(report.label.label)}")
            _print_evidence(console, saved, StoredEvidence.of(report, domain))


def _print_claims(console: Console, saved: Result, hookpoint: Hookpoint, feature: int) -> None:
    """Say of each test what passing it means, and whether the feature passed it."""
    table = saved.tables.features[hookpoint]
    at = table["feature_number"].tolist().index(feature)
    verdicts = saved.tables.verdicts[hookpoint]
    for claim in CLAIMS:
        passed = verdicts[claim.column].tolist()[at]
        verdict = f"not tested ({claim.untested})" if pd.isna(passed) else "passed" if passed else "failed"
        console.print(f"Test {claim.title}, {claim.says}: {escaped(verdict)}")


def _print_unreported(console: Console, row: dict[str, Any], domain: str) -> None:
    if (rank := _number(row.get("opposed_rank"))) != "-":
        test = {True: "confirmed", False: "not confirmed"}.get(row["opposed_confirmed"], "none held out to confirm it")
        console.print(f"It fires less on {domain} text: rank {rank} of those that do, {test}")
    console.print("Report it with: stratalens label RESULT_DIR --features FILE, the file holding its layer and number")


def _print_untested(console: Console, saved: Result, row: dict[str, Any]) -> None:
    """Name the validations of the result that have not tested this feature: it was reported after them."""
    tested = {score.name for score in scores_of(str(row.get("validations", "[]")))}
    for name in (validation.name for validation in saved.record.validations if validation.name not in tested):
        console.print(f"Not validated on {name}: the feature was reported later; validate with the same texts and name")


def _print_token_test(console: Console, saved: Result, row: dict[str, Any]) -> None:
    """Print how the feature does in the token test, if the result has one."""
    score = token_test_of(str(row.get("token_test_scores", "null")))
    if score is None and saved.record.token_test is not None:
        console.print(NOT_TESTED)
    for line in [] if score is None else token_test_lines(score):
        console.print(escaped(line))


def _print_effects(console: Console, saved: Result, hookpoint: Hookpoint, feature: int) -> None:
    """Print what the model loses without the feature, if the result has effects, and what that does not prove."""
    entries = saved.tables.effects[hookpoint].get(feature, [])
    for line in effect_lines(entries, saved.record.effects, saved.config.domain):
        console.print(escaped(line))
    if saved.record.effects:
        console.print(PROVES)


def _number(value: Any, digits: int = 4) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}g}"


def _print_label(console: Console, row: dict[str, Any]) -> None:
    console.print(f"Label by {escaped(str(row['label_source']))}", end="")
    if pd.notna(row["detection_auroc"]):
        judge = escaped(str(row["label_judge"]))
        console.print(
            f"; detection AUROC {_number(row['detection_auroc'], 3)} "
            f"({_number(row['detection_low'], 3)} to {_number(row['detection_high'], 3)}) "
            f"on {row['detection_examples']} passages it was not made from, judged by {judge}; "
            f"with another feature's label {_number(row['control_auroc'], 3)}",
            end="",
        )
    if pd.notna(row["fuzzing_auroc"]):
        console.print(f"; fuzzing AUROC {_number(row['fuzzing_auroc'], 3)}", end="")
    console.print(f"; {escaped(str(row['label_note']))}" if pd.notna(row["label_note"]) else "")


def _print_statistics(console: Console, row: dict[str, Any], parts: TextParts, domain: str) -> None:
    table = Table(box=SIMPLE_HEAD)
    for name in ("Statistic", "Value", "95% interval"):
        table.add_column(name, justify="left" if name == "Statistic" else "right")

    def interval(name: str) -> str:
        return f"{_number(row[f'{name}_low'])} to {_number(row[f'{name}_high'])}"

    table.add_row(f"Activation on {domain} text", _number(row["domain_activation"]), "")
    table.add_row("Activation on general text", _number(row["general_activation"]), "")
    table.add_row("Specialization", _number(row["specialization"]), interval("specialization"))
    share, low, high = (100 * row[f"normalised_{name}"] for name in ("specialization", "low", "high"))
    table.add_row("Specialization, % of norm", _number(share), f"{_number(low)} to {_number(high)}")
    table.add_row("AUROC of documents", _number(row["auroc"]), interval("auroc"))
    for word, own in (("within", parts.kinds), ("source", parts.sources)):
        for part in own:
            auroc, limits = _number(part.auroc), f"{_number(part.low)} to {_number(part.high)}"
            table.add_row(f"  {word} {escaped(part.name)}", auroc, limits)
    if isinstance(rank := row.get("transfer_rank"), int):
        table.add_row("Transfer rank among live latents", str(rank), "")
    table.add_row("Hedges g", _number(row["hedges_g"]), "")
    table.add_row(f"Domain share ({domain})", _number(row["domain_share"]), "")
    table.add_row("p-value, q-value", f"{_number(row['p_value'], 2)}, {_number(row['q_value'], 2)}", "")
    table.add_row(f"Share of {domain} tokens fired on", _number(row["domain_density"]), "")
    table.add_row("Share of general tokens fired on", _number(row["general_density"]), "")
    for name, title in PURITY.items():
        if (shown := _number(row.get(name), 3)) != "-":
            table.add_row(title, shown, "")
    for score in scores_of(str(row.get("validations", "[]"))):
        verdict = "transfers" if score.transfers else "does not transfer"
        interval_there = f"{_number(score.auroc_low)} to {_number(score.auroc_high)}"
        table.add_row(f"AUROC on {score.name}: {verdict}", _number(score.auroc), interval_there)
        table.add_row(f"  q-value on {score.name}", _number(score.q_value, 2), "")
    console.print(table)
    for flag in filter(None, str(row["flags"]).split("; ")):
        console.print(f"Flag {flag}: {FLAG_MEANINGS.get(flag, flag)}")


def _stored_evidence(saved: Result, hookpoint: Hookpoint, feature: int) -> StoredEvidence:
    path = saved.output_dir / f"layer_{hookpoint}" / EVIDENCE_FILE
    stored = read_evidence_file(path).get(feature)
    if stored is None:
        raise damaged(path, f"no evidence on feature {feature}")
    return stored


def _print_evidence(console: Console, saved: Result, stored: StoredEvidence) -> None:
    shares = ", ".join(f"{token.token} {100 * token.share:.0f}%" for token in stored.top_tokens)
    console.print(f"Tokens with most activation: {escaped(shares)}")
    concepts = ", ".join(f"{entry.concept} {entry.preference:.2f}" for entry in stored.concepts)
    phrases = ", ".join(f"{entry.phrase} {entry.preference:.2f}" for entry in stored.phrases)
    for title, listed in (("Concepts", concepts), ("Phrases", phrases)):
        console.print(f"{title} it prefers (lower bound of AUROC by sentence): {escaped(listed or '-')}")
    for title, tokens in (("Promotes", stored.promoted), ("Suppresses", stored.suppressed)):
        if tokens:
            console.print(f"{title} next: {escaped(', '.join(repr(token.token) for token in tokens))}")
    for part, reason in without_parts(saved.record.missing_parts, FIGURES, PAGE).items():
        console.print(f"Left out of this result: {escaped(f'{part} ({reason})')}")
    for kind, title in KINDS.items():
        examples = [example for example in stored.examples if example.kind == kind]
        if examples:
            console.print(f"\n[bold]{title}[/bold]")
        for example in examples:
            _print_example(console, example)


def _print_example(console: Console, example: StoredExample) -> None:
    console.print(f"[dim]{example.activation:.2f} {escaped(example.side)}, {escaped(example.half)}[/dim] ", end="")
    in_colour = console.is_terminal and console.color_system is not None
    console.print(_highlighted(example.tokens, example.activations, in_colour=in_colour))


def _highlighted(tokens: list[str], activations: list[float], *, in_colour: bool) -> Text:
    """Cut out the tokens around the strongest one; strong tokens are coloured, without colour in double brackets."""
    highest = max(activations, default=0)
    peak = activations.index(highest) if activations else 0
    text = Text()
    for token, value in list(zip(tokens, activations, strict=True))[
        max(0, peak - TOKENS_AROUND_PEAK) : peak + TOKENS_AROUND_PEAK
    ]:
        token = printable(token.replace("\n", " "))
        if highest > 0 and value >= STRONG_SHARE * highest:
            space = token[: len(token) - len(token.lstrip())]
            mark = token.lstrip() if in_colour else f"[[{token.lstrip()}]]"
            text.append(space).append(mark, style="bold black on green" if value == highest else "bold green")
        else:
            text.append(token)
    return text
