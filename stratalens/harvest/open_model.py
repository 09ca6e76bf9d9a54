"""Before any text is read for good: find model, SAEs and text, load the model, check that the SAEs belong to it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stratalens.config import RunConfig
from stratalens.corpus import builtin as domains
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.survey import survey
from stratalens.errors import ModelError
from stratalens.harvest.inputs import Prepared
from stratalens.harvest.memory_plan import estimate_memory, free_memory, plan_passes
from stratalens.harvest.shard_reader import LayerProbe
from stratalens.models.loading import (
    choose_device,
    choose_dtype,
    cut,
    forward,
    load_model,
)
from stratalens.models.source import (
    ModelSource,
    find_model,
    find_saes,
    hub_errors,
    load_tokenizer,
)
from stratalens.models.tokens import PassageCutter, pack
from stratalens.progress import Listener
from stratalens.report import run_record as record
from stratalens.saes import fit_check as selfcheck
from stratalens.saes.fit_check import LayerCheck
from stratalens.saes.sae import Sae, SaeFile

CALIBRATION_PASSAGES = 2
"""Passages of each calibration document that are read."""


@dataclass(frozen=True)
class OpenModel:
    """The model, cut after the deepest hookpoint, and the SAEs that fit it, loaded some layers at a time."""

    model: nn.Module
    saes: Mapping[int, SaeFile]
    norm_limits: Mapping[int, float]
    """Layer -> norm above which a position is a sink."""
    passes: tuple[tuple[int, ...], ...]
    """Layers that are read together, as far as memory allows."""
    checks: Mapping[int, LayerCheck]
    device: torch.device
    dtype: torch.dtype

    def probes(self, layers: Iterable[int]) -> dict[int, LayerProbe]:
        """Load what is read at some layers."""
        return {
            layer: LayerProbe(layer, self.saes[layer].load().to(self.device), self.norm_limits[layer])
            for layer in layers
        }


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
    saes = find_saes(config, source)
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
    passes = _plan(config, ready, device, dtype, listener)
    with listener.track("Loading and checking", None):
        model = load_blocks(config, ready.source, blocks, device, dtype)
        checks: dict[int, LayerCheck] = {}
        for layers in passes:
            saes = {layer: ready.saes[layer].load().to(device) for layer in layers}
            checks |= _check(config, ready, model, saes, device)
            del saes
    checks = {layer: checks[layer] for layer in ready.saes}
    for check in checks.values():
        listener.say(record.describe_check(check))
    if not config.allow_poor_fit:
        selfcheck.require_fit(checks)
    cut(model, ready.saes[deepest].hookpoint)
    limits = {layer: selfcheck.SINK_RATIO * check.median_norm for layer, check in checks.items()}
    return OpenModel(model, ready.saes, limits, passes, checks, device, dtype)


def _plan(
    config: RunConfig, ready: Prepared, device: torch.device, dtype: torch.dtype, listener: Listener
) -> tuple[tuple[int, ...], ...]:
    estimate = estimate_memory(config, ready, device, dtype)
    limit = free_memory(device) if config.memory_gb is None else int(config.memory_gb * 1e9)
    listener.say(f"{estimate.describe()}; {limit / 1e9:.1f} GB may be used")
    passes = plan_passes(estimate, limit)
    if len(passes) > 1:
        groups = "; ".join(" ".join(map(str, layers)) for layers in passes)
        listener.say(f"The layers do not fit together, so the text is read {len(passes)} times: {groups}")
    if estimate.fixed + max(estimate.layers.values()) > limit:
        listener.warn(
            "one layer alone may not fit into this memory; if it does not, use shallower layers, --dtype bfloat16, "
            "--load_in 8bit or a lower --batch_tokens"
        )
    return passes


def load_blocks(
    config: RunConfig, source: ModelSource, blocks: int, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """Load so many blocks of the model.

    Raises:
        ModelError: it cannot be loaded.
    """
    with hub_errors(source.location, ModelError):
        model = load_model(
            source.location,
            blocks=blocks,
            device=device,
            dtype=dtype,
            revision=source.revision,
            load_in=config.load_in,
            trust_remote_code=source.trust_remote_code,
        )
        forward(model, torch.zeros((1, 2), dtype=torch.long))  # what is wrong with a config may show only here
    return model


def _check(
    config: RunConfig, ready: Prepared, model: nn.Module, saes: dict[int, Sae], device: torch.device
) -> dict[int, LayerCheck]:
    documents = ready.survey.texts_of(ready.survey.calibration)
    spans = [
        ready.cutter.sequence(span)
        for row in sorted(ready.survey.select(ready.corpus, documents), key=lambda row: row.content)
        for span in ready.cutter.first_spans(row.text, CALIBRATION_PASSAGES)
    ]
    batches = pack(spans, config.batch_tokens, ready.cutter.special_ids)
    return selfcheck.check(model, saes, (batch.to(device) for batch in batches), config.batch_tokens)
