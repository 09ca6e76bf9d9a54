"""What else than the domain a latent may be about."""

import numpy as np

from stratalens.corpus import Half, Side
from stratalens.corpus.populations import population
from stratalens.harvest import FeatureStats
from stratalens.models.token_classes import TokenClass

DENSE_SHARE = 0.5

DIGITS_SHARE = 0.5

PUNCTUATION_SHARE = 0.5

CAPITALISED_SHARE = 0.7

EARLY_MASS_SHARE = 0.5


def flags(stats: FeatureStats) -> list[str]:
    """What else than the domain a latent may be about, from where its activation mass lies on domain text."""
    domain = [population(Side.DOMAIN, half) for half in Half]
    mass = stats.class_mass[domain].sum(0)
    total = np.maximum(mass.sum(1), 1e-30)
    share = mass / total[:, None]
    everywhere = stats.positions_fired.sum(0) / max(1, stats.positions.sum())
    conditions = {
        "digits": share[:, TokenClass.DIGITS] > DIGITS_SHARE,
        "currency_or_percent": share[:, TokenClass.CURRENCY_OR_PERCENT] > DIGITS_SHARE,
        "punctuation": share[:, TokenClass.PUNCTUATION] > PUNCTUATION_SHARE,
        "capitalised": share[:, TokenClass.CAPITALISED] > CAPITALISED_SHARE,
        "early_position": stats.early_mass[domain].sum(0) / total > EARLY_MASS_SHARE,
        "dense": everywhere > DENSE_SHARE,
    }
    return ["; ".join(name for name, hit in conditions.items() if hit[at]) for at in range(len(stats.latents))]
