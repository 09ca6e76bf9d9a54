"""The matrix product of an encoder in float32, in the way that is fastest on the CPU and loses nothing."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from stratalens.models.streams import has_bfloat16_units


def float32_product(
    x: Float[Tensor, "token d_model"],
    weight: Float[Tensor, "latent d_model"],
    bias: Float[Tensor, "latent"] | None,
    *,
    are_bfloat16: bool,
) -> Float[Tensor, "token latent"]:
    """Vectors times the transposed weight, plus the bias, with float32 sums.

    On the CPU oneDNN makes it, which takes half as long as MKL on processors of AMD.

    Args:
        x: vectors, in float32.
        weight: in float32.
        bias: None for none.
        are_bfloat16: whether bfloat16 represents all vectors and weights; their products are then exact in float32.
    """
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return linear(x, weight, bias)
    if has_bfloat16_units():
        with _bfloat16_units() if are_bfloat16 else nullcontext():
            return linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@contextmanager
def _bfloat16_units() -> Iterator[None]:
    """While open, float32 products of the process may use units for bfloat16."""
    cpu = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = cpu.fp32_precision
    cpu.fp32_precision = "bf16"
    try:
        yield
    finally:
        cpu.fp32_precision = before
