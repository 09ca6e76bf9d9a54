"""The features that `--features` lists, checked against the other options of a run."""

from stratalens.config.layer_numbers import parse_layers
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.feature_list import read_feature_list


def listed_features(config: RunConfig) -> dict[Hookpoint, list[int]] | None:
    """Read `--features`: hookpoint -> latents; None if the option is not given.

    Raises:
        ConfigError: the file cannot be used, or `--layers` or `--sites` name others than it does.
    """
    if config.features is None:
        return None
    listed = read_feature_list(config.features)
    layers = sorted({hookpoint.block for hookpoint in listed})
    sites = sorted({hookpoint.site_name for hookpoint in listed})
    for option, there, given in (
        ("layers", layers, parse_layers(config.layers)),
        ("sites", sites, config.sites or None),
    ):
        if given is not None and sorted(given) != there:
            raise ConfigError(
                f"--features names {option} {' '.join(map(str, there))}, --{option} others; leave out --{option}"
            )
    return listed
