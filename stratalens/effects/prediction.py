"""What other logits change: next-token losses, and KL divergence from the plain prediction; exact for small changes."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOGITS_AT_ONCE = 2**24
"""So many logits are compared at once."""
CPU_LOGITS_AT_ONCE = 2**19
"""The same on the CPU: as many as its caches hold, so that intermediate results stay there."""
MAX_GROWTH = 20.0
"""Where a logit grows by more, a probability that float32 cannot represent may become one that counts."""


class Changes(NamedTuple):
    """What other logits change, in nats."""

    loss: Float[Tensor, "token"]
    """Change of the next-token loss."""
    kl: Float[Tensor, "token"]
    """KL divergence of the changed distribution from the plain one, KL(plain || changed)."""


class Prediction(NamedTuple):
    """What the plain model predicts for some tokens."""

    target: Int[Tensor, "token"]
    """Ids of the tokens."""
    logits: Float[Tensor, "token vocabulary"]
    p: Float[Tensor, "token vocabulary"]

    @classmethod
    def of(cls, logits: Float[Tensor, "token vocabulary"], target: Int[Tensor, "token"]) -> "Prediction":
        """The prediction of some logits.

        Args:
            logits: in any type; the sums are in float32.
            target: ids of the tokens that come.
        """
        return cls(target, logits, logits.softmax(-1, dtype=torch.float32))

    def changed_to(self, logits: Float[Tensor, "token vocabulary"]) -> Changes:
        """What other logits for the same tokens change.

        With d the change of a logit, the logarithms of the normalisers differ by r = log(1 + sum p (exp(d) - 1)), the
        loss by r - d of the token that comes, and the divergence is r - sum p d: no small number is a difference of
        large ones. What moves all logits alike changes nothing, and is taken off first.
        """
        size = CPU_LOGITS_AT_ONCE if logits.device.type == "cpu" else LOGITS_AT_ONCE
        rows = max(1, size // logits.shape[1])
        columns = (*self, logits)
        parts = [_changes(*own) for own in zip(*(column.split(rows) for column in columns), strict=True)]
        return Changes(*(torch.cat(own) for own in zip(*parts, strict=True)))


def _changes(
    target: Int[Tensor, "token"],
    before: Float[Tensor, "token vocabulary"],
    p: Float[Tensor, "token vocabulary"],
    after: Float[Tensor, "token vocabulary"],
) -> Changes:
    plain = before.float()
    grown = after.float() - plain
    grown -= (p * grown).sum(-1, keepdim=True)
    own, mean = grown.gather(1, target[:, None])[:, 0], (p * grown).sum(-1)
    if grown.numel() and float(grown.amax()) > MAX_GROWTH:
        ratio = (plain.log_softmax(-1) + grown).logsumexp(-1)
    else:
        ratio = (p * grown.expm1_()).sum(-1).log1p()
    return Changes(ratio - own, ratio - mean)
