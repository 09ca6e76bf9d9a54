"""Steps of an encoder as they are computed on cuda: what `steps.py` computes, in the units that a GPU is fast with."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.saes.activations import SparseLatents, TopK, largest, positive
from stratalens.saes.steps import Linear
from stratalens.saes.weights import row_blocks

GROUP = 128
"""Neighbouring latents of which only the largest is compared at first."""
MIN_CAPABILITY = (8, 0)
"""From this one on (Ampere), GPUs have units for products of bfloat16 with float32 sums."""


@dataclass(frozen=True)
class SplitLinear:
    """Pre-activations from products of bfloat16 numbers with float32 sums, in two or three in place of one.

    A float32 number is the sum of two bfloat16 numbers but for 2^-18 of it: W = W1 + W2, and x = x1 + x2 unless x is in
    bfloat16; the product of the two small parts is left out (Ootomo & Yokota 2022, there with float16). The error,
    beside that of float32 sums, is at most 2^-18 |x| |w| for x in bfloat16, else three times that. Measured: 1e-6; a
    product in float32 has 1e-7, and one in TF32 units 1e-3.
    """

    parts: Float[Tensor, "part latent d_model"]
    """In bfloat16, the large part first; one part where bfloat16 represents the weights exactly."""
    bias: Float[Tensor, "latent"]

    @classmethod
    def of(cls, step: Linear, device: torch.device) -> "SplitLinear":
        """Split the weights on a device, a block of rows at a time."""
        count = 1 if step.bfloat16_weights else 2
        parts = torch.empty((count, *step.weight.shape), dtype=torch.bfloat16, device=device)
        row = 0
        for rows in row_blocks(step.weight):
            for number, part in enumerate(_split(rows.to(device, torch.float32), count)):
                parts[number, row : row + len(rows)] = part
            row += len(rows)
        return cls(parts, step.bias.to(device))

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """Apply the step."""
        vectors = [x] if x.dtype == torch.bfloat16 else _split(x.float(), 2)
        pairs = [
            (vector, part)
            for number, vector in enumerate(vectors)
            for other, part in enumerate(self.parts)
            if number + other < 2
        ]
        total = self.bias
        for vector, part in reversed(pairs):  # the small products first: they are lost beside the large one
            total = _product(vector, part).add_(total)
        return total

    def only(self, latents: Int[Tensor, "column"]) -> "SplitLinear":
        """See `Step`."""
        return SplitLinear(self.parts[:, latents], self.bias[latents])


def _split(numbers: Float[Tensor, "..."], count: int) -> list[Tensor]:
    """Write float32 numbers as a sum of bfloat16 numbers, each the rest of those before it."""
    parts: list[Tensor] = []
    for _ in range(count):
        parts.append(numbers.bfloat16())
        numbers = numbers - parts[-1].float()
    return parts


def _product(
    vectors: Float[Tensor, "token d_model"], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "token latent"]:
    """The product of bfloat16 numbers in float32; the CPU, which has none such, gets the same numbers in float32."""
    if vectors.device.type == "cuda":
        return torch.mm(vectors, rows.T, out_dtype=torch.float32)
    return vectors.float() @ rows.float().T


@dataclass(frozen=True)
class GroupedTopK:
    """`TopK` that looks at few of the pre-activations twice: the set of latents is the same.

    All of the k largest are in the k groups with the largest maxima. Where another latent ties with the smallest of
    the k, the token is left to `largest`.
    """

    k: int

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        if pre.shape[1] < 2 * (self.k + 2) * GROUP:
            return TopK(self.k)(pre)
        values, latents, ties = self._chosen(pre)
        rows = ties.nonzero()[:, 0]
        values[rows], latents[rows] = largest(pre[rows], self.k)
        return positive(values, latents)

    def _chosen(self, pre: Tensor) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"], Bool[Tensor, "token"]]:
        """The k largest, their latents, and whether others tie with the smallest of them, where it is positive."""
        whole = pre.shape[1] // GROUP * GROUP
        grouped = pre[:, :whole].unflatten(1, (-1, GROUP))
        maxima, groups = grouped.amax(2).topk(self.k + 1, dim=-1)
        groups = groups[:, : self.k]
        inside = grouped.gather(1, groups[..., None].expand(-1, -1, GROUP)).flatten(1)
        candidates = torch.cat([inside, pre[:, whole:]], dim=1)
        values, at = candidates.topk(self.k + 1, dim=-1)
        within = at.clamp(max=inside.shape[1] - 1)
        latents = groups.gather(1, within // GROUP) * GROUP + within % GROUP
        latents = torch.where(at < inside.shape[1], latents, at - inside.shape[1] + whole)
        smallest = values[:, self.k - 1]
        ties = (smallest > 0) & ((values[:, self.k] == smallest) | (maxima[:, self.k] == smallest))
        return values[:, : self.k].clone(), latents[:, : self.k].clone(), ties

    def only(self, latents: Int[Tensor, "column"]) -> None:
        """See `Activation`: whether a latent is among the k largest depends on all."""


def step_on(step: object, device: torch.device) -> SplitLinear | None:
    """The form of a step for a GPU that multiplies bfloat16 numbers; None where there is none."""
    if device.type != "cuda" or not isinstance(step, Linear) or torch.version.hip is not None:
        return None
    recent = torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
    return SplitLinear.of(step, device) if recent else None


def activation_on(activation: object, device: torch.device) -> GroupedTopK | None:
    """The form of an activation for a GPU; None where there is none."""
    return GroupedTopK(activation.k) if device.type == "cuda" and isinstance(activation, TopK) else None
