"""The story of a run: text and model in, ranked features out."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from stratalens import domains, evidence, harvest, ranking, selfcheck
from stratalens.config import RunConfig
from stratalens.corpora import Corpus, survey
from stratalens.documents import read_documents
from stratalens.errors import ModelError
from stratalens.listener import Listener, Silence
from stratalens.memory import peak_memory_bytes
from stratalens.model import choose_device, choose_dtype, cut, load_model
from stratalens.prepared import Prepared
from stratalens.report import figures, record, tables
from stratalens.report.output import RECORD_FILE, staged
from stratalens.sae import Sae
from stratalens.sources import find_model, hub_errors, load_saes, load_tokenizer
from stratalens.tokens import PassageCutter, pack
from stratalens.vocabulary import vocabulary_classes

CALIBRATION_PASSAGES = 2
"""Passages of each calibration document that are read."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    output_dir: Path
    tables: tables.Tables
    record: dict[str, object]
    """What `run.json` holds."""

    @property
    def top_features(self) -> pd.DataFrame:
        """The reported features of all layers, best first across layers."""
        return self.tables.consolidated

    @property
    def best_features(self) -> pd.DataFrame:
        """The best features across layers that reach `min_specialization`."""
        return self.tables.best

    @property
    def layers(self) -> pd.DataFrame:
        """The layer comparison, best layer first."""
        return self.tables.layers

    def all_features(self, layer: int) -> pd.DataFrame:
        """The statistics of every latent of one layer."""
        return self.tables.latents[layer]


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


def analyze(config: RunConfig, listener: Listener | None = None) -> Result:
    """Run the complete analysis and write its results to `config.output_dir`.

    Raises:
        StratalensError: the input or the output place is not usable; nothing is written then.
    """
    listener = listener or Silence()
    output_dir = Path(config.output_dir).expanduser()
    with staged(output_dir) as staging, torch.inference_mode():
        ready = prepare(config, listener)
        checks, reading, seconds = _read_model(config, ready, staging, listener)
        ranked = ranking.rank(
            _RankingInputs(ready, reading), top_n=config.top_n, rank_by=config.rank_by, split=ready.survey.split
        )
        for path in reading.document_files:
            path.unlink()
        examples = {layer: one.examples for layer, one in reading.layers.items()}
        tokenizer = ready.cutter.tokenizer
        for layer, table in ranked.top.items():
            table["label"] = [evidence.token_label(examples[layer], f, tokenizer) for f in table["feature_number"]]
        arranged = tables.build(
            config.domain,
            ranked.top,
            ranked.latents,
            record.layer_facts(checks, reading),
            compare_by=config.compare_layers_by,
            min_specialization=config.min_specialization,
            top_features_n=config.top_features_n,
        )
        chosen = {layer: table["feature_number"] for layer, table in ranked.top.items()}
        shown = evidence.sentences(ready.corpus, ready.survey, examples, chosen, tokenizer)
        settings = record.settings(config, ready.source)
        tables.write(
            arranged,
            staging,
            top_n=config.top_n,
            top_features_n=config.top_features_n,
            examples=shown,
            settings=settings,
        )
        figures.write_overview(arranged, staging / f"{config.domain}_feature_analysis.png")
        warnings = record.warnings(config, ready.survey, checks, arranged)
        for warning in warnings:
            listener.warn(warning)
        content = record.build(config, ready, checks, reading, seconds, warnings, peak_memory_bytes(), staging)
        tables.write_json(content, staging / RECORD_FILE)
    return Result(output_dir, arranged, content)


def _read_model(
    config: RunConfig, ready: Prepared, staging: Path, listener: Listener
) -> tuple[dict[int, selfcheck.LayerCheck], harvest.Harvest, float]:
    """Load the model, check that the SAEs belong to it, and read all text once."""
    device = choose_device(config.device)
    deepest = max(ready.saes)
    blocks = min(ready.source.num_layers, deepest + 2)
    dtype = choose_dtype(config.dtype, device)
    listener.say(record.describe_model(ready.source, ready.saes, device, dtype))
    with listener.track("Loading and checking", None):
        with hub_errors(ready.source.location, ModelError):
            model = load_model(
                ready.source.location, blocks=blocks, device=device, dtype=dtype, revision=ready.source.revision
            )
        saes = {layer: sae.to(device) for layer, sae in ready.saes.items()}
        checks = _check(config, ready, model, saes)
    for check in checks.values():
        listener.say(record.describe_check(check))
    if not config.allow_poor_fit:
        selfcheck.require_fit(checks)
    cut(model, ready.saes[deepest].hookpoint)
    probes = [
        harvest.LayerProbe(layer, sae, selfcheck.SINK_RATIO * checks[layer].median_norm) for layer, sae in saes.items()
    ]
    started = time.perf_counter()
    with listener.track("Reading text", ready.survey.kept_rows) as advance:
        reading = harvest.harvest(
            model,
            probes,
            ready.survey.select(ready.corpus),
            ready.cutter,
            token_classes=torch.from_numpy(vocabulary_classes(ready.cutter.tokenizer)).to(device),
            batch_tokens=config.batch_tokens,
            directory=staging,
            on_batch=lambda tokens: advance(0, tokens),
            on_rows=lambda rows: advance(rows, 0),
        )
    seconds = time.perf_counter() - started
    listener.say(f"Read {reading.tokens:,} tokens in {seconds:.0f} s, {reading.tokens / seconds:,.0f} tokens/s")
    return checks, reading, seconds


def _check(config: RunConfig, ready: Prepared, model: torch.nn.Module, saes: dict[int, Sae]):
    documents = ready.survey.texts_of(ready.survey.calibration)
    spans = [
        ready.cutter.sequence(span)
        for row in sorted(ready.survey.select(ready.corpus, documents), key=lambda row: row.content)
        for span in ready.cutter.first_spans(row.text, CALIBRATION_PASSAGES)
    ]
    device = next(iter(saes.values())).encoder_weight.device
    batches = pack(spans, config.batch_tokens, ready.cutter.special_ids)
    return selfcheck.check(model, saes, (batch.to(device) for batch in batches))


@dataclass(frozen=True)
class _RankingInputs(Mapping[int, ranking.LayerInput]):
    """Layer -> input of the ranking, read from disk when asked for, so that one layer at a time is in memory."""

    ready: Prepared
    reading: harvest.Harvest

    def __getitem__(self, layer: int) -> ranking.LayerInput:
        stats = self.reading.layers[layer].stats
        return ranking.LayerInput(
            stats=stats,
            documents=read_documents(self.reading.document_files, layer, stats.num_latents),
            decoder_norms=self.ready.saes[layer].decoder_norms().double().cpu().numpy(),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self.reading.layers)

    def __len__(self) -> int:
        return len(self.reading.layers)
