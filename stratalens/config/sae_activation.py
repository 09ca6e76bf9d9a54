"""What the user says of the activation of SAEs whose files do not: `--sae_activation topk:32`."""

import re
from typing import Literal, NamedTuple, get_args

from stratalens.errors import ConfigError

ActivationKind = Literal["relu", "topk", "groupmax", "jumprelu"]
KINDS: tuple[ActivationKind, ...] = get_args(ActivationKind)
MAX_K = 2**31 - 1
FORMS = "relu, topk:32, groupmax:32, jumprelu:0.05, or jumprelu where the file has a threshold of each latent"


class SaeActivation(NamedTuple):
    """The activation of an encoder."""

    kind: ActivationKind
    k: int | None = None
    """Most latents that fire on a token, of topk and groupmax."""
    threshold: float | None = None
    """Of jumprelu; None where the file has one of each latent."""

    def __str__(self) -> str:
        number = self.k if self.k is not None else self.threshold
        return self.kind if number is None else f"{self.kind}:{number:g}"


def parse_activation(text: str | None) -> SaeActivation | None:
    """Parse a value of `--sae_activation`; None if there is none.

    Raises:
        ConfigError: it has not one of the forms.
    """
    if text is None:
        return None
    kind, _, number = text.partition(":")
    if kind == "relu" and text == kind:
        return SaeActivation("relu")
    if kind in ("topk", "groupmax") and re.fullmatch(r"[1-9]\d{0,9}", number) and int(number) <= MAX_K:
        return SaeActivation("topk" if kind == "topk" else "groupmax", k=int(number))
    if text == "jumprelu":
        return SaeActivation("jumprelu")
    if kind == "jumprelu" and re.fullmatch(r"\d{1,9}(\.\d{1,20})?(e-?\d{1,2})?", number):
        return SaeActivation("jumprelu", threshold=float(number))
    raise ConfigError(f"sae_activation: `{text[:60]}` is unknown; expected {FORMS}")
