"""Find the SAEs of the requested layers and sites: the shipped ones, a local directory, or a Hub repository."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from stratalens.config.layer_numbers import DEFAULT_LAYERS, parse_layers
from stratalens.config.options import RunConfig
from stratalens.config.sae_activation import SaeActivation, parse_activation
from stratalens.errors import CheckpointError, ConfigError, MismatchError, ModelError
from stratalens.files.regular import reason_of
from stratalens.hookpoint import SITE_NAMES, Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.families import locate, width_at
from stratalens.models.source import ModelSource, skeleton
from stratalens.saes.foreign import foreign_reason
from stratalens.saes.formats import FORMATS, Format, tensors
from stratalens.saes.hub_saes import LocatedSaes, Wanted, fetch_saes, meant_tree
from stratalens.saes.pick import l0_beside, only_one, pick
from stratalens.saes.places import SaePlace, parse_place
from stratalens.saes.sae import Checkpoint, SaeFile
from stratalens.saes.tree import SaeTree


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
    tree, root, commit = _located(config, only, say)
    kind = _format_of(tree, config)
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
        checkpoint = _picked(root, checkpoints[hookpoint], config.sae_pick)
        for place in (checkpoint.hookpoint, checkpoint.target):
            locate(whole, place)
        sae = saes[hookpoint] = replace(kind.describe(checkpoint), name=checkpoint.name, commit=commit)
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
    root: str,
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


def _default_sites(root: str, there: list[str]) -> list[str]:
    """The block output if there is an SAE for it, else the only site of the folder."""
    if "resid" in there or len(there) == 1:
        return ["resid" if "resid" in there else there[0]]
    raise ConfigError(f"{root}: its SAEs are at several sites; choose with --sites {' '.join(there)}")


def _no_sae(root: str, hookpoint: Hookpoint, there: Collection[Hookpoint]) -> ConfigError:
    layers = [str(other.block) for other in sorted(there) if other.site_name == hookpoint.site_name]
    if not layers:
        sites = dict.fromkeys(other.site_name for other in sorted(there))
        return ConfigError(f"{root}: no SAE at site {hookpoint.site_name}; it has {' '.join(sites)}")
    at_site = "" if hookpoint.site_name == "resid" else f" at site {hookpoint.site_name}"
    return ConfigError(f"{root}: no SAE for layer {hookpoint.block}{at_site}; it has layers {' '.join(layers)}")


def _picked(root: str, checkpoints: Sequence[Checkpoint], picks: Sequence[str]) -> Checkpoint:
    """The checkpoint at a hookpoint that `--sae_pick` chooses, where there are several.

    Raises:
        ConfigError: none fits, or several do.
        CheckpointError: a folder and one in it have the same name, so that neither can be chosen.
    """
    by_name = {checkpoint.name: checkpoint for checkpoint in checkpoints}
    where = f"{root}: layer {checkpoints[0].hookpoint}"
    if len(by_name) < len(checkpoints):
        name = next(name for name in by_name if sum(name == other.name for other in checkpoints) > 1)
        raise CheckpointError(
            f"{where}: there is an SAE in the folder itself and another in `{name}` in it; move one of them elsewhere, "
            "or give the inner folder to --sae_model"
        )

    def l0_in_config(name: str) -> float | None:
        declared = by_name[name].l0
        return l0_beside(by_name[name].path) if declared is None else declared

    return by_name[only_one(pick(list(by_name), picks, where, l0_in_config), where)]


def _located(config: RunConfig, only: Collection[Hookpoint] | None, say: Callable[[str], None]) -> LocatedSaes:
    """The files of the SAEs; of those of a Hub repository, only what is needed is fetched."""
    place = SaePlace(str(SAE_DIRECTORY), True) if config.sae_model is None else parse_place(config.sae_model)
    if not place.is_local:
        return fetch_saes(place, config.sae_revision, _needed(config, only), say)
    if config.sae_revision is not None:
        raise ConfigError(f"sae_revision: {place.location} is on this machine and has no revisions; leave it out")
    path = Path(place.location, place.folder)
    if not path.exists():
        raise CheckpointError(f"{place.location}: there is no `{place.folder}` in it")
    try:
        return LocatedSaes(meant_tree(place, SaeTree.of(path)), str(path))
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read: {reason_of(error)}") from None


def _needed(config: RunConfig, only: Collection[Hookpoint] | None) -> Wanted:
    """Which SAEs of a Hub repository are needed."""
    if only is not None:
        return Wanted({place.block for place in only}, {place.site_name for place in only}, config.sae_pick)
    layers = parse_layers(config.layers)
    return Wanted(layers if isinstance(layers, tuple) else None, config.sites, config.sae_pick)


def _format_of(tree: SaeTree, config: RunConfig) -> Format:
    """The format of which the files are: the one that the user names, else the first that recognises them."""
    told = config.sae_format
    if told is not None:
        if told not in FORMATS:
            raise ConfigError(f"sae_format: `{told[:60]}` is unknown; expected {', '.join(FORMATS)}")
        return FORMATS[told]
    *formats, last = FORMATS.values()
    for kind in formats:
        if kind.recognises(tree):
            return kind
    reason = foreign_reason(tree) if config.sae_activation is None else ""
    if reason:
        raise CheckpointError(f"{tree.root}: {reason}")
    if last.recognises(tree):
        return last
    damage = tensors.damage_in(tree)
    if damage:
        raise CheckpointError(f"{tree.root}: no SAE found that can be read: {damage}")
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
