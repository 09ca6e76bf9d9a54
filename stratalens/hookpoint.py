"""Hookpoints: the places in a model whose vectors SAEs read, and the key of everything that is known about one."""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal, get_args

Site = Literal[
    "resid",
    "attn",
    "mlp",
    "attn_module",
    "mlp_module",
    "attn_heads",
    "attn_norm",
    "mlp_norm",
    "attn_norm_no_gain",
    "mlp_norm_no_gain",
]
"""Where in a block the vectors are:

- `resid`: the residual stream, before or after the block;
- `attn`, `mlp`: what attention and MLP add to the residual stream, after a norm of their output where there is one;
- `attn_module`, `mlp_module`: the module's own output, where a norm or a factor comes after it;
- `attn_heads`: the heads' outputs side by side, which the output projection of attention reads;
- `attn_norm`, `mlp_norm`: what attention and MLP read: the residual stream, normalised, after the norm's gain;
- `attn_norm_no_gain`, `mlp_norm_no_gain`: the same before the gain.
"""
SITES: tuple[Site, ...] = get_args(Site)
Side = Literal["out", "in"]
SITE_NAMES = ("resid", "resid_in", *SITES[1:])
"""Names of sites on the command line and in tables; only the residual stream has two sides."""
NAME_PATTERN = rf"(?:0|[1-9][0-9]{{0,9}})(?:_(?:{'|'.join(SITE_NAMES[1:])}))?"
"""Of the name of a hookpoint; no group is captured."""
NAME = re.compile(NAME_PATTERN)


@total_ordering
@dataclass(frozen=True)
class Hookpoint:
    """A place in a model: `28` is the output of block 28, `28_resid_in` its input, `28_mlp` a site in it.

    Raises:
        ValueError: there is no such place.
    """

    block: int
    site: Site = "resid"
    side: Side = "out"

    def __post_init__(self):
        if self.block < 0 or self.site not in SITES or self.side not in ("in", "out"):
            raise ValueError(f"no hookpoint: {self.block!r}, {self.site!r}, {self.side!r}")
        if self.side == "in" and self.site != "resid":
            raise ValueError(f"only the residual stream has an input side, not {self.site}")

    @classmethod
    def parse(cls, name: str) -> "Hookpoint":
        """Parse what `str` of a hookpoint gives.

        Raises:
            ValueError: it is no hookpoint.
        """
        if NAME.fullmatch(name) is None:
            raise ValueError(f"`{name}` is no hookpoint; write one such as 28, 28_mlp or 28_resid_in")
        block, _, site_name = name.partition("_")
        return cls.at(int(block), site_name or "resid")

    @classmethod
    def at(cls, block: int, site_name: str) -> "Hookpoint":
        """The hookpoint of a block with a name of `SITE_NAMES`.

        Raises:
            ValueError: there is no such site.
        """
        if site_name == "resid_in":
            return cls(block, "resid", "in")
        return cls(block, site_name)  # pyright: ignore[reportArgumentType]  # checked as it is made

    @classmethod
    def given(cls, value: "Hookpoint | int | str") -> "Hookpoint":
        """The hookpoint that a caller names by the number of a block, or by its own name.

        Raises:
            ValueError: it is no hookpoint.
        """
        return value if isinstance(value, Hookpoint) else cls.parse(str(value))

    @property
    def site_name(self) -> str:
        """One of `SITE_NAMES`."""
        return "resid_in" if self.side == "in" else self.site

    def __str__(self) -> str:
        return str(self.block) if self.site_name == "resid" else f"{self.block}_{self.site_name}"

    def __lt__(self, other: "Hookpoint") -> bool:
        return (self.block, SITE_NAMES.index(self.site_name)) < (other.block, SITE_NAMES.index(other.site_name))
