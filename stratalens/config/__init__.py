"""The options of every command: frozen, validated once, the only place that defines defaults.

May import: files. Main types: RunConfig, the options of an analysis; LabelConfig, RankConfig and ReportConfig, those of
the commands on a finished result.
"""

from stratalens.config.config_file import read_config_file
from stratalens.config.layer_numbers import DEFAULT_LAYERS, parse_layers
from stratalens.config.options import RunConfig
from stratalens.config.result_options import RANK_METRICS, LabelConfig, RankConfig, ReportConfig
from stratalens.config.validation import make_config, validated

__all__ = [
    "DEFAULT_LAYERS",
    "RANK_METRICS",
    "LabelConfig",
    "RankConfig",
    "ReportConfig",
    "RunConfig",
    "make_config",
    "parse_layers",
    "read_config_file",
    "validated",
]
