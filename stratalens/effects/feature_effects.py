"""What the model loses without one feature, with its control: the numbers and the verdict."""

from typing import Literal, NamedTuple

EffectVerdict = Literal["moves the domain", "moves everything", "no measurable effect", "undecided"]
EFFECT_VERDICTS: tuple[EffectVerdict, ...] = (
    "moves the domain",
    "moves everything",
    "no measurable effect",
    "undecided",
)


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
    p_value: float
    """One-sided, the largest of the tests that all must pass for `moves the domain`."""
    q_value: float
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
