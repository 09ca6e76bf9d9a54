"""What the model loses without one feature, with its control: the numbers and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from stratalens.effects.beside_controls import all_sides, beyond_controls, control_sides
from stratalens.effects.changes import EffectDocuments, FeatureChanges
from stratalens.effects.document_means import Estimate, difference, mean
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.contrast import q_values

EffectVerdict = Literal["moves the domain", "moves everything", "no measurable effect", "undecided"]
EFFECT_VERDICTS: tuple[EffectVerdict, ...] = (
    "moves the domain",
    "moves everything",
    "no measurable effect",
    "undecided",
)
MAX_Q = 0.05
"""Effects are shown if their q-value is below this."""
MAX_GENERAL_SHARE = 0.5
"""A feature moves the domain if its effect on general documents is below this share of that on the domain."""
NEGLIGIBLE_EFFECT = 0.001
"""Changes of the loss up to this many nats a token count as none."""
MIN_DOCUMENTS = 3
"""With fewer documents of a side, or fewer domain documents on which it fires, a feature is undecided."""
MIN_CORRELATED = 5
"""Fewer features have no rank correlation."""


class FeatureEffect(NamedTuple):
    """The effect of removing one feature. Losses in nats a token, means over documents, 0 where it does not fire."""

    verdict: EffectVerdict
    domain_effect: float
    """Change of the loss on domain documents, with its 95% interval."""
    domain_effect_low: float
    domain_effect_high: float
    general_effect: float
    general_effect_low: float
    general_effect_high: float
    difference: float
    """Domain less general."""
    difference_low: float
    difference_high: float
    excess: float
    """On the documents of the controls: own domain effect less that of random directions of the same norm."""
    excess_low: float
    excess_high: float
    difference_excess: float
    """The same of the difference."""
    difference_excess_low: float
    difference_excess_high: float
    p_value: float
    """One-sided, the largest of the tests that all must pass for `moves the domain`: that domain effect, difference
    and what both have beyond random directions are above 0."""
    q_value: float
    """Benjamini-Hochberg over all ablated features."""
    effect_p_value: float
    """The larger of the two tests of the domain effect alone, which `moves everything` needs: that it is above 0, and
    above that of random directions."""
    effect_q_value: float
    """Benjamini-Hochberg over all ablated features."""
    domain_kl: float
    general_kl: float
    domain_norm: float
    """Mean norm that is removed at a position of domain documents."""
    general_norm: float
    domain_documents_fired: int
    general_documents_fired: int
    domain_attribution: float
    """What the gradient predicts for `domain_effect`."""
    general_attribution: float


class _Tests(NamedTuple):
    """What is tested of one feature."""

    domain: Estimate
    general: Estimate
    difference: Estimate
    excess: Estimate
    difference_excess: Estimate

    @property
    def of_domain(self) -> tuple[Estimate, ...]:
        """All that must be above 0 for `moves the domain`."""
        return self.domain, self.difference, self.excess, self.difference_excess

    @property
    def of_effect(self) -> tuple[Estimate, ...]:
        """All that must be above 0 for `moves everything`."""
        return self.domain, self.excess

    @property
    def negligible(self) -> bool:
        return self.domain.within(NEGLIGIBLE_EFFECT) and self.general.within(NEGLIGIBLE_EFFECT)


def feature_effects(
    documents: EffectDocuments, changes: Mapping[Hookpoint, Sequence[FeatureChanges]]
) -> dict[Hookpoint, dict[int, FeatureEffect]]:
    """The effect of removing each feature, paired over documents with its control, and its verdict.

    A claim that needs several things to be above 0 is tested by the largest of their one-sided p-values: that is an
    intersection-union test, whose level is that of one of them (Berger 1982), so Benjamini and Hochberg's procedure
    bounds the false discoveries among all ablated features. What is compared with controls is measured on their
    documents. Intervals and tests: `document_means.difference`.

    - `moves the domain`: domain effect, difference, and both less those of random directions have intervals above 0 and
      q below 0.05; the general effect is less than half the domain effect.
    - `moves everything`: domain effect, alone and less that of random directions, has intervals above 0 and q below
      0.05; the general effect is at least half of it.
    - `no measurable effect`: the intervals of the effects on both sides lie within 0.001 nats of 0.
    - `undecided`: all others, and where it fires on fewer than three domain documents or a side has fewer, or fewer of
      the controls.

    Args:
        documents: what the changes are of.
        changes: hookpoint -> its ablated features, each with at least one random direction.
    """
    places = [(hookpoint, one) for hookpoint, features in changes.items() for one in features]
    tested = [_tests(documents, one) for _, one in places]
    p_values = [max(part.p_value for part in tests.of_domain) for tests in tested]
    effect_p_values = [max(part.p_value for part in tests.of_effect) for tests in tested]
    q, effect_q = (q_values(np.array(p)).tolist() for p in (p_values, effect_p_values))
    effects: dict[Hookpoint, dict[int, FeatureEffect]] = {hookpoint: {} for hookpoint in changes}
    found = zip(places, tested, p_values, q, effect_p_values, effect_q, strict=True)
    for (hookpoint, one), tests, *numbers in found:
        verdict = _verdict(tests, numbers[1], numbers[3]) if _enough(documents, one) else "undecided"
        estimates = (end for part in tests for end in part[:3])
        effects[hookpoint][one.feature] = FeatureEffect(verdict, *estimates, *numbers, *_described(documents, one))
    return effects


def is_causal(effect: FeatureEffect) -> bool:
    """Whether the domain needs the feature more than general text does: what the flag `causal` says."""
    return effect.verdict == "moves the domain"


def rank_correlation(effects: Mapping[Hookpoint, Mapping[int, FeatureEffect]]) -> float | None:
    """Spearman's correlation of attribution and domain effect over the ablated features.

    None of fewer than five, or where one of both is the same for all.
    """
    pairs = [(one.domain_attribution, one.domain_effect) for features in effects.values() for one in features.values()]
    if len(pairs) < MIN_CORRELATED or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(np.asarray(stats.spearmanr(np.array(pairs)))[0])


def _tests(documents: EffectDocuments, one: FeatureChanges) -> _Tests:
    own, beyond = one.own.loss_per_token(documents), beyond_controls(documents, one.own, one.random)
    sides, control = all_sides(documents), control_sides(documents)
    return _Tests(
        mean(own[sides.domain]),
        mean(own[sides.general]),
        difference(own[sides.domain], own[sides.general]),
        mean(beyond[control.domain]),
        difference(beyond[control.domain], beyond[control.general]),
    )


def _enough(documents: EffectDocuments, one: FeatureChanges) -> bool:
    sides, control = all_sides(documents), control_sides(documents)
    fired = int(np.count_nonzero(one.own.norm[sides.domain]))
    return min(fired, *map(len, (*sides, *control))) >= MIN_DOCUMENTS


def _verdict(tests: _Tests, q_value: float, effect_q_value: float) -> EffectVerdict:
    mostly_domain = tests.general.value < MAX_GENERAL_SHARE * tests.domain.value
    if mostly_domain and q_value < MAX_Q and all(part.above_zero for part in tests.of_domain):
        return "moves the domain"
    if not mostly_domain and effect_q_value < MAX_Q and all(part.above_zero for part in tests.of_effect):
        return "moves everything"
    return "no measurable effect" if tests.negligible else "undecided"


def _described(documents: EffectDocuments, one: FeatureChanges) -> tuple[float | int, ...]:
    """What is reported beside the tests: of domain and of general documents in turn."""
    rows = all_sides(documents)

    def means(values: Float[np.ndarray, "document"]) -> list[float]:
        return [float((values[side] / documents.total[side]).mean()) for side in rows]

    fired = [int(np.count_nonzero(one.own.norm[side])) for side in rows]
    return (*means(one.own.kl.sum(1)), *means(one.own.norm), *fired, *means(one.attribution))
