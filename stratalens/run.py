"""The story of a run: text and model in, ranked and labelled features out."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from stratalens import harvest, ranking
from stratalens.config import RunConfig, parse_layers
from stratalens.documents import read_documents
from stratalens.errors import ConfigError
from stratalens.feature_list import read_feature_list, require_latents
from stratalens.gather import gather
from stratalens.lexicon import load_lexicon
from stratalens.listener import Listener, Silence
from stratalens.meaning import find_meaning, open_labeller
from stratalens.memory import peak_memory_bytes
from stratalens.opening import OpenModel, open_model, prepare
from stratalens.prepared import Prepared
from stratalens.publish import publish
from stratalens.report import record, tables
from stratalens.report.formats import write_json
from stratalens.report.output import RECORD_FILE, staged
from stratalens.report.saved import Findings
from stratalens.vocabulary import vocabulary_classes


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


def analyze(config: RunConfig, listener: Listener | None = None) -> Result:
    """Run the complete analysis and write its results to `config.output_dir`.

    Raises:
        StratalensError: the input or the output place is not usable; nothing is written then.
    """
    listener = listener or Silence()
    output_dir = Path(config.output_dir).expanduser()
    config, listed = _with_list(config)
    lexicon = load_lexicon(config.domain, config.lexicon)
    with staged(output_dir) as staging, torch.inference_mode():
        labeller = open_labeller(config, listener)
        ready = prepare(config, listener)
        if listed is not None:
            require_latents(listed, {layer: sae.num_latents for layer, sae in ready.saes.items()})
        opened = open_model(config, ready, listener)
        reading, seconds = _read_text(config, ready, opened, staging, listener)
        ranked = ranking.rank(
            _RankingInputs(ready, reading),
            top_n=config.top_n,
            rank_by=config.rank_by,
            split=ready.survey.split,
            listed=listed,
        )
        for path in reading.document_files:
            path.unlink()
        findings = Findings(ranked.top, ranked.latents, record.layer_facts(opened.checks, reading))
        examples = {layer: one.examples for layer, one in reading.layers.items()}
        features = {layer: [int(number) for number in table["feature_number"]] for layer, table in ranked.top.items()}
        gathered = gather(config, ready, opened, features, examples, listener)
        meaning = find_meaning(config, gathered.evidence, findings.top, gathered.lenses, lexicon, labeller, listener)
        hookpoints = {layer: sae.hookpoint for layer, sae in ready.saes.items()}
        settings = record.settings(config, ready.source.name)
        arranged = publish(config, findings, meaning, hookpoints, settings, staging)
        warnings = record.warnings(config, ready.survey, opened.checks, arranged)
        for warning in warnings:
            listener.warn(warning)
        content = record.build(config, ready, opened.checks, reading, seconds, warnings, peak_memory_bytes(), staging)
        write_json(content, staging / RECORD_FILE)
    return Result(output_dir, arranged, content)


def _with_list(config: RunConfig) -> tuple[RunConfig, dict[int, list[int]] | None]:
    """The user's list of features, if any, and the configuration with its layers."""
    if config.features is None:
        return config, None
    listed = read_feature_list(config.features)
    layers = parse_layers(config.layers)
    if layers is not None and layers != tuple(sorted(listed)):
        raise ConfigError(
            f"--features names layers {' '.join(map(str, sorted(listed)))}, --layers others; leave out --layers"
        )
    return config.model_copy(update={"layers": tuple(str(layer) for layer in sorted(listed))}), listed


def _read_text(
    config: RunConfig, ready: Prepared, opened: OpenModel, directory: Path, listener: Listener
) -> tuple[harvest.Harvest, float]:
    """Read all text once."""
    started = time.perf_counter()
    with listener.track("Reading text", ready.survey.kept_rows) as advance:
        reading = harvest.harvest(
            opened.model,
            opened.probes,
            ready.survey.select(ready.corpus),
            ready.cutter,
            token_classes=torch.from_numpy(vocabulary_classes(ready.cutter.tokenizer)).to(opened.device),
            batch_tokens=config.batch_tokens,
            directory=directory,
            on_batch=lambda tokens: advance(0, tokens),
            on_rows=lambda rows: advance(rows, 0),
        )
    seconds = time.perf_counter() - started
    listener.say(f"Read {reading.tokens:,} tokens in {seconds:.0f} s, {reading.tokens / seconds:,.0f} tokens/s")
    return reading, seconds


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
