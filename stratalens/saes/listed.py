"""What the names of files say about SAEs: which files belong to one, and its layer, site and L0.

Many repositories hold hundreds of SAEs, of which a run needs a few; these are chosen by their names before anything is
fetched. Names are those of the suites in docs/formats.md. What a name does not say is left open: the format decides it
when the files are there.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")
CONFIGS = (".json", ".yaml", ".yml")
OTHER_TENSORS = re.compile(
    r"(optimizer|lr_scheduler|rank_|training_state|state\.|activation|(log_)?(feature_)?sparsity|model[.-]|"
    r"pytorch_model|adapter_model|consolidated).*"
)
"""Names of files with tensors that are no SAE."""
FINAL = re.compile(r"final\..+")
"""Of the files in a folder `checkpoints`, the one that is meant; others are of earlier steps."""
SEED = re.compile(r"seed\d+")
CLEAR_LAYER = re.compile(r"(?:^|[^a-z])(?:layers?|blocks?|h)[._-]?(\d{1,4})(?!\d)", re.IGNORECASE)
SHORT_LAYER = re.compile(r"(?:^|[^a-z0-9])l(\d{1,4})(?:r|m|a|tc)?(?=$|[^a-z0-9])", re.IGNORECASE)
"""As in `Llama3_1-8B-Base-L15R-8x` and `Llama-3.1-8B-Instruct-SAE-l19.pth`."""
L0 = re.compile(r"(?:^|[^a-z0-9])(?:average_)?l0[_=-](\d+(?:\.\d+)?)(?![\w.])", re.IGNORECASE)
ANY_L0 = re.compile(r"(?:^|[^a-z0-9])(?:average_)?l0[_=-]\w+", re.IGNORECASE)
SITES: tuple[tuple[str, str], ...] = (
    ("embedding", r"embed"),
    ("cross-layer", r"(?:^|[^a-z])(?:clt|cross)"),
    ("transcoder", r"transcoder|l\d+tc-"),
    ("attn_heads", r"hook_z|(?:^|[-_/])att(?=[-_/]|$)|attn_heads"),
    ("mlp", r"mlp|feed_?forward|(?:^|[^a-z])ffn|l\d+m-"),
    ("attn", r"attn|attention|l\d+a-"),
    ("resid_in", r"resid_(?:pre|in)(?![a-z])"),
    ("resid", r"resid|(?:^|[-_/])res(?=[-_/]|$)|l\d+r-|(?:^|/)(?:[a-z_]+\.)*(?:layers|blocks|h)\.\d+(?=/|$)"),
)
"""Site -> expression for a path that names it, tried in this order."""
UNKNOWN = ""
"""The site of an SAE whose path does not say it."""
NOT_IN_A_BLOCK = ("embedding", "cross-layer")
MAY_BE_AT: dict[str, set[str]] = {
    "transcoder": {"resid_in", "attn_norm", "mlp_norm", "attn_norm_no_gain", "mlp_norm_no_gain"},
    "attn": {"attn", "attn_module", "attn_heads"},
    "embedding": {"resid_in"},
}
"""Site that a path names -> those of `--sites` at which the SAE may be; which one, only the format knows."""


class ListedSae(NamedTuple):
    """One SAE, as the names of its files describe it."""

    path: str
    """The folder or the file that holds it; `.` for the folder that was listed."""
    files: tuple[str, ...]
    """Its weights, and the configurations beside and above them."""
    layer: int | None
    site: str
    """One of `SITES`, or `UNKNOWN`."""
    l0: float | None


def listed_saes(names: Iterable[str], repository: str = "", folder: str = "") -> list[ListedSae]:
    """Find the SAEs among files, in the order of their paths.

    Args:
        names: paths of files, relative to a folder, with `/`.
        repository: its name, which may say the site of all.
        folder: its path in the repository, which may say site and layer of all.
    """
    names = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    configs = [name for name in names if name.endswith(CONFIGS)]
    weights = [name for name in names if _is_weights(name)]
    in_folder: dict[str, list[str]] = defaultdict(list)
    for name in weights:
        in_folder[_folder_of(name)].append(name)
    saes: list[ListedSae] = []
    for parent, own in in_folder.items():
        alone = len(own) == 1 and layer_of(own[0].rpartition("/")[2]) is None
        for path, files in [(parent, own)] if alone else [(name, [name]) for name in own]:
            beside = [name for name in configs if _is_above(name, parent)]
            whole = f"{folder}/{path}"
            site = site_of(f"{repository}/{whole}")
            layer = 0 if (layer := layer_of(whole)) is None and site == "embedding" else layer
            saes.append(ListedSae(path, (*files, *beside), layer, site, l0_of(path)))
    return sorted(saes, key=lambda sae: sae.path)


def configs_of(names: Iterable[str]) -> list[str]:
    """The files in the folder itself that may say what it holds, where no SAE was found in it."""
    return [name for name in sorted(names) if "/" not in name and name.endswith(CONFIGS)]


def layer_of(path: str) -> int | None:
    """The number of the layer that a path names, the deepest folder first; None if it names none."""
    for expression in (CLEAR_LAYER, SHORT_LAYER):
        for part in reversed(path.split("/")):
            if found := expression.findall(part if expression is CLEAR_LAYER else ANY_L0.sub("", part)):
                return int(found[-1])
    return None


def site_of(path: str) -> str:
    """The site that a path names, one of `SITES`; `UNKNOWN` if it names none."""
    return next((site for site, expression in SITES if re.search(expression, path, re.IGNORECASE)), UNKNOWN)


def l0_of(path: str) -> float | None:
    """The L0 that a path names; None if it names none."""
    found = L0.findall(path)
    return float(found[-1]) if found else None


def without_other_seeds(paths: Sequence[str]) -> list[str]:
    """Of several seeds of one SAE, the first by name, which the format takes too."""
    first: dict[str, str] = {}
    for path in sorted(paths):
        parts = path.split("/")
        first.setdefault("/".join(parts[:-1]) if SEED.fullmatch(parts[-1]) else path, path)
    return list(first.values())


def at_layers(saes: Sequence[ListedSae], layers: Iterable[int] | None) -> list[ListedSae]:
    """The SAEs of some layers; of all layers that names say for None. Without any such names, all."""
    if all(sae.layer is None for sae in saes):
        return list(saes)
    wanted = None if layers is None else set(layers)
    return [sae for sae in saes if sae.layer is not None and (wanted is None or sae.layer in wanted)]


def at_sites(saes: Sequence[ListedSae], sites: Iterable[str]) -> list[ListedSae]:
    """The SAEs that may be at some sites.

    Args:
        saes: where to look.
        sites: as in `--sites`; without any, the block output where some are there, else all.
    """
    wanted = set(sites)
    if not wanted:
        in_blocks = [sae for sae in saes if sae.site not in NOT_IN_A_BLOCK] or list(saes)
        return [sae for sae in in_blocks if sae.site == "resid"] or in_blocks
    at = MAY_BE_AT | {UNKNOWN: wanted}
    return [sae for sae in saes if wanted & at.get(sae.site, {sae.site, f"{sae.site}_module"})]


def _is_weights(name: str) -> bool:
    path = PurePosixPath(name)
    if path.suffix not in WEIGHTS or OTHER_TENSORS.fullmatch(path.name):
        return False
    return path.parent.name != "checkpoints" or bool(FINAL.fullmatch(path.name))


def _folder_of(name: str) -> str:
    """The folder of the SAE whose weights a file is."""
    parent = PurePosixPath(name).parent
    return str(parent.parent if parent.name == "checkpoints" else parent)


def _is_above(config: str, folder: str) -> bool:
    """Whether a configuration is in a folder or in one above it."""
    above = config.rpartition("/")[0]
    return above == "" or above == folder or folder.startswith(f"{above}/")
