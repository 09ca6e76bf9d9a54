"""What the model loses without a layer's confirmed features, with its controls: the numbers and the verdict."""

from typing import Literal, NamedTuple

LayerVerdict = Literal["the domain loses more", "no difference shown", "controls do not match"]


class Excess(NamedTuple):
    """How much more an ablation costs the domain than general text, beyond the same of its controls.

    All on the documents on which controls are measured, in nats a token.
    """

    value: float
    """Own (domain - general) less the mean of the controls' (domain - general)."""
    low: float
    """95% interval, a bootstrap over documents within each side."""
    high: float
    p_value: float
    """One-sided, of the same bootstrap."""
    holm_p: float
    """Holm's over the layers."""
    rank: int
    """1 + how many controls have a difference at least as large as the own one."""
    controls: int
    """How many there are."""
    control_low: float
    """Smallest difference of a control."""
    control_high: float
    """Largest."""


class LayerEffect(NamedTuple):
    """The effect of removing the confirmed features of a hookpoint. Losses in nats a token, means over documents."""

    features: int
    """Confirmed features that are removed."""
    domain_documents: int
    general_documents: int
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
    domain_term_effect: float | None
    """On tokens of the lexicon's terms, over all documents that have any; None without a lexicon."""
    domain_after_term_effect: float | None
    domain_rest_effect: float
    general_term_effect: float | None
    general_after_term_effect: float | None
    general_rest_effect: float
    domain_kl: float
    general_kl: float
    domain_norm: float
    """Mean norm that is removed at a position of domain documents."""
    general_norm: float
    domain_effect_per_norm: float | None
    """Change of the loss for each unit of norm that is removed; None where nothing is."""
    general_effect_per_norm: float | None
    random: Excess | None
    """Beyond random directions of the same norm."""
    matched: Excess | None
    """Beyond other live latents of about the same norm."""
    matched_domain_ratio: float | None
    """Norm that the matched sets remove on domain documents, mean of all sets, over the own one."""
    matched_general_ratio: float | None
    verdict: LayerVerdict
