"""SAEs of a Hub repository: listed, chosen by their names, and only the files of those fetched."""

import glob
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import CheckpointError, ConfigError, counted
from stratalens.files.json_files import json_object
from stratalens.models.hub import hub_errors
from stratalens.saes.listed import (
    NOT_IN_A_BLOCK,
    UNKNOWN,
    ListedSae,
    at_layers,
    at_sites,
    configs_of,
    listed_saes,
    without_other_seeds,
)
from stratalens.saes.pick import CONFIG_NAMES, l0_said, listed, only_one, pick
from stratalens.saes.places import SaePlace
from stratalens.saes.tree import SaeTree

COMMIT_SHOWN = 8
"""Characters of a commit in a message."""


class Wanted(NamedTuple):
    """Which SAEs a run needs."""

    layers: Collection[int] | None
    """None for all."""
    sites: Collection[str]
    """Empty where the user names none."""
    picks: Sequence[str]


class HubListing(NamedTuple):
    """The files of a repository at one commit."""

    repository: str
    commit: str
    sizes: Mapping[str, int]
    """Path of a file -> its bytes; 0 where that is not known."""
    is_from_cache: bool
    """Whether only what was fetched before is known."""


class LocatedSaes(NamedTuple):
    """SAEs that are on this machine."""

    tree: SaeTree
    """The files that were chosen; others may be beside them."""
    name: str
    """Where they are, for messages."""
    commit: str = ""
    """Of the Hub repository that they come from."""


def fetch_saes(
    place: SaePlace, revision: str | None, wanted: Wanted, say: Callable[[str], None] = lambda _message: None
) -> LocatedSaes:
    """Choose the SAEs of a repository, and fetch those of their files that are not in the cache of the Hub's client.

    Args:
        place: the repository, and which paths in it are meant.
        revision: branch, tag or commit; None for the default branch.
        wanted: layers, sites and picks.
        say: called with the number of files, their size and where they go, before they are fetched.

    Raises:
        CheckpointError: the repository cannot be reached, or the disk is too small.
        ConfigError: it has no SAE of a layer, or several that fit.
    """
    listing = list_repository(place.location, revision)
    if place.folder in listing.sizes:
        folder, _, name = place.folder.rpartition("/")
        place = place._replace(folder=folder, pattern=name)
    chosen = choose(listing, place, wanted)
    snapshot = _fetch(listing, chosen, revision, say)
    files = sorted((snapshot / file for file in chosen), key=lambda path: (len(path.parts), path))
    return LocatedSaes(SaeTree(snapshot / place.folder, tuple(files)), _shown(place), snapshot.name)


def list_repository(repository: str, revision: str | None) -> HubListing:
    """List the files of a repository; without network, those that were fetched before.

    Raises:
        CheckpointError: there is no such repository or revision, or it cannot be reached and was never fetched.
    """
    from huggingface_hub import HfApi, snapshot_download

    with hub_errors(repository, CheckpointError):
        try:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        except Exception as error:
            if not _is_unreachable(error):
                raise
            with suppress(OSError):  # so says the client that it has nothing
                cached = snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[])
                folder = Path(cached)
                files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
                return HubListing(repository, folder.name, dict.fromkeys(files, 0), is_from_cache=True)
            raise
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        return HubListing(repository, info.sha or "", sizes, is_from_cache=False)


def choose(listing: HubListing, place: SaePlace, wanted: Wanted) -> list[str]:
    """Choose the files of the SAEs that are wanted.

    Raises:
        CheckpointError: the repository has no such folder, or only SAEs of a kind that is not read.
        ConfigError: it has no SAE of a layer, or several that fit.
    """
    prefix, shown = f"{place.folder}/" if place.folder else "", _shown(place)
    names = [name.removeprefix(prefix) for name in listing.sizes if name.startswith(prefix)]
    if not names:
        raise CheckpointError(f"{shown}: there is no such folder in the repository; see the files on its Hub page")
    saes = listed_saes(names, place.location, place.folder)
    if not saes:
        return [prefix + name for name in configs_of(names)]
    if all(sae.site == "cross-layer" for sae in saes):
        raise CheckpointError(f"{shown}: it holds cross-layer transcoders, which are not read")
    meant = meant_saes(saes, place, shown)
    _require_one_site(meant, wanted, shown)
    meant, there = at_sites(meant, wanted.sites), sorted({sae.site for sae in meant})
    if not meant:
        raise ConfigError(f"{shown}: no SAE at site {' '.join(sorted(wanted.sites))}; it has {' '.join(there)}")
    groups: dict[tuple[int | None, str], dict[str, ListedSae]] = {}
    for sae in at_layers(meant, wanted.layers):
        groups.setdefault((sae.layer, sae.site), {})[sae.path] = sae
    _require_layers(meant, wanted, shown, listing.is_from_cache)
    files: dict[str, None] = {}
    for (layer, site), group in groups.items():
        paths = list(group)
        if layer is not None or wanted.picks:
            where = shown + ("" if layer is None else f": layer {layer}") + (f" {site}" if site else "")
            said = partial(_l0_in_config, listing, prefix, group)
            paths = [only_one(without_other_seeds(pick(paths, wanted.picks, where, said)), where)]
        files |= {prefix + file: None for path in paths for file in group[path].files}
    return list(files)


def meant_tree(place: SaePlace, tree: SaeTree) -> SaeTree:
    """The part of a local folder that the pattern of a place means.

    Raises:
        CheckpointError: there is no SAE with such a path.
    """
    if not place.pattern:
        return tree
    names = {path.relative_to(tree.root).as_posix(): path for path in tree.files}
    saes = meant_saes(listed_saes(names, place.location, place.folder), place, _shown(place))
    chosen = {names[file] for sae in saes for file in sae.files}
    return tree._replace(files=tuple(path for path in tree.files if path in chosen))


def meant_saes(saes: Sequence[ListedSae], place: SaePlace, shown: str) -> list[ListedSae]:
    """The SAEs that the pattern of a place means, with the layers that it says.

    Raises:
        CheckpointError: there is none.
    """
    meant: list[ListedSae] = []
    for sae in saes:
        matches = (place.matches(path) for path in (sae.path, *sae.files))
        layer = next((match for match in matches if match is not None), None)
        if layer is not None:
            meant.append(sae if layer is True else sae._replace(layer=int(layer)))
    if not meant:
        raise CheckpointError(f"{shown}: no SAE has such a path; there are {listed([sae.path for sae in saes])}")
    return meant


def _require_one_site(meant: Sequence[ListedSae], wanted: Wanted, shown: str) -> None:
    sites = sorted({sae.site for sae in meant} - {UNKNOWN, *NOT_IN_A_BLOCK})
    if len(sites) > 1 and "resid" not in sites and not wanted.sites:
        raise ConfigError(f"{shown}: its SAEs are at several sites; choose with --sites {' '.join(sites)}")


def _require_layers(meant: Sequence[ListedSae], wanted: Wanted, shown: str, is_from_cache: bool) -> None:
    there = {sae.layer for sae in meant if sae.layer is not None}
    missing = sorted(set(wanted.layers or ()) - there)
    if there and missing:
        known = "; the Hub cannot be reached, so only what was fetched before is known" if is_from_cache else ""
        raise ConfigError(
            f"{shown}: no SAE for layer {missing[0]}; it has layers {' '.join(map(str, sorted(there)))}{known}"
        )


def _shown(place: SaePlace) -> str:
    inside = "/".join(part for part in (place.folder, place.pattern) if part)
    return f"{place.location}:{inside}" if inside else place.location


def _l0_in_config(listing: HubListing, prefix: str, group: Mapping[str, ListedSae], path: str) -> float | None:
    """The L0 that a configuration of an SAE says, which is fetched for that."""
    from huggingface_hub import hf_hub_download

    configs = [file for file in group[path].files if file.rpartition("/")[2] in CONFIG_NAMES]
    for file in configs:
        with hub_errors(listing.repository, CheckpointError):
            local = hf_hub_download(listing.repository, prefix + file, revision=listing.commit)
        if (l0 := l0_said(json_object(Path(local)))) is not None:
            return l0
    return None


def _fetch(listing: HubListing, files: Sequence[str], revision: str | None, say: Callable[[str], None]) -> Path:
    """Fetch the files that are not in the cache; return the folder of the commit."""
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

    cache, name = Path(constants.HF_HUB_CACHE), listing.repository
    missing = [
        file for file in files if not isinstance(try_to_load_from_cache(name, file, revision=listing.commit), str)
    ]
    size = sum(listing.sizes[file] for file in missing)
    if missing and not listing.is_from_cache:
        what = f"{counted(len(missing), 'file')} ({_bytes_text(size)}) of {name} at {listing.commit[:COMMIT_SHOWN]}"
        say(f"Fetching {what} into {cache}")
        _require_room(cache, size, name)
    with hub_errors(name, CheckpointError):
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[glob.escape(file) for file in files],
                local_files_only=listing.is_from_cache,
            )
        )


def _require_room(cache: Path, size: int, name: str) -> None:
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise CheckpointError(
            f"{name}: the files take {_bytes_text(size)}, and {existing} has {_bytes_text(free)} free; free some "
            "space, or name another directory in the environment variable HF_HUB_CACHE"
        )


def _bytes_text(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 10**9 else f"{number / 1e6:.1f} MB"


def _is_unreachable(error: Exception) -> bool:
    """Whether the Hub did not answer, rather than refused."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return False
    library = type(error).__module__.split(".")[0]
    return isinstance(error, errors.OfflineModeIsEnabled | ConnectionError | TimeoutError) or library.startswith(
        "httpx"
    )
