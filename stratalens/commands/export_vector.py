"""Write what steering adds as a control vector, with where it comes from and whether the features do anything."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from stratalens.config.steer_options import WeightedFeature
from stratalens.effects.control_vector import (
    MeasuredEffect,
    control_vectors,
    require_gguf_places,
    write_gguf,
    write_safetensors,
)
from stratalens.effects.steering import Addition
from stratalens.files.damaged import damaged
from stratalens.files.redaction import redacted
from stratalens.hookpoint import Hookpoint
from stratalens.models.hub import GGUF_SUFFIX
from stratalens.models.source import ModelSource, skeleton
from stratalens.progress import Progress
from stratalens.report.saved import Result
from stratalens.report.tables import places

EFFECTS_FILE = "feature_effects.csv"
"""What removing each feature does, where it was measured."""
EFFECT_COLUMNS = ("domain_effect", "domain_effect_low", "domain_effect_high")
"""What removing a feature does to the loss on domain text, in nats a token, with its 95% interval."""
Weighted = tuple[Sequence[WeightedFeature], float, Sequence[Addition]]
"""Features, the strength that all weights are multiplied by, and what they add."""


def effect_of(result: Result, hookpoint: Hookpoint, feature: int) -> MeasuredEffect | None:
    """The measured effect of removing a feature on domain text; None where it was not measured.

    Raises:
        ConfigError: the table of effects is damaged.
    """
    if EFFECTS_FILE not in result.record.files:
        return None
    path = result.output_dir / EFFECTS_FILE
    try:
        table = pd.read_csv(path)
        place = np.array(places(table), dtype=object)
        effects = table[list(EFFECT_COLUMNS)].to_numpy(np.float64)[
            (table["feature_number"].astype(int) == feature) & (place == str(hookpoint))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from None
    return MeasuredEffect(*map(float, effects[0])) if len(effects) else None


def export_vector(path: Path, result: Result, weighted: Weighted, source: ModelSource, progress: Progress) -> None:
    """Write a control vector, in the format that the suffix of its file names.

    Args:
        path: the file; one that exists is replaced.
        result: where features and effects are from.
        weighted: what is added, and by which features.
        source: the model.
        progress: receives warnings about features without a measured effect.

    Raises:
        ConfigError: the format cannot hold what is added, or the table of effects is damaged.
        OSError: the file cannot be written.
    """
    features, strength, additions = weighted
    if path.suffix == GGUF_SUFFIX:
        require_gguf_places([own.target for own in additions])
    vectors = control_vectors(additions)
    effects = {own: effect_of(result, own.hookpoint, own.feature) for own in features}
    notes = [note for own, effect in effects.items() if (note := _note(result, own, effect))]
    for note in notes:
        progress.warn(note)
    origin = {
        "stratalens": version("stratalens"),
        "model": redacted(source.name),
        "model_digest": source.digest,
        "saes": json.dumps({str(own.hookpoint): result.record.saes[str(own.hookpoint)].sha256 for own in additions}),
        "features": json.dumps({str(own): own.weight for own in features}),
        "strength": repr(strength),
        "domain": result.config.domain,
        "what": "sum of weight x strength x mean activation on domain text when active x decoder row, in the units of "
        "the vectors that it is added to",
        "where": json.dumps({str(place): _where(place) for place in vectors}),
        "effects": json.dumps({str(own): effect and effect._asdict() for own, effect in effects.items()}),
        "warnings": json.dumps(notes),
    }
    if path.suffix == GGUF_SUFFIX:
        write_gguf(path, vectors, str(skeleton(source).config.get_text_config().model_type), origin)
    else:
        write_safetensors(path, vectors, origin)


def _where(place: Hookpoint) -> str:
    side = {"resid": "output of the block", "resid_in": "input of the block"}.get(place.site_name, place.site_name)
    return f"block {place.block} (counted from 0), {side}; at every position but the first and special tokens"


def _note(result: Result, own: WeightedFeature, effect: MeasuredEffect | None) -> str:
    """What a reader should know of the effect of a feature; empty for nothing."""
    domain = result.config.domain
    if effect is None:
        return f"feature {own}: what the model loses without it was not measured; `stratalens effect` does that"
    if effect.covers_zero:
        return (
            f"feature {own}: the effect of removing it on {domain} text is not told from 0 ({effect.value:.2g} nats a "
            f"token, 95% interval {effect.low:.2g} to {effect.high:.2g})"
        )
    return ""
