"""The ablations of one hookpoint: its confirmed features together, some features alone, and the controls of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from stratalens.effects.ablations import Ablation, LatentSet, RandomReplacement
from stratalens.effects.attributions import Attributions
from stratalens.effects.changes import FeatureChanges, LayerChanges
from stratalens.effects.matched import NormMatcher
from stratalens.effects.reading import EffectReader
from stratalens.effects.text import EffectText
from stratalens.hookpoint import Hookpoint
from stratalens.progress import Advance
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

FEATURE_DRAWS = 1
"""Draws of a random direction in the place of a single feature. There are many features, and each draw costs as much as
the feature."""


@dataclass(frozen=True)
class LayerPlan:
    """What is removed at one hookpoint."""

    hookpoint: Hookpoint
    together: tuple[int, ...]
    """Confirmed features, which are removed together; none of a layer without any."""
    alone: tuple[int, ...]
    """Features that are removed one by one."""
    means: Mapping[int, float]
    """Dense latent -> its mean activation on general text, to which it is set."""
    live: Bool[np.ndarray, "latent"]
    control_sets: int
    """Draws of random directions, and matched sets, for the confirmed features."""
    seed: int

    @property
    def identity(self) -> tuple[int, str]:
        """What random directions and sets are drawn by."""
        return self.seed, str(self.hookpoint)

    def work(self, firing: Mapping[int, float], text: EffectText, share: float) -> int:
        """About how many tokens are run through the whole model, to say how long it takes.

        Args:
            firing: latent -> share of the passages on which it fires.
            text: the passages.
            share: of the model's blocks that run for an ablation.
        """
        alone = sum(firing.get(latent, 1.0) for latent in self.alone)
        together = 1 if self.together else 0
        own = text.tokens * (together + alone)
        controls = text.control.tokens * (2 * self.control_sets * together + FEATURE_DRAWS * alone)
        return int((own + controls) * share)


class LayerAblations(NamedTuple):
    """Everything that is removed at one hookpoint: name that says all about it -> ablation."""

    together: dict[str, Ablation]
    """The confirmed features, if there are any."""
    random: dict[str, Ablation]
    """Random directions in the place of these."""
    matched: dict[str, Ablation]
    """Matched sets in the place of these."""
    alone: dict[str, Ablation]
    """Single features, in the order of the plan."""
    random_alone: dict[str, Ablation]
    """Random directions in their place, `FEATURE_DRAWS` of each in turn."""


class LayerMeasured(NamedTuple):
    """What was measured at one hookpoint."""

    together: LayerChanges | None
    """None where no feature is confirmed."""
    alone: list[FeatureChanges]


def layer_ablations(reader: EffectReader, probe: Probe[Sae], text: EffectText, plan: LayerPlan) -> LayerAblations:
    """Draw the controls of one hookpoint.

    Args:
        reader: reads with the whole model.
        probe: the SAE, with its decoder.
        text: matched sets are matched on its control documents.
        plan: what is removed.
    """
    together, random, matched = dict[str, Ablation](), dict[str, Ablation](), dict[str, Ablation]()
    if plan.together:
        own = _latent_set(probe.sae, plan, plan.together)
        together[_name(own)] = own
        random = _draws(own, plan, plan.control_sets)
        matcher = NormMatcher(probe.sae, own, reader.encoded(probe, text.control), plan.live, plan.identity)
        drawn = (matcher.draw(number) for number in range(plan.control_sets))
        sets = [LatentSet(probe.sae, one.latents) for one in drawn if one is not None]
        matched |= {f"{number}: {_name(one)}": one for number, one in enumerate(sets)}
    singles = [_latent_set(probe.sae, plan, (latent,)) for latent in plan.alone]
    random_alone = [_draws(single, plan, FEATURE_DRAWS) for single in singles]
    return LayerAblations(
        together,
        random,
        matched,
        {_name(single): single for single in singles},
        {name: draw for own in random_alone for name, draw in own.items()},
    )


def measure_layer(
    reader: EffectReader,
    probe: Probe[Sae],
    text: EffectText,
    plan: LayerPlan,
    found: tuple[LayerAblations, Attributions],
    advance: Advance,
) -> LayerMeasured:
    """Measure all ablations of one hookpoint.

    Args:
        reader: reads with the whole model.
        probe: the SAE, with its decoder.
        text: the documents; controls are measured on its control documents alone.
        plan: what is removed.
        found: the ablations, and the attributions of all latents to each passage.
        advance: called with the numbers of passages and tokens that were read.
    """
    ablations, attributions = found
    own = reader.changes(probe, text, ablations.together | ablations.alone, advance)
    controls = ablations.random | ablations.matched | ablations.random_alone
    others = reader.changes(probe, text.control, controls, advance)
    number, sets = len(ablations.random), len(ablations.random) + len(ablations.matched)
    together = LayerChanges(plan.together, own[0], others[:number], others[number:sets]) if plan.together else None
    predicted = attributions.by_document(text.document).of_latents(plan.alone, len(text.documents.hashes))
    alone = [
        FeatureChanges(latent, change, others[at : at + FEATURE_DRAWS], by_gradient)
        for latent, change, by_gradient, at in zip(
            plan.alone,
            own[len(ablations.together) :],
            predicted,
            range(sets, len(others), FEATURE_DRAWS),
            strict=True,
        )
    ]
    return LayerMeasured(together, alone)


def _latent_set(sae: Sae, plan: LayerPlan, latents: Sequence[int]) -> LatentSet:
    return LatentSet(sae, tuple(latents), {latent: plan.means[latent] for latent in latents if latent in plan.means})


def _name(of: LatentSet) -> str:
    return f"latents {sorted(of.latents)} means {sorted(of.means.items())}"


def _draws(of: LatentSet, plan: LayerPlan, draws: int) -> dict[str, Ablation]:
    return {
        f"random {draw} by {plan.identity}: {_name(of)}": RandomReplacement(of, draw, plan.identity)
        for draw in range(draws)
    }
