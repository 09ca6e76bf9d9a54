"""EleutherAI's sparsify format: `<run>/<hookpoint>/{cfg.json, sae.safetensors}`, or one such directory per seed."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.files.json_files import json_object
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import blocks_name, describe_blocks, hookpoint_of
from stratalens.saes.activations import Activation, GroupMax, TopK
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, Sae, SaeFile
from stratalens.saes.settings import MAX_NAMES_CHARACTERS, MAX_SIZE, read_settings, validated_settings
from stratalens.saes.steps import Linear
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import digest_of, folded, mapped_rows, read_array, read_header

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae.safetensors"
MAX_DIGITS = 6
"""Of the number of a block in the name of a directory."""
TAKES_ACTIVATION: bool = False
ACTIVATIONS: dict[str, Callable[[int], Activation]] = {"topk": TopK, "groupmax": GroupMax}


class SparsifyConfig(BaseModel):
    """`cfg.json` of a sparse coder; unknown keys are ignored, missing ones have the library's default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    d_in: int = Field(gt=0, le=MAX_SIZE)
    activation: str = "topk"
    expansion_factor: int = Field(32, gt=0, le=MAX_SIZE)
    num_latents: int = Field(0, ge=0, le=MAX_SIZE)
    k: int = Field(32, gt=0, le=MAX_SIZE)
    skip_connection: bool = False
    transcode: bool = False
    signed: bool = False

    @property
    def width(self) -> int:
        """Number of latents; 0 in the file means d_in x expansion_factor."""
        return self.num_latents or self.d_in * self.expansion_factor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the tensors that the checkpoint must have."""
        weights = {"encoder.weight": (self.width, self.d_in), "encoder.bias": (self.width,)}
        decoder = {"W_dec": (self.width, self.d_in), "b_dec": (self.d_in,)}
        return weights | decoder | ({"W_skip": (self.d_in, self.d_in)} if self.skip_connection else {})


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return any(path.name == WEIGHTS_FILE for path in tree.files) or (
        any(path.name == CONFIG_FILE and "d_sae" not in json_object(path) for path in tree.files)
        and bool(_checkpoints(tree))
    )


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`; the root is a run directory, or the directory of a single checkpoint.

    Raises:
        CheckpointError: none of the modules named in the directory is at a known hookpoint.
    """
    root, found = tree.root, dict[Hookpoint, Checkpoint]()
    folders = _checkpoints(tree)
    for module, folder in folders.items():
        target = hookpoint_of(model, module, "out")
        source = hookpoint_of(model, module, "in") if _transcodes(folder) else target
        if source is None or target is None:
            continue
        if source in found:
            raise CheckpointError(
                f"{root}: {found[source].module} and {module} name the same module of the model; keep one of them"
            )
        found[source] = Checkpoint(folder, source, target, module, tree.within(folder))
    if not found:
        raise CheckpointError(
            f"{root}: none of its SAEs belongs to a block of this model, or to a known module in one "
            f"(found: {', '.join(folders)[:MAX_NAMES_CHARACTERS]}); the model has {describe_blocks(model)}"
            f"{_renaming(folders, model)}"
        )
    return list(found.values())


def _checkpoints(tree: SaeTree) -> dict[str, Path]:
    """Module -> directory of its checkpoint.

    With several seeds per module, the first by name is taken. Other files of the run are ignored.
    """
    root, files = tree.root, set(tree.files)
    if root / CONFIG_FILE in files and root / WEIGHTS_FILE in files:
        path = root.resolve()
        name = path.parent.name if path.name.startswith("seed") else path.name
        return {name: root}
    own = {path.parent for path in files if path.name in (CONFIG_FILE, WEIGHTS_FILE)}
    found: dict[str, Path] = {}
    for folder in sorted({path if path.parent == root else path.parent for path in own} - {root}):
        seeds = sorted(path for path in own if path.parent == folder and path.name.startswith("seed"))
        checkpoint = folder if not seeds or folder / WEIGHTS_FILE in files else seeds[0]
        if checkpoint in own and folder.parent == root:
            found[folder.name] = checkpoint
    return found


def _renaming(folders: Iterable[str], model: nn.Module) -> str:
    """How to name a directory: after the module that its SAE belongs to."""
    for name in folders:
        numbers = re.findall(r"[0-9]+", name)
        if len(numbers) == 1 and len(numbers[0]) < MAX_DIGITS:
            module = f"{blocks_name(model)}.{int(numbers[0])}"
            return f"; if `{name}` is of the output of block {int(numbers[0])}, rename it to `{module}`"
    return f"; name each directory after the module of its SAE, such as `{blocks_name(model)}.0`"


def _transcodes(folder: Path) -> bool:
    """Whether a checkpoint is a transcoder; a damaged configuration is reported only if the SAE is wanted."""
    with suppress(CheckpointError):
        return _read_config(folder / CONFIG_FILE).transcode
    return False


def describe(checkpoint: Checkpoint) -> SaeFile:
    """Read the configuration of one checkpoint and check the names, types and shapes of its tensors, not their values.

    Raises:
        CheckpointError: a file is missing, corrupt or of an unsupported kind.
    """
    config = _read_config(checkpoint.path / CONFIG_FILE)
    path = checkpoint.path / WEIGHTS_FILE
    header = read_header(path)
    header.require(config.shapes(), CONFIG_FILE)
    return SaeFile(
        hookpoint=checkpoint.hookpoint,
        target=checkpoint.target,
        module=checkpoint.module,
        activation=config.activation,
        k=config.k,
        num_latents=config.width,
        d_model=config.d_in,
        digest=digest_of(path),
        load=partial(load, checkpoint.path),
        load_encoder=partial(load_encoder, checkpoint.path),
        load_decoder=partial(load_decoder, checkpoint.path),
        bfloat16_encoder=header.dtypes["encoder.weight"] == "BF16",
    )


def load(folder: Path) -> Sae:
    """Load one checkpoint.

    Raises:
        CheckpointError: a file is missing, corrupt, of an unsupported kind, or holds values that are not finite.
    """
    encoder = load_encoder(folder)
    return Sae(encoder.d_model, encoder.steps, encoder.activation, load_decoder(folder))


def load_encoder(folder: Path) -> Encoder:
    """Load the encoder of a checkpoint, and nothing of its decoder but the bias.

    Raises:
        CheckpointError: see `load`.
    """
    config, path = _checked(folder)
    weight, bias = read_array(path, "encoder.weight", narrow=True), read_array(path, "encoder.bias")
    if not config.transcode:
        bias = folded(weight, bias, read_array(path, "b_dec"))
    return Encoder(config.d_in, (Linear.of(weight, bias),), ACTIVATIONS[config.activation](config.k))


def load_decoder(folder: Path) -> Decoder:
    """Load the decoder of a checkpoint; its rows are mapped, so that only those that are used take memory.

    Raises:
        CheckpointError: see `load`.
    """
    config, path = _checked(folder)
    skip = read_array(path, "W_skip") if config.skip_connection else None
    return Decoder(mapped_rows(path, "W_dec"), read_array(path, "b_dec"), skip)


def _checked(folder: Path) -> tuple[SparsifyConfig, Path]:
    """The configuration of a checkpoint, and the path of its weights, whose names, types and shapes are as it says."""
    config, path = _read_config(folder / CONFIG_FILE), folder / WEIGHTS_FILE
    read_header(path).require(config.shapes(), CONFIG_FILE)
    return config, path


def _read_config(path: Path) -> SparsifyConfig:
    content = read_settings(path, f"a sparsify checkpoint needs it beside {WEIGHTS_FILE}")
    config = validated_settings(path, SparsifyConfig, content)
    if config.signed:
        raise CheckpointError(f"{path}: `signed: true` (top-k of |h|, no ReLU) is not supported")
    if config.activation not in ACTIVATIONS:
        raise CheckpointError(f"{path}: activation `{config.activation[:60]}` is unknown; expected topk or groupmax")
    if config.k > config.width:
        raise CheckpointError(f"{path}: k = {config.k} exceeds the {config.width} latents")
    if config.activation == "groupmax" and config.width % config.k:
        raise CheckpointError(f"{path}: groupmax needs the {config.width} latents to be a multiple of k = {config.k}")
    return config
