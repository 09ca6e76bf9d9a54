"""What other logits change: next-token losses, and KL divergence from the plain prediction; exact for small changes."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    """In float32."""
    p: Float[Tensor, "token vocabulary"]

    @classmethod
    def of(cls, logits: Float[Tensor, "token vocabulary"], target: Int[Tensor, "token"]) -> "Prediction":
        """The prediction of some logits.

        Args:
            logits: in any type; the sums are in float32.
            target: ids of the tokens that come.
        """
        own = logits.float()
        return cls(target, own, own.softmax(-1))

    def changed_to(self, logits: Float[Tensor, "token vocabulary"]) -> Changes:
        """What other logits for the same tokens change.

        With d the change of a logit, the logarithms of the normalisers differ by r = log(1 + sum p (exp(d) - 1)), the
        loss by r - d of the token that comes, and the divergence is r - sum p d: no small number is a difference of
        large ones.
        """
        grown = logits.float() - self.logits
        own, mean = grown.gather(1, self.target[:, None])[:, 0], torch.einsum("tv,tv->t", self.p, grown)
        if grown.numel() and float(grown.amax()) > MAX_GROWTH:
            ratio = (self.logits.log_softmax(-1) + grown).logsumexp(-1)
        else:
            ratio = torch.log1p(torch.einsum("tv,tv->t", self.p, grown.expm1_()))
        return Changes(ratio - own, ratio - mean)
