"""Find the SAEs of the requested layers and sites: the shipped ones, a local directory, or a Hub repository."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from stratalens.config.layer_numbers import DEFAULT_LAYERS, parse_layers
from stratalens.config.options import RunConfig
from stratalens.config.sae_activation import SaeActivation, parse_activation
from stratalens.errors import CheckpointError, ConfigError, MismatchError, ModelError
from stratalens.files.regular import reason_of
from stratalens.hookpoint import SITE_NAMES, Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.families import locate, width_at
from stratalens.models.hub import hub_errors, local_or_hub
from stratalens.models.source import ModelSource, skeleton
from stratalens.saes.foreign import foreign_reason
from stratalens.saes.formats import FORMATS, Format
from stratalens.saes.sae import Checkpoint, SaeFile
from stratalens.saes.tree import SaeTree

MAX_LISTED = 12
"""Checkpoints that an error message lists."""


def find_saes(
    config: RunConfig,
    model: ModelSource,
    only: Collection[Hookpoint] | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> dict[Hookpoint, SaeFile]:
    """Find the SAE of every requested layer and site, in rising order of hookpoints, without loading weights.

    Args:
        config: options of the run.
        model: the base model.
        only: the hookpoints to find, instead of those of `--layers` and `--sites`.
        say: called with the sites that the folder has besides.

    Raises:
        ConfigError: the SAE folder has no SAE for a requested layer or site, or several sites and none is named.
        CheckpointError: a checkpoint is missing or corrupt, or its width is not that of the model.
        ModelError: the model does not have a requested layer.
    """
    root = SAE_DIRECTORY if config.sae_model is None else _sae_root(config, only)
    tree = _tree(root)
    kind = _format_of(tree, config.sae_format)
    whole = skeleton(model)
    checkpoints: dict[Hookpoint, list[Checkpoint]] = {}
    for checkpoint in kind.checkpoints(tree, whole, _told(config, kind)):
        checkpoints.setdefault(checkpoint.hookpoint, []).append(checkpoint)
    wanted = _wanted(config, model, root, checkpoints, say) if only is None else only
    saes = {}
    for hookpoint in sorted(wanted):
        if hookpoint.block >= model.num_layers:
            raise ModelError(
                f"{model.name} has layers 0 to {model.num_layers - 1}; layer {hookpoint.block} was asked for"
            )
        if hookpoint not in checkpoints:
            raise _no_sae(root, hookpoint, checkpoints)
        checkpoint = _only_one(root, checkpoints[hookpoint])
        for place in (checkpoint.hookpoint, checkpoint.target):
            locate(whole, place)
        sae = saes[hookpoint] = kind.describe(checkpoint)
        width = width_at(whole, hookpoint, model.d_model)
        if sae.d_model != width:
            raise MismatchError(
                f"{checkpoint.path}: the SAE reads vectors of width {sae.d_model}, "
                f"but {model.name} has width {width}; it was made for another model"
            )
    return saes


def _wanted(
    config: RunConfig,
    model: ModelSource,
    root: Path,
    checkpoints: Collection[Hookpoint],
    say: Callable[[str], None],
) -> set[Hookpoint]:
    """The hookpoints of `--layers` and `--sites`."""
    there = [name for name in SITE_NAMES if any(hookpoint.site_name == name for hookpoint in checkpoints)]
    sites = list(config.sites) or _default_sites(root, there)
    others = [name for name in there if name not in sites]
    if others:
        say(f"The SAE folder also has sites that are not analysed: {' '.join(others)} (choose with --sites)")
    layers = parse_layers(config.layers)
    if layers is None and config.sae_model is None:
        layers = DEFAULT_LAYERS
    if isinstance(layers, tuple):
        return {Hookpoint.at(layer, site) for layer in layers for site in sites}
    for site in sites:
        if site not in there:
            raise ConfigError(f"{root}: no SAE at site {site}; it has {' '.join(there)}")
    return {hookpoint for hookpoint in checkpoints if hookpoint.site_name in sites}


def _default_sites(root: Path, there: list[str]) -> list[str]:
    """The block output if there is an SAE for it, else the only site of the folder."""
    if "resid" in there or len(there) == 1:
        return ["resid" if "resid" in there else there[0]]
    raise ConfigError(f"{root}: its SAEs are at several sites; choose with --sites {' '.join(there)}")


def _no_sae(root: Path, hookpoint: Hookpoint, there: Collection[Hookpoint]) -> ConfigError:
    layers = [str(other.block) for other in sorted(there) if other.site_name == hookpoint.site_name]
    if not layers:
        sites = dict.fromkeys(other.site_name for other in sorted(there))
        return ConfigError(f"{root}: no SAE at site {hookpoint.site_name}; it has {' '.join(sites)}")
    at_site = "" if hookpoint.site_name == "resid" else f" at site {hookpoint.site_name}"
    return ConfigError(f"{root}: no SAE for layer {hookpoint.block}{at_site}; it has layers {' '.join(layers)}")


def _only_one(root: Path, checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The checkpoint at a hookpoint, where there are not several."""
    if len(checkpoints) == 1:
        return checkpoints[0]
    names = [checkpoint.name for checkpoint in checkpoints]
    listed = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    raise ConfigError(f"{root}: several SAEs at layer {checkpoints[0].hookpoint}: {listed}; name the folder of one")


def _tree(root: Path) -> SaeTree:
    try:
        return SaeTree.of(root)
    except OSError as error:
        raise CheckpointError(f"{error.filename or root}: cannot be read: {reason_of(error)}") from None


def _format_of(tree: SaeTree, told: str | None) -> Format:
    """The format of which the files are: the one that the user names, else the first that recognises them."""
    if told is not None:
        if told not in FORMATS:
            raise ConfigError(f"sae_format: `{told[:60]}` is unknown; expected {', '.join(FORMATS)}")
        return FORMATS[told]
    *formats, last = FORMATS.values()
    for kind in formats:
        if kind.recognises(tree):
            return kind
    reason = foreign_reason(tree)
    if reason:
        raise CheckpointError(f"{tree.root}: {reason}")
    if last.recognises(tree):
        return last
    raise CheckpointError(
        f"{tree.root}: no SAE found; expected directories such as `layers.16` with cfg.json and sae.safetensors"
    )


def _told(config: RunConfig, kind: Format) -> SaeActivation | None:
    """What the user says of the activation.

    Raises:
        ConfigError: the files say it themselves.
    """
    told = parse_activation(config.sae_activation)
    if told is not None and not kind.TAKES_ACTIVATION:
        raise ConfigError(f"sae_activation: these SAEs say themselves which they have; leave out {told}")
    return told


def _sae_root(config: RunConfig, only: Collection[Hookpoint] | None) -> Path:
    """Directory of the SAEs; of a Hub repository, only the files of the requested layers are downloaded."""
    assert config.sae_model is not None
    source = local_or_hub(config.sae_model, CheckpointError)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    layers = parse_layers(config.layers)
    blocks = layers if isinstance(layers, tuple) else None
    if only is not None:
        blocks = sorted({hookpoint.block for hookpoint in only})
    with hub_errors(source, CheckpointError):
        patterns = [pattern for kind in FORMATS.values() for pattern in kind.hub_patterns(blocks)]
        return Path(snapshot_download(source, allow_patterns=patterns))
