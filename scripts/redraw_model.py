"""Write a copy of the embedded model that has learned nothing in its blocks: the control of what SAEs find in it.

    python scripts/redraw_model.py --output DIR [--seed 0]

Every tensor of the blocks is redrawn from a normal distribution with the mean and the deviation of its own values;
embeddings, final norm and tokenizer stay. So the text still enters as it is, and nothing in the blocks was trained
(Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized transformers").
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from stratalens.models.embedded import dense_copy


@dataclass(frozen=True)
class Copy:
    """What to write."""

    output: Path
    """Directory of the copy, in the layout of the Hub."""
    seed: int = 0


@torch.no_grad()
def redraw(blocks: nn.Module, seed: int) -> None:
    """Redraw every tensor of some blocks with the mean and the deviation of its own values."""
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in sorted(blocks.named_parameters()):
        values = tensor.float()
        drawn = torch.randn(tensor.shape, generator=generator) * values.std() + values.mean()
        tensor.copy_(drawn)


def main(copy: Copy) -> None:
    source = dense_copy().directory
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    redraw(model.model.layers, copy.seed)
    model.save_pretrained(copy.output)
    AutoTokenizer.from_pretrained(source).save_pretrained(copy.output)
    print(f"{copy.output}: the model with redrawn blocks, seed {copy.seed}")


if __name__ == "__main__":
    main(tyro.cli(Copy, description=__doc__))
