"""Evidence for some features: which passages it takes, the second pass of the model over them, the logit lens."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from stratalens.config import RunConfig
from stratalens.evidence.evidence import Evidence, read_evidence
from stratalens.evidence.logit_lens import TokenLens, layer_lenses
from stratalens.evidence.passages import Place, read_passages, sample_texts
from stratalens.harvest.inputs import Prepared
from stratalens.harvest.open_model import OpenModel
from stratalens.progress import Listener


class Gathered(NamedTuple):
    """All that needs the model to say what features are about."""

    evidence: Evidence
    lenses: dict[int, list[TokenLens]] | None
    """Layer -> the lens of each feature; None where the model's head is unknown."""


def gather(
    config: RunConfig,
    ready: Prepared,
    opened: OpenModel,
    features: Mapping[int, Sequence[int]],
    places: set[Place],
    listener: Listener,
) -> Gathered:
    """Read the strongest passages of the features and a sample of all text, token by token.

    Args:
        config: of the run.
        ready: its text, SAEs and tokenizer.
        opened: its model.
        features: layer -> reported features.
        places: of the strongest passages of the features.
        listener: hears of the progress.
    """
    sampled = sample_texts(ready.survey, config.seed)
    passages = read_passages(ready.corpus, ready.survey, ready.cutter, places, sampled)
    with listener.track("Gathering evidence", len(passages) * len(opened.passes)) as advance:
        evidence = read_evidence(
            opened.model,
            (list(opened.probes(layers).values()) for layers in opened.passes),
            features,
            passages,
            special_ids=ready.cutter.special_ids,
            batch_tokens=config.batch_tokens,
            on_batch=advance,
        )
        decode = ready.cutter.tokenizer.decode

        def directions(layer: int) -> Tensor:
            return ready.saes[layer].load().decoder_weight

        lenses = layer_lenses(ready.source, directions, features, decode, opened.device, opened.dtype)
    return Gathered(evidence, lenses)
