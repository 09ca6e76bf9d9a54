"""Names of the modules of a decoder in the model families of the Hugging Face library."""

import re
from typing import NamedTuple

FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")
"""Names of the final norm of a decoder."""
BLOCK_MODULE_NAME = re.compile(r"([A-Za-z_]+)\.(\d+)(?:\.(.+))?")


class BlockModule(NamedTuple):
    """The parts of a module name: of a block such as `layers.16`, or of a module in one such as `layers.16.mlp`."""

    blocks: str
    """Name of the list of blocks."""
    number: int
    """Number of the block in that list."""
    part: str | None
    """Name of the module within the block; None for the block itself."""

    @classmethod
    def parse(cls, name: str) -> "BlockModule | None":
        """Parse a module name relative to the decoder; None if it is neither a block nor inside one."""
        match = BLOCK_MODULE_NAME.fullmatch(name)
        return None if match is None else cls(match[1], int(match[2]), match[3])

    def __str__(self) -> str:
        return ".".join([self.blocks, str(self.number), *([] if self.part is None else [self.part])])
