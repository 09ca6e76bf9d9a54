"""What the user says of the activation of SAEs whose files do not: `--sae_activation topk:32`."""

import re
from typing import Literal, NamedTuple, get_args

from stratalens.errors import ConfigError

ActivationKind = Literal["relu", "topk", "groupmax", "jumprelu"]
KINDS: tuple[ActivationKind, ...] = get_args(ActivationKind)
MAX_K = 2**31 - 1
FORMS = "relu, topk:32, groupmax:32, jumprelu:0.05, or jumprelu where the file has a threshold of each latent"
CENTRED = ",centred"
"""What is added where the decoder bias is subtracted before encoding."""


class SaeActivation(NamedTuple):
    """The activation of an encoder."""

    kind: ActivationKind
    k: int | None = None
    """Most latents that fire on a token, of topk and groupmax."""
    threshold: float | None = None
    """Of jumprelu; None where the file has one of each latent."""
    centred: bool = False
    """Whether the decoder bias is subtracted from vectors before they are encoded."""

    def __str__(self) -> str:
        number = self.k if self.k is not None else self.threshold
        return self.kind + ("" if number is None else f":{number}") + (CENTRED if self.centred else "")


def parse_activation(text: str | None) -> SaeActivation | None:
    """Parse a value of `--sae_activation`; None if there is none.

    Raises:
        ConfigError: it has not one of the forms.
    """
    if text is None:
        return None
    plain, centred = text.removesuffix(CENTRED), text.endswith(CENTRED)
    kind, _, number = plain.partition(":")
    if plain in ("relu", "jumprelu"):
        return SaeActivation("relu" if plain == "relu" else "jumprelu", centred=centred)
    if kind in ("topk", "groupmax") and re.fullmatch(r"[1-9]\d{0,9}", number) and int(number) <= MAX_K:
        return SaeActivation("topk" if kind == "topk" else "groupmax", k=int(number), centred=centred)
    if kind == "jumprelu" and re.fullmatch(r"\d{1,9}(\.\d{1,20})?(e-?\d{1,2})?", number):
        return SaeActivation("jumprelu", threshold=float(number), centred=centred)
    raise ConfigError(
        f"sae_activation: `{text[:60]}` is unknown; expected {FORMS}; with {CENTRED} where b_dec is subtracted first"
    )
