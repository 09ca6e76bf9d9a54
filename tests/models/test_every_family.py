"""The first blocks of every causal language model that can be built tiny give the bits of the whole model."""

import pytest
import torch
from every_family import BLOCKS, FAMILIES, WIDTH, NotBuilt, write_tiny
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import number_of_blocks
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_blocks
from stratalens.models.source import ModelSource

pytestmark = pytest.mark.families
IDS = torch.arange(3, 17).reshape(2, 7)
HERE = Placement(torch.device("cpu"), torch.float32)
WHOLE_ONLY: set[str] = set()
"""Families whose code needs all blocks, so that the whole model is loaded."""


def outputs(model: nn.Module, blocks: int) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    places = {Hookpoint(n): (lambda x, n=n: found.update({n: x.clone()})) for n in range(blocks)}
    with hooked(model, places):
        forward(model, IDS)
    return [found[n] for n in range(blocks)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_blocks_give_the_bits_of_the_whole_model(family, tmp_path):
    try:
        write_tiny(family, tmp_path)
    except NotBuilt as reason:
        pytest.skip(f"not built: {reason}")
    source = ModelSource(str(tmp_path), family, None, BLOCKS, WIDTH, "")
    try:
        whole = load_blocks(source, BLOCKS, HERE)
        number = number_of_blocks(whole)
    except ModelError as error:
        pytest.skip(f"no blocks of a known name: {error}")
    try:
        expected = outputs(whole, number)
    except ModelError as error:
        pytest.skip(f"several residual streams: {error}")
    for blocks in range(1, number):
        said: list[str] = []
        cut = load_blocks(source, blocks, HERE, said.append)
        assert number_of_blocks(cut) == (number if said else blocks)
        assert bool(said) == (family in WHOLE_ONLY), said
        for ours, theirs in zip(outputs(cut, blocks), expected, strict=False):
            assert torch.equal(ours, theirs)
