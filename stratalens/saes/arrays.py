"""The arrays of one checkpoint: what they are called, how they are stored, and how they become an SAE."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from stratalens.saes.activations import Activation
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, Sae, SaeFile
from stratalens.saes.steps import Linear, Step
from stratalens.saes.weights import digest_of, folded, mapped_rows, read_array


class Sizes(NamedTuple):
    """Sizes of an SAE."""

    num_latents: int
    d_model: int
    """Width of the vectors that it reads."""
    d_out: int
    """Width of the vectors that it reconstructs."""


@dataclass(frozen=True)
class SaeArrays:
    """Names of the arrays of an SAE in a file. A name that is None stands for zeros."""

    path: Path
    encoder: str = "W_enc"
    """`[latent, d_model]`."""
    decoder: str = "W_dec"
    """`[latent, d_out]`."""
    encoder_bias: str | None = "b_enc"
    decoder_bias: str | None = "b_dec"
    skip: str | None = None
    """`[d_out, d_model]`; None for no skip weight."""
    turned: frozenset[str] = frozenset()
    """Those of the matrices that the file has with exchanged axes."""

    def sizes(self, header: Header, source: str = "the rest of the file") -> Sizes:
        """Sizes by the shapes, and check that all arrays fit each other.

        Args:
            header: of the file.
            source: what says so, for the message.

        Raises:
            CheckpointError: an array is missing, or of another shape or type.
        """
        num_latents, d_model = self._shape(header, self.encoder)
        d_out = self._shape(header, self.decoder)[1]
        wanted = {
            self.encoder: (num_latents, d_model),
            self.decoder: (num_latents, d_out),
            self.encoder_bias: (num_latents,),
            self.decoder_bias: (d_out,),
            self.skip: (d_out, d_model),
        }
        header.require(
            {name: shape[::-1] if name in self.turned else shape for name, shape in wanted.items() if name is not None},
            source,
        )
        return Sizes(num_latents, d_model, d_out)

    def linear(self, *, centred: bool = False) -> Linear:
        """Read the product of the encoder.

        Args:
            centred: whether the decoder bias is subtracted from vectors first; it is folded into the bias.

        Raises:
            CheckpointError: the file is damaged.
        """
        weight = read_array(self.path, self.encoder, narrow=True, turned=self.encoder in self.turned)
        bias = self._vector(self.encoder_bias, len(weight))
        if centred and self.decoder_bias is not None:
            bias = folded(weight, bias, read_array(self.path, self.decoder_bias))
        return Linear.of(weight, bias)

    def decoder_rows(self) -> Float[Tensor, "latent d_out"]:
        """The rows of the decoder, in the type of the file; mapped where the file allows it.

        Raises:
            CheckpointError: the file is damaged.
        """
        return mapped_rows(self.path, self.decoder, turned=self.decoder in self.turned)

    def decode(self, scale: Float[Tensor, "latent"] | None = None, factor: float = 1.0) -> Decoder:
        """Read the decoder.

        Args:
            scale: factor of each row.
            factor: of all that is reconstructed but what the skip weight adds.

        Raises:
            CheckpointError: the file is damaged.
        """
        rows = self.decoder_rows()
        skip = None if self.skip is None else read_array(self.path, self.skip, turned=self.skip in self.turned)
        bias = self._vector(self.decoder_bias, rows.shape[1])
        if factor != 1:
            scale = torch.full((len(rows),), factor) if scale is None else scale * factor
        return Decoder(rows, bias * factor, skip, scale)

    def _shape(self, header: Header, name: str) -> tuple[int, ...]:
        shape = header.shape(name, axes=2)
        return shape[::-1] if name in self.turned else shape

    def _vector(self, name: str | None, size: int) -> Tensor:
        return torch.zeros(size) if name is None else read_array(self.path, name)


class Kind(NamedTuple):
    """What a format says of an encoder, beside its arrays."""

    activation: str
    """Name, such as `topk`."""
    k: int | None = None
    """Most latents that fire on one token; None without such a limit."""
    settings: str = ""
    """Whatever beside the weight file changes the latents, in any form: a part of the SAE's identity."""


def sae_file(
    checkpoint: Checkpoint,
    header: Header,
    arrays: SaeArrays,
    kind: Kind,
    encoder: Callable[[], Encoder],
    decoder: Callable[[], Decoder],
) -> SaeFile:
    """Describe a checkpoint whose weights are in one file.

    Args:
        checkpoint: where it lies and belongs.
        header: of the file of its weights.
        arrays: their names.
        kind: of its encoder.
        encoder: reads the encoder alone.
        decoder: reads the decoder alone.

    Raises:
        CheckpointError: its arrays do not fit each other, or the file cannot be read.
    """
    sizes = arrays.sizes(header)
    return SaeFile(
        hookpoint=checkpoint.hookpoint,
        target=checkpoint.target,
        module=checkpoint.module,
        activation=kind.activation,
        k=kind.k,
        num_latents=sizes.num_latents,
        d_model=sizes.d_model,
        digest=digest_of(arrays.path, kind.settings),
        load=partial(_both, encoder, decoder),
        load_encoder=encoder,
        load_decoder=decoder,
        bfloat16_encoder=header.dtypes[arrays.encoder] == "BF16",
        l0=checkpoint.l0,
    )


def encoder_of(steps: Iterable[Step], linear: Linear, activation: Activation) -> Encoder:
    """An encoder of steps before the product, the product and an activation."""
    return Encoder(linear.weight.shape[1], (*steps, linear), activation)


def _both(encoder: Callable[[], Encoder], decoder: Callable[[], Decoder]) -> Sae:
    encodes = encoder()
    return Sae(encodes.d_model, encodes.steps, encodes.activation, decoder())
