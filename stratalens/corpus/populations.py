"""The populations of documents: (domain or general) x (discovery or confirmation)."""

from enum import IntEnum

POPULATIONS = 4
"""Number of populations: 2 sides x 2 halves."""


class Side(IntEnum):
    """The two sides of a contrast."""

    DOMAIN = 0
    GENERAL = 1


class Half(IntEnum):
    """Features are selected on discovery documents and estimated on confirmation documents."""

    DISCOVERY = 0
    CONFIRMATION = 1


def population(side: int, half: int) -> int:
    """Index of a population along the population axis of every statistic."""
    return 2 * side + half


def side_name(domain: str, side: int) -> str:
    """Name of a side in messages and results: the domain's own name, or `general`."""
    return domain if side == Side.DOMAIN else "general"
