"""The ablations of one hookpoint: its confirmed features together, some features alone, and the controls of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from stratalens.effects.ablations import Ablation, LatentSet, RandomDirections
from stratalens.effects.attributions import Attributions
from stratalens.effects.changes import Change, FeatureChanges, LayerChanges
from stratalens.effects.matched import NormMatcher
from stratalens.effects.reading import EffectReader
from stratalens.effects.text import EffectText
from stratalens.hookpoint import Hookpoint
from stratalens.progress import Advance
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

FEATURE_DRAWS = 4
"""Draws of a random direction in the place of a single feature."""


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


class LayerMeasured(NamedTuple):
    """What was measured at one hookpoint."""

    together: LayerChanges | None
    """None where no feature is confirmed."""
    alone: list[FeatureChanges]
    """Still without attributions: nan."""


def measure_layer(
    reader: EffectReader, probe: Probe[Sae], text: EffectText, plan: LayerPlan, advance: Advance
) -> LayerMeasured:
    """Measure all ablations of one hookpoint.

    Args:
        reader: reads with the whole model.
        probe: the SAE, with its decoder.
        text: the documents; controls are measured on its control documents alone.
        plan: what is removed.
        advance: called with the numbers of passages and tokens that were read.
    """
    together = _latent_set(probe.sae, plan, plan.together)
    singles = {latent: _latent_set(probe.sae, plan, (latent,)) for latent in plan.alone}
    own = ({_name(plan, together): together} if plan.together else {}) | {
        _name(plan, single): single for single in singles.values()
    }
    changes = dict(zip(own, reader.changes(probe, text, own, advance), strict=True))
    controls = _controls(reader, probe, text, plan)
    control_changes = dict(zip(controls, reader.changes(probe, text.control, controls, advance), strict=True))
    of_layer = None
    if plan.together:
        of_layer = LayerChanges(
            plan.together,
            changes[_name(plan, together)],
            _of(control_changes, lambda name: name.startswith("random together")),
            _of(control_changes, lambda name: name.startswith("matched")),
        )
    nothing = np.full(len(text.documents.hashes), np.nan)
    alone = [
        FeatureChanges(
            latent,
            changes[_name(plan, single)],
            _of(control_changes, lambda name, latent=latent: name.startswith(f"random {latent} ")),
            nothing,
        )
        for latent, single in singles.items()
    ]
    return LayerMeasured(of_layer, alone)


def with_attributions(measured: LayerMeasured, found: Attributions, text: EffectText) -> LayerMeasured:
    """Give features what their gradients predict for each document."""
    latents = [one.feature for one in measured.alone]
    values = found.by_document(text.document).of_latents(latents, len(text.documents.hashes))
    alone = [
        FeatureChanges(one.feature, one.own, one.random, own) for one, own in zip(measured.alone, values, strict=True)
    ]
    return LayerMeasured(measured.together, alone)


def _latent_set(sae: Sae, plan: LayerPlan, latents: Sequence[int]) -> LatentSet:
    return LatentSet(sae, tuple(latents), {latent: plan.means[latent] for latent in latents if latent in plan.means})


def _name(plan: LayerPlan, of: LatentSet) -> str:
    """A name that says all about what is removed."""
    means = {latent: plan.means[latent] for latent in of.latents if latent in plan.means}
    return f"latents {sorted(of.latents)} means {means}"


def _controls(reader: EffectReader, probe: Probe[Sae], text: EffectText, plan: LayerPlan) -> dict[str, Ablation]:
    """Name -> control, of the set and of each feature."""
    controls: dict[str, Ablation] = {}
    if plan.together:
        own = _latent_set(probe.sae, plan, plan.together)
        for draw in range(plan.control_sets):
            controls[f"random together {draw} of {plan.seed}: {_name(plan, own)}"] = RandomDirections(
                own, draw, plan.identity
            )
        matcher = NormMatcher(probe.sae, own, reader.encoded(probe, text.control), plan.live, plan.identity)
        for number in range(plan.control_sets):
            if (matched := matcher.draw(number)) is not None:
                controls[f"matched {number}: {list(matched.latents)}"] = LatentSet(probe.sae, matched.latents)
    for latent in plan.alone:
        own = _latent_set(probe.sae, plan, (latent,))
        for draw in range(FEATURE_DRAWS):
            controls[f"random {latent} {draw} of {plan.seed}: {_name(plan, own)}"] = RandomDirections(
                own, draw, plan.identity
            )
    return controls


def _of(changes: Mapping[str, Change], chosen: Callable[[str], bool]) -> list[Change]:
    return [change for name, change in changes.items() if chosen(name)]
