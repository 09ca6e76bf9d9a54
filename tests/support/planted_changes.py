"""What removing latents of a planted model changes, measured as on a real model."""

from collections.abc import Sequence

import numpy as np
import torch
from planted_model import LATENTS, PLACE, SPECIAL_ID, PlantedModel

from stratalens.effects.ablations import Ablation, LatentSet, RandomReplacement
from stratalens.effects.changes import Change, FeatureChanges, LayerChanges
from stratalens.effects.matched import NormMatcher
from stratalens.effects.measure import WIDTH, AblationReader, fold_changes
from stratalens.effects.text import EffectText
from stratalens.models.batches import BatchRunner

DRAWS = 3
BATCH_TOKENS = 8192
IDENTITY = (0, str(PLACE))


def feature_changes(planted: PlantedModel, latents: Sequence[int]) -> list[FeatureChanges]:
    """What removing each latent by itself changes, with its random directions; gradients predict nothing here."""
    sets = [_only(planted, latent) for latent in latents]
    own = _changes(planted, planted.text, sets)
    controls = _changes(planted, planted.text.control, [one for of in sets for one in _random(of)])
    return [
        FeatureChanges(latent, change, controls[at * DRAWS : (at + 1) * DRAWS], np.zeros(len(change.norm)))
        for at, (latent, change) in enumerate(zip(latents, own, strict=True))
    ]


def layer_changes(planted: PlantedModel, latent: int) -> LayerChanges:
    """What a layer with one confirmed feature loses without it, with both kinds of control."""
    own = _only(planted, latent)
    reader = _reader(planted)
    domain = planted.text.documents.domain[planted.text.document]
    tokens = [
        (plain.tokens, domain[batch.rows][plain.tokens.row.numpy()])
        for batch in reader.batches(planted.text)
        for plain in [reader.encode(batch)]
    ]
    matcher = NormMatcher(planted.probe.sae, own, tokens, np.ones(LATENTS, bool), IDENTITY)
    drawn = [one for number in range(DRAWS) if (one := matcher.draw(number)) is not None]
    sets = [LatentSet(planted.probe.sae, one.latents) for one in drawn]
    controls = _changes(planted, planted.text.control, [*_random(own), *sets])
    (change,) = _changes(planted, planted.text, [own])
    return LayerChanges((latent,), change, controls[:DRAWS], controls[DRAWS:])


def _only(planted: PlantedModel, latent: int) -> LatentSet:
    return LatentSet(planted.probe.sae, (latent,))


def _random(of: LatentSet) -> Sequence[Ablation]:
    return [RandomReplacement(of, draw, IDENTITY) for draw in range(DRAWS)]


def _reader(planted: PlantedModel) -> AblationReader:
    return AblationReader(
        planted.model, planted.probe, BatchRunner(BATCH_TOKENS), frozenset({SPECIAL_ID}), BATCH_TOKENS
    )


def _changes(planted: PlantedModel, text: EffectText, ablations: Sequence[Ablation]) -> list[Change]:
    reader = _reader(planted)
    values = np.full((len(ablations), len(text.passages), WIDTH), np.nan)
    with torch.inference_mode():
        for batch in reader.batches(text):
            values[:, batch.rows] = reader.measure(text, batch, ablations)
    return fold_changes(values, text)
