"""What `--sae_pick` may say."""

import re

from stratalens.errors import ConfigError

L0 = re.compile(r"l0=(\d{1,7}(?:\.\d+)?)")


def wanted_l0(pick: str) -> float | None:
    """The number of `l0=N`; None for a glob.

    Raises:
        ConfigError: it begins as such and has no number.
    """
    if not pick.lower().startswith("l0="):
        return None
    if (match := L0.fullmatch(pick.lower())) is None:
        raise ConfigError(f"sae_pick: `{pick[:60]}` has no number; write the nearest L0 as l0=70")
    return float(match[1])
