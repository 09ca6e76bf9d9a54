"""The verdict on an SAE: whether it belongs where it is used, and if not, where it belongs, in words."""

import math
from collections.abc import Iterable

from stratalens.hookpoint import Hookpoint
from stratalens.saes.fit_numbers import HookpointFit

MIN_MEAN_ERROR_SHARE = 0.001
"""With a share of the error in the mean up to this, the SAE fits, whatever other hookpoints give."""
MIN_MEAN_ERROR_RATIO = 1.5
"""Another hookpoint fits clearly better if its share is lower by more than this factor and its FVU is not higher."""
DRIFT_SHARE = 0.01
"""With a share above this, another hookpoint fits clearly better too where both numbers are lower by `DRIFT`."""
DRIFT = 0.95
"""Some blocks away from its own, an SAE gets better from block to block on the way back, and each step is small."""
MAX_MEAN_ERROR_SHARE = 0.1
"""Above this the errors do not average out, as they do at the end of any training: a constant is missing. SAEs of this
project have at most 0.012 where they belong, and 0.034 after 10% of noise on all weights of the model."""
MAX_FVU = 1.0
"""Above this an SAE explains less than the mean of the vectors does."""
MAX_SCALE_FACTOR = 1.4
"""An SAE whose reconstructions, to come nearest, would have to be longer or shorter by more than this factor does not
fit: its training would have scaled them. SAEs of this project are at 0.94 to 1.0 of their length where they belong, and
at 0.86 after 10% of noise on all weights of the model; with other norms of decoder rows at 0.65 and below."""
MAX_SHRINKAGE = 2.5
"""The same for reconstructions of a ReLU SAE that are too short: a penalty on the sum of latents shrinks them. Of small
ones that were trained with a strong penalty, on block 16, the best scale is 1.3 with 11 latents on a token (FVU 0.53)
and 1.9 with 8 (FVU 0.67). TopK, thresholds and gates are there to avoid that."""
HOME_FVU = 0.8
"""An SAE that explains nothing where it is used is said to belong where its FVU is at most this."""
DOUBTFUL_SHARE = 0.02
"""Above this share, other sites of the block are tried even where the neighbouring blocks are no better."""
DOUBTFUL_FVU = 0.6
"""So are they above this FVU."""
DOUBTFUL_L0_FACTOR = 2.0
"""And where L0 differs from the declared one by more than this factor."""
MAX_L0_FACTOR = 5.0
"""An SAE whose L0 differs from the declared one by more than this factor does not fit, whatever its FVU."""


def problem_of(
    own: HookpointFit, others: Iterable[HookpointFit], declared_l0: float | None = None, *, may_shrink: bool = False
) -> str:
    """Why an SAE does not seem to belong to its hookpoint; empty if it fits.

    Args:
        own: its fit there.
        others: at the candidates.
        declared_l0: latents that fire on a token, as the file of a threshold SAE says; None where it says nothing.
        may_shrink: whether it is a ReLU SAE, whose training may have made its latents too small.
    """
    longest = MAX_SHRINKAGE if may_shrink else MAX_SCALE_FACTOR
    better = [other for other in others if _fits_clearly_better(own, other)]
    if better:
        best = min(better, key=lambda fit: (fit.mean_error_share, fit.fvu))
        scaled = ", or its input is to be scaled, which its file does not say" if _is_scaled(own, best) else ""
        numbers = _numbers(own, best, declared_l0)
        verdict = f"{_contrast(own, best)}{scaled}.{_there_too(best, declared_l0, longest)}"
        return f"it fits {best.hookpoint} clearly better ({numbers}): {verdict}"
    if not own.fvu <= MAX_FVU:
        return (
            f"it explains nothing here (FVU {own.fvu:.2f}), nor at any hookpoint that was tried: was it trained on "
            "another model, layer or input scale?"
        )
    if own.mean_error_share > MAX_MEAN_ERROR_SHARE:
        return (
            f"its errors do not average out (error in the mean {own.mean_error_share:.2f} of the variance): is b_dec "
            "missing or not subtracted, or was it trained on another model or input scale?"
        )
    if _is_of_wrong_scale(own, longest):
        return _wrong_scale(own)
    if declared_l0 is not None and _l0_factor(own.l0, declared_l0) > MAX_L0_FACTOR:
        return (
            f"{own.l0:.1f} of its latents fire on a token, where its file declares {declared_l0:g}: was it trained on "
            "another tensor or input scale?"
        )
    return ""


def is_doubtful(own: HookpointFit, problem: str, declared_l0: float | None = None) -> bool:
    """Whether more should be tried before an SAE is taken to fit."""
    off = declared_l0 is not None and _l0_factor(own.l0, declared_l0) > DOUBTFUL_L0_FACTOR
    return bool(problem) or off or own.mean_error_share > DOUBTFUL_SHARE or own.fvu > DOUBTFUL_FVU


def _fits_clearly_better(own: HookpointFit, other: HookpointFit) -> bool:
    if not own.fvu <= MAX_FVU:
        return other.fvu <= HOME_FVU
    if own.mean_error_share > DRIFT_SHARE and other.fvu <= DRIFT * own.fvu:
        return other.mean_error_share <= DRIFT * own.mean_error_share
    return (
        own.mean_error_share > MIN_MEAN_ERROR_SHARE
        and own.mean_error_share > MIN_MEAN_ERROR_RATIO * other.mean_error_share
        and other.fvu <= own.fvu
    )


def _there_too(best: HookpointFit, declared_l0: float | None, longest: float) -> str:
    """What is wrong even at the hookpoint that fits better, so that it need not be where the SAE belongs."""
    if _is_of_wrong_scale(best, longest):
        return f" There too {_wrong_scale(best)}"
    off = declared_l0 is not None and _l0_factor(best.l0, declared_l0) > DOUBTFUL_L0_FACTOR
    if off or best.mean_error_share > DOUBTFUL_SHARE:
        return " There too it fits badly, so look further: another layer, another model or another scale of its input?"
    return ""


def _is_of_wrong_scale(fit: HookpointFit, longest: float) -> bool:
    return not 1 / MAX_SCALE_FACTOR <= fit.best_scale <= longest


def _wrong_scale(fit: HookpointFit) -> str:
    return (
        f"its reconstructions would come nearest if they were scaled by {fit.best_scale:.2f}: are the norms of its "
        "decoder rows missing, or a scale of its input?"
    )


def _is_scaled(own: HookpointFit, best: HookpointFit) -> bool:
    """Whether the vectors that fit are those of the residual stream but for their scale, or nearly so."""
    sites = [Hookpoint.parse(fit.reads).site for fit in (own, best) if fit.reads]
    return len(sites) == 2 and sites[0] == "resid" and sites[1].endswith("_no_gain")


def _numbers(own: HookpointFit, best: HookpointFit, declared_l0: float | None) -> str:
    text = f"FVU {best.fvu:.3f} against {own.fvu:.3f}, error in the mean {best.mean_error_share:.4f} against "
    text += f"{own.mean_error_share:.4f}"
    return text if declared_l0 is None else f"{text}, L0 {best.l0:.0f} against {own.l0:.0f}, {declared_l0:g} declared"


def _l0_factor(measured: float, declared: float) -> float:
    """By what factor two numbers of latents differ."""
    if not (measured > 0 and declared > 0):
        return math.inf
    return max(measured / declared, declared / measured)


def _contrast(own: HookpointFit, best: HookpointFit) -> str:
    """What the latents fit, and what they do not."""
    here, there = own.place or own.hookpoint, best.place or best.hookpoint
    head, _, tail = there.rpartition(", ")
    own_head, _, own_tail = here.rpartition(", ")
    if head and head == own_head:
        return f"these latents fit {head} {tail}, not {own_tail.split()[0]}"
    if not (own.reads and best.reads):
        return f"these latents fit {there}, not {here}"
    block, other = Hookpoint.parse(own.reads).block, Hookpoint.parse(best.reads).block
    if here == f"the output of block {block}" and there == f"the output of block {block - 1}":
        return f"these latents fit the input of block {block}, which is {there}, not its output"
    if here == f"the input of block {block}" and there in (
        f"the input of block {block + 1}",
        f"the output of block {block}",
    ):
        return f"these latents fit the output of block {block}, not its input"
    if block != other:
        return f"these latents fit {there}, the block {'above' if other > block else 'below'}, not {here}"
    return f"these latents fit {there}, not {here}"
