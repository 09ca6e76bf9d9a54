"""dictionary_learning: `resid_post_layer_N/trainer_M/{ae.pt, config.json}`, or an `ae.pt` alone.

The tensors tell the class of a dictionary, except TopK from BatchTopK, which have the same ones.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.saes.activations import Activation, Gated, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.dictionary_places import configured, numbered, place_of
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, SaeFile
from stratalens.saes.settings import no_known_place
from stratalens.saes.steps import Linear, Scale, Step
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header, read_numbers, row_norms

WEIGHTS_FILE = "ae.pt"
CONFIG_FILE = "config.json"
TAKES_ACTIVATION: bool = True
MAX_SCALE = 1e30
BACKUP = "ae."
"""What the names of arrays begin with in a backup of a training, beside its optimizer."""
PLAIN, NEW, GATED, JUMPRELU = "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"
TOPK, BATCHTOPK, MATRYOSHKA = "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"
BY_THRESHOLD = (BATCHTOPK, MATRYOSHKA)
"""Classes that are trained on the k largest of a batch, and encode with a threshold for all latents."""
MATRICES_OF_PARAMETERS = (JUMPRELU, MATRYOSHKA)
"""Classes with `W_enc [d, L]` and `W_dec [L, d]`; the others have the weights of linear layers."""
ACTIVATIONS = {PLAIN: "relu", NEW: "relu", GATED: "gated", JUMPRELU: "jumprelu", TOPK: "topk"}
CENTRES = {PLAIN: "bias", GATED: "decoder_bias", TOPK: "b_dec", BATCHTOPK: "b_dec", MATRYOSHKA: "b_dec"}
"""Class -> the bias of the decoder, which is subtracted from vectors before they are encoded."""
DECODER_BIASES = {**CENTRES, NEW: "decoder.bias", JUMPRELU: "b_dec"}


class _Dictionary(NamedTuple):
    """What is known of a checkpoint before its weights are read."""

    path: Path
    kind: str
    """Name of its class."""
    k: int | None
    """Of a TopK."""
    prefix: str
    scale: float
    """What the biases are to be multiplied by: 1 but in a backup of a training on scaled vectors."""

    def name(self, array: str) -> str:
        """Name of an array in the file."""
        return self.prefix + array

    def arrays(self) -> SaeArrays:
        """Names of its arrays."""
        parameters = self.kind in MATRICES_OF_PARAMETERS
        encoder, decoder = ("W_enc", "W_dec") if parameters else ("encoder.weight", "decoder.weight")
        bias = None if self.kind == GATED else "b_enc" if parameters else "encoder.bias"
        return SaeArrays(
            self.path,
            self.name(encoder),
            self.name(decoder),
            None if bias is None else self.name(bias),
            self.name(DECODER_BIASES[self.kind]),
            turned=frozenset({self.name(encoder if parameters else decoder)}),
        )

    def vector(self, array: str) -> Tensor:
        """Read an array of biases or thresholds, scaled."""
        return read_array(self.path, self.name(array)) * self.scale


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(tree.named(r"ae\.pt"))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found, names = list[Checkpoint](), list[str]()
    for path in tree.named(r"ae\.pt"):
        name, place = place_of(model, path)
        names.append(name)
        if place is not None:
            trainer = configured(path)
            l0 = numbered(trainer, "target_l0") or (numbered(trainer, "k") if _named(trainer) in BY_THRESHOLD else None)
            found.append(Checkpoint(path.parent, place, place, name, tree.within(path.parent), l0, told))
    if not found:
        raise no_known_place(tree.root, names, model)
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    path = checkpoint.path / WEIGHTS_FILE
    header = read_header(path)
    made = _dictionary(path, header, checkpoint.told)
    arrays = made.arrays()
    sizes = arrays.sizes(header)
    if made.kind == GATED:
        header.require(
            dict.fromkeys(map(made.name, ("r_mag", "gate_bias", "mag_bias")), (sizes.num_latents,)), path.name
        )
    if made.kind == JUMPRELU:
        header.require({made.name("threshold"): (sizes.num_latents,)}, "the rest of the file")
    if made.kind in BY_THRESHOLD:
        header.require({made.name("threshold"): ()}, made.kind)
    if made.k is not None and made.k > sizes.num_latents:
        raise CheckpointError(f"{path}: k = {made.k} exceeds the {sizes.num_latents} latents")
    kind = Kind(ACTIVATIONS.get(made.kind, "batchtopk"), made.k, f"{made.kind} {made.k}")
    file = sae_file(checkpoint, header, arrays, kind, partial(_encoder, made), partial(_decoder, made))
    return replace(file, warning=_warning(made))


def _warning(made: _Dictionary) -> str:
    """Say that a threshold was never set: its buffer is then -1, which lets every positive latent pass."""
    if made.kind not in BY_THRESHOLD or read_numbers(made.path, made.name("threshold"))[0] >= 0:
        return ""
    return (
        f"{made.path}: the threshold of this {made.kind} was never set, so that every positive latent fires, far more "
        "than in its training; use a checkpoint from a later step"
    )


def _named(trainer: dict[str, object]) -> str:
    return str(trainer.get("dict_class") or "")


def _dictionary(path: Path, header: Header, told: SaeActivation | None) -> _Dictionary:
    prefix = BACKUP if any(name.startswith(BACKUP) for name in header.shapes) else ""
    trainer = configured(path)
    kind = _class_of(path, header, prefix, _named(trainer), told)
    k = _k_of(path, header, prefix, trainer, told) if kind == TOPK else None
    return _Dictionary(path, kind, k, prefix, _scale_of(path, header) if prefix else 1.0)


def _class_of(path: Path, header: Header, prefix: str, says: str, told: SaeActivation | None) -> str:
    """Name of the class: what the tensors tell, and where they leave it open, the configuration or the user.

    A trainer of the library writes `AutoEncoder` whether it trained that or `AutoEncoderNew`.
    """
    possible = _possible(header, prefix)
    if says and says not in DECODER_BIASES:
        raise CheckpointError(f"{path}: class `{says[:60]}` of dictionary_learning is not supported")
    if not possible:
        header.shape(f"{prefix}encoder.weight", axes=2)
        raise CheckpointError(f"{path}: its tensors are of no known class of dictionary_learning")
    if says and says not in possible and not (says == PLAIN and possible == (NEW,)):
        raise CheckpointError(
            f"{path}: {CONFIG_FILE} says {says}, but its tensors are those of {' or '.join(possible)}"
        )
    if len(possible) == 1 or says in possible:
        if told is not None and (says != TOPK or told.kind != "topk" or told.centred):
            raise CheckpointError(f"{path}: says itself that it is {says or possible[0]}; leave out --sae_activation")
        return possible[0] if len(possible) == 1 else says
    if told is None or told.kind not in ("topk", "jumprelu") or told.centred or told.threshold is not None:
        raise CheckpointError(
            f"{path}: a TopK and a BatchTopK have the same tensors, and no {CONFIG_FILE} says which this is; give "
            "--sae_activation topk:K, or jumprelu for a BatchTopK"
        )
    return TOPK if told.kind == "topk" else BATCHTOPK


def _possible(header: Header, prefix: str) -> tuple[str, ...]:
    """The classes that have such tensors."""
    names = {name.removeprefix(prefix) for name in header.shapes if name.startswith(prefix)}
    if "W_enc" in names:
        return (MATRYOSHKA,) if "group_sizes" in names else (JUMPRELU,)
    if "encoder.weight" not in names:
        return ()
    for mark, kind in (("r_mag", GATED), ("decoder.bias", NEW), ("bias", PLAIN)):
        if mark in names:
            return (kind,)
    return (TOPK, BATCHTOPK) if "b_dec" in names else ()


def _k_of(path: Path, header: Header, prefix: str, trainer: dict[str, object], told: SaeActivation | None) -> int:
    stored = read_numbers(path, f"{prefix}k") if f"{prefix}k" in header.shapes else []
    numbers = {int(number) for number in stored if number >= 1}
    numbers |= {int(number) for number in (numbered(trainer, "k"), told and told.k) if number is not None}
    if len(numbers) != 1:
        said = ", ".join(map(str, sorted(numbers))) or "none"
        raise CheckpointError(f"{path}: k of a TopK must be one number, but the file, {CONFIG_FILE} and you say {said}")
    return numbers.pop()


def _scale_of(path: Path, header: Header) -> float:
    """The `norm_factor` of a backup: vectors were divided by it in the training, so that biases grow with it."""
    if "norm_factor" in header.shapes:
        header.require({"norm_factor": ()}, "a backup")
        (value,) = read_numbers(path, "norm_factor")
    elif "norm_factor" in header.values:
        given = header.values["norm_factor"]
        if given is None:  # vectors were not scaled
            return 1.0
        value = 0.0
        if isinstance(given, int | float) and not isinstance(given, bool) and given < MAX_SCALE:
            value = float(given)
    else:
        raise CheckpointError(
            f"{path}: a backup of a training without its norm_factor, so that the scale of its biases is unknown; "
            "use the ae.pt that the training left at its end"
        )
    if not 0 < value < MAX_SCALE:
        raise CheckpointError(f"{path}: norm_factor of a backup must be a number above 0")
    return value


def _encoder(made: _Dictionary) -> Encoder:
    linear = made.arrays().linear(centred=made.kind in CENTRES)
    linear = replace(linear, bias=linear.bias * made.scale)
    steps: tuple[Step, ...] = (linear,)
    norms = _norms(made)
    if norms is not None:
        steps = (linear, Scale(norms))
    return Encoder(linear.weight.shape[1], steps, _activation(made, linear))


def _activation(made: _Dictionary, linear: Linear) -> Activation:
    num_latents = len(linear.bias)
    if made.kind == TOPK:
        assert made.k is not None
        return TopK(made.k)
    if made.kind == GATED:  # gate and magnitude share the product with its centre, so that goes into the biases
        factor = read_array(made.path, made.name("r_mag")).exp()
        return Gated(made.vector("gate_bias"), factor, made.vector("mag_bias"))
    if made.kind == JUMPRELU:
        return Threshold.of(made.vector("threshold"))
    if made.kind in BY_THRESHOLD:
        (threshold,) = read_numbers(made.path, made.name("threshold"))
        return Threshold.of(torch.full((num_latents,), threshold * made.scale))
    return Threshold.relu(num_latents)


def _decoder(made: _Dictionary) -> Decoder:
    norms = _norms(made)
    decoder = made.arrays().decode(None if norms is None else 1 / norms.clamp(min=torch.finfo(torch.float32).tiny))
    return replace(decoder, bias=decoder.bias * made.scale)


def _norms(made: _Dictionary) -> Float[Tensor, "latent"] | None:
    """The factors by which the library multiplies latents of an `AutoEncoder` as it loads one; None for no change.

    `from_pretrained` divides the rows of the decoder by their norms unless all are 1, and multiplies the encoder.
    """
    if made.kind != PLAIN:
        return None
    norms = row_norms(made.arrays().decoder_rows())
    return None if torch.allclose(norms, torch.ones_like(norms)) else norms
