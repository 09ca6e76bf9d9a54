"""Flags: properties other than the domain that may explain why a latent is ranked high."""

import numpy as np

from stratalens.corpus import Populations, Side
from stratalens.harvest import FeatureStats
from stratalens.models.token_classes import TokenClass

DENSE_SHARE = 0.5
"""A latent that fires at more than this share of all positions is dense."""
DIGITS_SHARE = 0.5
"""Share of the activation on domain text above which a class of tokens is flagged; so are the next two."""
PUNCTUATION_SHARE = 0.5
CAPITALISED_SHARE = 0.7
EARLY_MASS_SHARE = 0.5
"""Share of the activation on domain text above which early positions are flagged."""


def flags(stats: FeatureStats, populations: Populations) -> list[str]:
    """Flags of each latent that fired, separated by `; `, mostly from the tokens on which it fires in domain text."""
    domain = populations.where(side=Side.DOMAIN)
    mass = stats.class_mass[domain].sum(0)
    total = np.maximum(mass.sum(1), 1e-30)
    share = mass / total[:, None]
    density = stats.positions_fired.sum(0) / max(1, stats.positions.sum())
    conditions = {
        "digits": share[:, TokenClass.DIGITS] > DIGITS_SHARE,
        "currency_or_percent": share[:, TokenClass.CURRENCY_OR_PERCENT] > DIGITS_SHARE,
        "punctuation": share[:, TokenClass.PUNCTUATION] > PUNCTUATION_SHARE,
        "capitalised": share[:, TokenClass.CAPITALISED] > CAPITALISED_SHARE,
        "early_position": stats.early_mass[domain].sum(0) / total > EARLY_MASS_SHARE,
        "dense": density > DENSE_SHARE,
    }
    return ["; ".join(name for name, hit in conditions.items() if hit[at]) for at in range(len(stats.latents))]
