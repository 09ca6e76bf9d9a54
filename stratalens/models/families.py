"""Where the parts of a decoder stand in the model families of the Hugging Face library."""

import re
from typing import NamedTuple

FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")
"""Names that the final norm of a decoder goes by."""
IN_A_BLOCK = re.compile(r"([A-Za-z_]+)\.(\d+)(?:\.(.+))?")


class BlockModule(NamedTuple):
    """A module by its name relative to the decoder: a block, such as `layers.16`, or a part of one."""

    blocks: str
    """Name of the list of blocks."""
    number: int
    part: str | None
    """Name of the module within the block; None for the block itself."""

    @classmethod
    def parse(cls, name: str) -> "BlockModule | None":
        """Take a name apart; None where it names no block and nothing inside of one."""
        found = IN_A_BLOCK.fullmatch(name)
        return None if found is None else cls(found[1], int(found[2]), found[3])

    def __str__(self) -> str:
        return ".".join([self.blocks, str(self.number), *([] if self.part is None else [self.part])])
