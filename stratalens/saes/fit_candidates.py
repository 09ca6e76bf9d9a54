"""Where an SAE may have been trained instead: its site in the neighbouring blocks, other sites of its own block."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from stratalens.hookpoint import SITE_NAMES, Hookpoint
from stratalens.models.families import has_hookpoint, locate
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

BLOCK_PLACES = {"resid": "the output", "resid_in": "the input"}
MODULES = {"attn": "attention", "mlp": "the MLP"}


@dataclass(frozen=True, eq=False)
class Trial:
    """An SAE tried somewhere, at its own hookpoint or another."""

    probe: Probe[Sae]
    reads: Hookpoint
    target: Hookpoint
    """Where the vectors are that it shall reconstruct: elsewhere for a transcoder."""

    @property
    def is_own(self) -> bool:
        """Whether it is where its checkpoint says."""
        return (self.reads, self.target) == (self.probe.hookpoint, self.probe.target)


def neighbours(model: nn.Module, probe: Probe[Sae]) -> list[Trial]:
    """The SAE at its own hookpoint, then at those of the same site in the blocks below and above."""
    own, shift = probe.hookpoint.block, probe.target.block - probe.hookpoint.block
    trials = [
        Trial(probe, replace(probe.hookpoint, block=block), replace(probe.target, block=block + shift))
        for block in (own, own - 1, own + 1)
        if min(block, block + shift) >= 0
    ]
    return [trial for trial in trials if has_hookpoint(model, trial.reads) and has_hookpoint(model, trial.target)]


def siblings(model: nn.Module, probe: Probe[Sae]) -> list[Trial]:
    """The SAE at the other sites of its block, but those whose vectors are a neighbour's.

    A transcoder is tried with another input, and with another target, of which one is its own.
    """
    seen = {(_stream(trial.reads), _stream(trial.target)) for trial in neighbours(model, probe)}
    trials = []
    for reads, target in _pairs(probe):
        if not (has_hookpoint(model, reads) and has_hookpoint(model, target)):
            continue
        if (key := (_stream(reads), _stream(target))) not in seen:
            seen.add(key)
            trials.append(Trial(probe, reads, target))
    return trials


def _pairs(probe: Probe[Sae]) -> Iterator[tuple[Hookpoint, Hookpoint]]:
    """Yield where the SAE may read, and where the vectors are that it reconstructs."""
    for name in SITE_NAMES:
        if probe.hookpoint == probe.target:
            yield Hookpoint.at(probe.hookpoint.block, name), Hookpoint.at(probe.hookpoint.block, name)
        else:
            yield Hookpoint.at(probe.hookpoint.block, name), probe.target
            yield probe.hookpoint, Hookpoint.at(probe.target.block, name)


def _stream(hookpoint: Hookpoint) -> Hookpoint:
    """One name for the residual stream between two blocks, which is the output of one and the input of the other."""
    is_between = hookpoint.site_name == "resid_in" and hookpoint.block > 0
    return Hookpoint(hookpoint.block - 1) if is_between else hookpoint


def places_of(trials: Iterable[Trial]) -> set[Hookpoint]:
    """Every hookpoint whose vectors the trials need."""
    return {place for trial in trials for place in (trial.reads, trial.target)}


def in_words(model: nn.Module, trial: Trial) -> str:
    """Say where an SAE is tried, such as `the output of block 16`."""
    if trial.reads == trial.target:
        return _site_in_words(model, trial.reads)
    return f"{_site_in_words(model, trial.target)}, from {_site_in_words(model, trial.reads)}"


def _site_in_words(model: nn.Module, hookpoint: Hookpoint) -> str:
    """Name the vectors at a hookpoint: plain words for what `Site` says."""
    block = f"block {hookpoint.block}"
    if hookpoint.site_name in BLOCK_PLACES:
        return f"{BLOCK_PLACES[hookpoint.site_name]} of {block}"
    kind, _, part = hookpoint.site.partition("_")
    module = MODULES[kind]
    if part == "heads":
        return f"the heads' outputs in {block}, before attention's output projection"
    if part == "norm":
        gained = has_hookpoint(model, Hookpoint.at(hookpoint.block, f"{hookpoint.site}_no_gain"))
        return f"{module}'s normalised input in {block}{', after the gain' if gained else ''}"
    if part == "norm_no_gain":
        return f"{module}'s normalised input in {block}, before the gain"
    if not has_hookpoint(model, Hookpoint.at(hookpoint.block, f"{kind}_module")):
        return f"{module}'s output in {block}"
    step = "its norm" if _has_output_norm(model, hookpoint) else "its factor"
    return f"{module}'s output in {block}, {'before' if part == 'module' else 'after'} {step}"


def _has_output_norm(model: nn.Module, hookpoint: Hookpoint) -> bool:
    """Whether what comes after a module, before its output is added to the residual stream, is a norm."""
    kind = hookpoint.site.partition("_")[0]
    contribution, module = (Hookpoint.at(hookpoint.block, name) for name in (kind, f"{kind}_module"))
    return locate(model, contribution).module != locate(model, module).module
