"""Before any text is read for good: find model, SAEs and text, load the model, check that the SAEs belong to it."""

from dataclasses import dataclass

import torch
from torch import nn

from stratalens import domains, selfcheck
from stratalens.config import RunConfig
from stratalens.corpora import Corpus, survey
from stratalens.errors import ModelError
from stratalens.harvest import LayerProbe
from stratalens.listener import Listener
from stratalens.model import choose_device, choose_dtype, cut, forward, load_model
from stratalens.prepared import Prepared
from stratalens.report import record
from stratalens.sae import Sae
from stratalens.selfcheck import LayerCheck
from stratalens.sources import find_model, hub_errors, load_saes, load_tokenizer
from stratalens.tokens import PassageCutter, pack

CALIBRATION_PASSAGES = 2
"""Passages of each calibration document that are read."""


@dataclass(frozen=True)
class OpenModel:
    """The model, cut after the deepest hookpoint, with SAEs that fit it."""

    model: nn.Module
    probes: list[LayerProbe]
    checks: dict[int, LayerCheck]
    device: torch.device
    dtype: torch.dtype


def prepare(config: RunConfig, listener: Listener) -> Prepared:
    """Find model, SAEs and text, and decide which documents count; most mistakes of a user show here."""
    corpus = Corpus.find(
        domains.domain_files(config.domain, config.domain_data),
        domains.general_files(config.general_data),
        config.text_unit,
        config.text_column,
    )
    for message in record.describe_files(config.domain, corpus):
        listener.say(message)
    source = find_model(config, listener.say)
    saes = load_saes(config, source)
    tokenizer = load_tokenizer(source)
    cutter = PassageCutter(tokenizer, config.max_length, config.min_length)
    with listener.track("Scanning text", None) as advance:
        found = survey(
            corpus,
            too_short=cutter.too_short,
            max_documents=config.max_documents,
            seed=config.seed,
            on_row=lambda: advance(1, 0),
        )
    listener.say(record.describe_survey(config.domain, found))
    for warning in record.corpus_warnings(config, found):
        listener.warn(warning)
    return Prepared(source, saes, corpus, found, cutter)


def open_model(config: RunConfig, ready: Prepared, listener: Listener) -> OpenModel:
    """Load the model and check that the SAEs belong to it.

    Raises:
        MismatchError: an SAE does not fit its layer.
        ModelError: the model cannot be loaded.
    """
    device = choose_device(config.device)
    deepest = max(ready.saes)
    blocks = min(ready.source.num_layers, deepest + 2)
    dtype = choose_dtype(config.dtype, device)
    listener.say(record.describe_model(ready.source, ready.saes, device, dtype))
    with listener.track("Loading and checking", None):
        with hub_errors(ready.source.location, ModelError):
            model = load_model(
                ready.source.location,
                blocks=blocks,
                device=device,
                dtype=dtype,
                revision=ready.source.revision,
                trust_remote_code=ready.source.trust_remote_code,
            )
            forward(model, torch.zeros((1, 2), dtype=torch.long))  # what is wrong with a config may show only here
        saes = {layer: sae.to(device) for layer, sae in ready.saes.items()}
        checks = _check(config, ready, model, saes)
    for check in checks.values():
        listener.say(record.describe_check(check))
    if not config.allow_poor_fit:
        selfcheck.require_fit(checks)
    cut(model, ready.saes[deepest].hookpoint)
    probes = [LayerProbe(layer, sae, selfcheck.SINK_RATIO * checks[layer].median_norm) for layer, sae in saes.items()]
    return OpenModel(model, probes, checks, device, dtype)


def _check(config: RunConfig, ready: Prepared, model: nn.Module, saes: dict[int, Sae]) -> dict[int, LayerCheck]:
    documents = ready.survey.texts_of(ready.survey.calibration)
    spans = [
        ready.cutter.sequence(span)
        for row in sorted(ready.survey.select(ready.corpus, documents), key=lambda row: row.content)
        for span in ready.cutter.first_spans(row.text, CALIBRATION_PASSAGES)
    ]
    device = next(iter(saes.values())).encoder_weight.device
    batches = pack(spans, config.batch_tokens, ready.cutter.special_ids)
    return selfcheck.check(model, saes, (batch.to(device) for batch in batches))
