"""The controls of a run: what it finds where there is nothing, and what could be found at best.

All come from the document sample of the harvest, without a forward pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.corpus import Half
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput
from stratalens.validation.chance import ChanceRate, NoiseTests, chance_rate, confirm_noise, discoveries
from stratalens.validation.layer_gaps import LayerGap, LayerValues, layer_gaps, layer_values
from stratalens.validation.probes import Ceilings, HeldOutAuroc, ceilings
from stratalens.validation.random_directions import RandomDirections, random_direction_controls
from stratalens.validation.relabelling import Dealt, general_documents, halves_of_general, shuffled_sides

MIN_GENERAL_DOCUMENTS = 40
"""With fewer the null contrast has fewer than ten documents in a part, as a run that holds nothing back."""
MAX_EXPECTED_RATE = 0.10
"""A rate of discoveries by chance whose whole interval is above is a warning."""


class HookpointControls(NamedTuple):
    """The controls of one hookpoint."""

    null_discoveries: int | None
    """Splits of the general documents with a confirmed feature here."""
    shuffled_discoveries: int | None
    """Shuffles of the sides with a confirmed feature here."""
    ceilings: Ceilings
    behind_best: LayerGap | None
    """None at the best hookpoint."""
    random_directions: RandomDirections | None
    """None where this control was not made."""


class Controls(NamedTuple):
    """The controls of a run."""

    null_contrast: ChanceRate | None
    """None where there are too few general documents."""
    shuffled_labels: ChanceRate | None
    words: HeldOutAuroc | None
    """A logistic regression on the words of the texts."""
    hookpoints: Mapping[Hookpoint, HookpointControls]


def make_controls(
    config: RunConfig,
    sources: Mapping[Hookpoint, RankingInput],
    top: Mapping[Hookpoint, pd.DataFrame],
    words: HeldOutAuroc | None,
    random: Mapping[Hookpoint, RankingInput] | None = None,
) -> Controls:
    """Make the controls of a run that held documents back.

    Args:
        config: how features are selected and layers compared, and the seed.
        sources: hookpoint -> statistics and documents, of which one at a time is held.
        top: hookpoint -> reported features.
        words: of the texts, which the harvest does not keep.
        random: hookpoint -> statistics and documents of an SAE of random directions; None without this control.
    """
    null, shuffled = dict[Hookpoint, NoiseTests](), dict[Hookpoint, NoiseTests]()
    found, values = dict[Hookpoint, Ceilings](), dict[Hookpoint, LayerValues]()
    for place, features in top.items():
        source = sources[place]
        found[place] = ceilings(source, features)
        normalised = config.compare_layers_by == "normalised"
        values[place] = layer_values(source, features, Half.CONFIRMATION, normalised=normalised)
        listed = None if config.features is None else features["feature_number"].tolist()
        if general_documents(source.documents, source.populations) >= MIN_GENERAL_DOCUMENTS:
            _add_tests(null, place, source, halves_of_general, (config, listed))
        _add_tests(shuffled, place, source, shuffled_sides, (config, listed))
    gaps = layer_gaps(values)
    null_found, shuffled_found = discoveries(null), discoveries(shuffled)
    by_random = {} if random is None else random_direction_controls(config, random)
    hookpoints = {
        place: HookpointControls(
            int(null_found[place].sum()) if place in null_found else None,
            int(shuffled_found[place].sum()) if place in shuffled_found else None,
            found[place],
            gaps.get(place),
            by_random.get(place),
        )
        for place in top
    }
    return Controls(chance_rate(null_found), chance_rate(shuffled_found), words, hookpoints)


def _add_tests(
    tests: dict[Hookpoint, NoiseTests],
    place: Hookpoint,
    source: RankingInput,
    deal: Callable[..., list[Dealt]],
    options: tuple[RunConfig, Sequence[int] | None],
) -> None:
    """Test relabelled documents, if there are any kinds with enough of them and latents to test."""
    config, listed = options
    dealt = deal(source.documents, source.populations, config.seed)
    if dealt and len(source.stats.latents):
        tests[place] = confirm_noise(source, dealt, rank_by=config.rank_by, top_n=config.top_n, listed=listed)


def control_warnings(controls: Controls | None) -> list[str]:
    """What a reader must know: the null contrast finds more than chance should. None where no controls were made."""
    rate = None if controls is None else controls.null_contrast
    if rate is None or rate.low <= MAX_EXPECTED_RATE:
        return []
    return [
        f"random halves of the general text against each other gave a confirmed feature in {rate.rate:.0%} of "
        f"{rate.repetitions} splits (95% interval {rate.low:.0%} to {rate.high:.0%}; about 5% are expected): confirmed "
        "features may be due to chance; are documents independent, or parts of a few texts? see --id_column"
    ]
