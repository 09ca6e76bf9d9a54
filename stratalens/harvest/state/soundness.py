"""Check a state that was read from disk: its checksum shows that nobody damaged it, not that a run made it."""

from typing import get_type_hints

import numpy as np

from stratalens.harvest.state.document_sample import DocumentSample
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import TopExamples
from stratalens.models.token_classes import TOKEN_CLASSES

FIXED_SIZES = {"token_class": len(TOKEN_CLASSES)}
"""Name of an axis -> its length in every state."""


def require_sound(
    stats: FeatureStats, examples: TopExamples, documents: DocumentSample, num_latents: int | None = None
) -> None:
    """Check that the arrays of a state have the types and shapes of their annotations, and that all indices exist.

    Args:
        stats: the statistics.
        examples: the strongest passages.
        documents: the sample of documents.
        num_latents: width of the SAE; None where it is not known.

    Raises:
        ValueError: something does not fit.
    """
    for part in (stats, examples, documents):
        _require_annotated_shapes(part)
    histogram = stats.histogram
    histogram.check_format(full_check=True)
    shape = histogram.shape
    assert shape is not None
    populations = len(stats.passages)
    width = np.iinfo(np.int64).max if num_latents is None else num_latents
    fits = [
        shape[0] == populations * len(stats.latents),
        bool((np.diff(stats.latents) > 0).all()),
        *(_all_below(latents, width) for latents in (stats.latents, examples.latent, documents.latent)),
        *(_all_below(numbers, populations) for numbers in (examples.population, documents.population)),
        _all_below(documents.row, len(documents.document)),
    ]
    if not all(fits):
        raise ValueError("indices that do not exist")


def _require_annotated_shapes(part: object) -> None:
    sizes = dict(FIXED_SIZES)
    for name, annotation in get_type_hints(type(part)).items():
        if not hasattr(annotation, "dim_str"):
            continue
        array = getattr(part, name)
        axes = annotation.dim_str.split()
        if not isinstance(array, annotation) or any(
            sizes.setdefault(axis, size) != size for axis, size in zip(axes, array.shape, strict=True)
        ):
            raise ValueError(f"{name} is not as a run writes it")


def _all_below(indices: np.ndarray, end: int) -> bool:
    return len(indices) == 0 or bool(indices.min() >= 0 and indices.max() < end)
