"""Checkpoints whose configuration names a hook that is read and one that is reconstructed."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from stratalens.files.json_files import json_object
from stratalens.models.hook_names import hookpoint_of_hook
from stratalens.saes.sae import Checkpoint
from stratalens.saes.settings import no_known_place
from stratalens.saes.tree import SaeTree

KEYS = ("hook_point_in", "hook_point_out")


def of_hook_points(tree: SaeTree, model: nn.Module, configs: Iterable[Path]) -> list[Checkpoint]:
    """The checkpoints beside some configurations, where the model has both of their hooks.

    Args:
        tree: the files that the configurations are among.
        model: tells which hookpoints there are; its weights may be missing.
        configs: JSON files with `hook_point_in` and `hook_point_out`.

    Raises:
        CheckpointError: there is none for this model.
    """
    found, names = list[Checkpoint](), list[str]()
    for path in configs:
        content = json_object(path)
        hooks = [str(content.get(key) or "") for key in KEYS]
        source, target = (hookpoint_of_hook(model, hook) for hook in hooks)
        names += hooks
        if source is not None and target is not None:
            found.append(Checkpoint(path.parent, source, target, hooks[0], tree.within(path.parent)))
    if not found:
        raise no_known_place(tree.root, names, model)
    return found
