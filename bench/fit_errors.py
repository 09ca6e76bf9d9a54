"""Error rates of the fit check: a fixed grid of faults and of right SAEs, on the embedded model.

    python bench/fit_errors.py [--small DIR] [--output fit_errors.json]

DIR keeps the small SAEs of other sites than the block output, which take some minutes to train. Prints how many wrong
SAEs are refused, how many of them with the right reason, and how many right ones are refused; and by how much FVU and
L0 move in models whose weights were perturbed.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tyro
from fit_grid import (
    NO_FAULTS,
    WEIGHT_FAULTS,
    Case,
    Verdict,
    WeightFault,
    cut,
    judged,
    moved,
    read,
    refused_when_read,
)
from fit_writers import WRITERS, Weights
from small_saes import activations, passage_batches, write_small_saes
from torch import nn

from stratalens.config.validation import make_config
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter, find_model, load_model
from stratalens.models.batches import TokenBatch
from stratalens.models.embedded import SAE_DIRECTORY, dense_copy
from stratalens.models.families import decoder_of, number_of_blocks
from stratalens.models.loading import Placement
from stratalens.models.source import ModelSource, load_tokenizer
from stratalens.saes.formats.sparsify import describe
from stratalens.saes.sae import Checkpoint

LAYERS = (4, 10, 16, 22, 28)
SMALL_BLOCK = 10
SMALL_SITES = (
    *("resid_in", "attn", "mlp", "attn_heads", "attn_norm", "mlp_norm", "attn_norm_no_gain", "mlp_norm_no_gain"),
)
OFFSETS = (-1, 1, -3, 3)
PERTURBED = (0.01, 0.03, 0.1)
"""Deviation of the change of each weight, as a share of the deviation of its tensor."""


@dataclass(frozen=True)
class Options:
    small: Path | None = None
    """Directory where small SAEs are kept; None trains them anew."""
    output: Path | None = None
    """File for all verdicts."""
    passages: int = 24
    formats: tuple[str, ...] = field(default_factory=lambda: tuple(WRITERS))
    """Formats in which the SAE of every layer is written."""


def loaded(source: ModelSource) -> nn.Module:
    placement = Placement(torch.device("cpu"), torch.bfloat16)
    return load_model(source.location, blocks=None, placement=placement)


def changed(model: nn.Module, share: float, seed: int = 0) -> None:
    """Move every weight of the blocks by a share of the deviation of its tensor; with a share of 1 redraw it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in decoder_of(model).named_parameters():
            if name.startswith("layers."):
                drawn = torch.randn(weight.shape, generator=generator) * weight.float().std()
                new = drawn + weight.float().mean() if share == 1 else weight.float() + share * drawn
                weight.copy_(new.to(weight.dtype))


def file_cases(
    source: ModelSource,
    weights: Mapping[int, Weights],
    root: Path,
    kind: str,
    faults: Mapping[str, WeightFault] = WEIGHT_FAULTS,
) -> Iterator[Verdict | Case]:
    """Yield right SAEs in the files of a format, those with each of some faults of weights, and truncated ones."""
    write, folders = WRITERS[kind], (root / f"{kind} {number}" for number in count())
    for block, own in weights.items():
        (file,) = read(write(own, block, next(folders)), source).values()
        yield Case("right", kind, file, "")
        for name, fault in faults.items():
            if (kind, name) not in NO_FAULTS:
                written = write(fault.make(own), block, next(folders))
                yield refused_when_read(name, kind, written, source, fault.reason)
        written = write(own, block, next(folders))
        cut(written)
        yield refused_when_read("truncated", kind, written, source, r"truncated|corrupt|damaged|cannot be read")


def layer_cases(right: list[Case], blocks: int) -> Iterator[Case]:
    """Yield right SAEs used in other blocks."""
    for case in right:
        own = case.file.hookpoint.block
        for offset in OFFSETS:
            if 0 <= own + offset < blocks:
                near = f"layers.{own} clearly better"
                side = "below|input of block" if offset > 0 else "above"
                reason = near if abs(offset) == 1 else f"{near}|{side}|another model, layer"
                yield replace_fault(moved(case, Hookpoint(own + offset), reason), f"layer off by {abs(offset)}")


def site_cases(small: dict[Hookpoint, Path], shipped: Case) -> Iterator[Case]:
    """Yield small SAEs at their own sites, and each at every other site of its block."""
    files = {shipped.file.hookpoint: shipped.file}
    for place, folder in small.items():
        files[place] = describe(Checkpoint(folder, place, place, folder.name))
    for place, file in files.items():
        own = Case("right", "sparsify", file, "")
        if place != shipped.file.hookpoint:
            yield own
        for other in files:
            if other != place:
                yield replace_fault(moved(own, other, SITE_WORDS[place.site_name]), "wrong tensor")


SITE_WORDS = {
    "resid": r"these latents fit the output of block 10",
    "resid_in": r"these latents fit the input of block 10|fit the output of block 9",
    "attn": r"these latents fit attention's output in",
    "mlp": r"these latents fit the MLP's output in",
    "attn_heads": r"these latents fit the heads' outputs in",
    "attn_norm": r"these latents fit attention's normalised input in block 10,? after",
    "mlp_norm": r"these latents fit the MLP's normalised input in block 10,? after",
    "attn_norm_no_gain": r"these latents fit attention's normalised input in block 10,? before",
    "mlp_norm_no_gain": r"these latents fit the MLP's normalised input in block 10,? before",
}
"""Site -> expression for the right reason."""


def replace_fault(case: Case, fault: str) -> Case:
    return Case(fault, case.format, case.file, case.reason)


def table(verdicts: list[Verdict], *, by_format: bool = False) -> list[str]:
    """Lines of a table in Markdown: each fault, how many were refused, and how many with the right reason.

    Args:
        verdicts: of the grid.
        by_format: have a line for each format instead, of right SAEs and of all faults together.
    """

    def group(verdict: Verdict) -> str:
        kind = "right" if verdict.fault.startswith("right") else "wrong"
        return f"{kind}, {verdict.format}" if by_format else verdict.fault

    lines = [f"| {'SAEs in the files of' if by_format else 'fault'} | SAEs | refused | with the right reason |"]
    lines.append("|---|---|---|---|")
    for fault in dict.fromkeys(map(group, verdicts)):
        own = [verdict for verdict in verdicts if group(verdict) == fault]
        refused = [verdict for verdict in own if verdict.problem]
        right = sum(verdict.is_right_reason for verdict in refused)
        lines.append(f"| {fault} | {len(own)} | {len(refused)} | {'-' if fault.startswith('right') else right} |")
    return lines


def run(
    options: Options,
    source: ModelSource,
    model: nn.Module,
    cutter: PassageCutter,
    batches: list[TokenBatch],
    root: Path,
) -> list[Verdict]:
    """Judge the whole grid."""
    other_texts = passage_batches(cutter, held_out=False, passages=options.passages)
    vectors = activations(model, other_texts, list(map(Hookpoint, LAYERS)))
    weights = {block: Weights.read(SAE_DIRECTORY / f"layers.{block}", vectors[Hookpoint(block)]) for block in LAYERS}
    found = [case for kind in options.formats for case in file_cases(source, weights, root, kind)]
    cases = [case for case in found if isinstance(case, Case)]
    right = [case for case in cases if case.fault == "right" and case.format == options.formats[0]]
    small = small_saes(options, model, cutter, root)
    shipped = next(case for case in right if case.file.hookpoint.block == SMALL_BLOCK)
    cases += [*layer_cases(right, number_of_blocks(model)), *site_cases(small, shipped)]
    verdicts = [verdict for verdict in found if isinstance(verdict, Verdict)]
    verdicts += progress(judged(model, cases, batches), len(cases))
    before = {own.place: own for own in verdicts if own.fault == "right" and own.format == options.formats[0]}
    for share in PERTURBED:
        other = loaded(source)
        changed(other, share)
        tuned = [replace_fault(case, f"right, weights moved by {share:.0%}") for case in right]
        verdicts += list(judged(other, tuned, batches))
        for own in verdicts[-len(tuned) :]:
            print(
                f"weights moved by {share:.0%}, layer {own.place}: {describe_move(before[own.place], own)}", flush=True
            )
    redrawn = loaded(source)
    changed(redrawn, 1)
    wrong = [Case("wrong model", case.format, case.file, r"another model") for case in right]
    return [*verdicts, *judged(redrawn, wrong, batches)]


def describe_move(before: Verdict, after: Verdict) -> str:
    """By how much FVU, share of error in the mean and L0 moved."""
    assert before.fit is not None
    assert after.fit is not None
    one, two = before.fit.own, after.fit.own
    return (
        f"FVU {one.fvu:.3f} to {two.fvu:.3f}, error in the mean {one.mean_error_share:.4f} to "
        f"{two.mean_error_share:.4f}, L0 {one.l0:.1f} to {two.l0:.1f}"
    )


def small_saes(options: Options, model: nn.Module, cutter: PassageCutter, root: Path) -> dict[Hookpoint, Path]:
    """Train the small SAEs, or find those that were kept."""
    places = [Hookpoint.at(SMALL_BLOCK, site) for site in SMALL_SITES]
    folder = options.small or root / "small"
    missing = [place for place in places if not (folder / f"at_{place}").exists()]
    if missing:
        with torch.inference_mode(False), torch.enable_grad():
            write_small_saes(model, cutter, missing, folder)
    return {place: folder / f"at_{place}" for place in places}


def progress(verdicts: Iterator[Verdict], number: int) -> Iterator[Verdict]:
    for judged_so_far, verdict in enumerate(verdicts, 1):
        if judged_so_far % 20 == 0:
            print(f"{judged_so_far} of {number}", file=sys.stderr, flush=True)
        yield verdict


def main(options: Options) -> None:
    torch.set_num_threads(1)
    source = find_model(make_config(base_model=str(dense_copy().directory), sae_model=str(SAE_DIRECTORY)))
    model, cutter = loaded(source), PassageCutter(load_tokenizer(source), 128)
    batches = passage_batches(cutter, held_out=True, passages=options.passages)
    started = time.perf_counter()
    with TemporaryDirectory() as scratch, torch.inference_mode():
        verdicts = run(options, source, model, cutter, batches, Path(scratch))
    print("\n".join(table(verdicts)))
    wrong = [verdict for verdict in verdicts if not verdict.fault.startswith("right")]
    right = [verdict for verdict in verdicts if verdict.fault.startswith("right")]
    refused = [verdict for verdict in wrong if verdict.problem]
    print(
        f"\n{len(refused)} of {len(wrong)} wrong SAEs refused, {sum(own.is_right_reason for own in refused)} with the "
        f"right reason; {sum(bool(own.problem) for own in right)} of {len(right)} right ones refused; "
        f"{time.perf_counter() - started:.0f} s"
    )
    for verdict in verdicts:
        is_missed = not verdict.problem and not verdict.fault.startswith("right")
        if is_missed or (verdict.problem and not verdict.is_right_reason):
            print(f"{verdict.fault}, {verdict.format} {verdict.place}: {verdict.problem or 'taken'}")
    print("\n".join(table(verdicts, by_format=True)))
    if options.output is not None:
        rows = [{**asdict(own), "fit": None if own.fit is None else asdict(own.fit.own)} for own in verdicts]
        options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
