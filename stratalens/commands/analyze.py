"""The story of a run: text and model in, ranked and labelled features out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stratalens.config import RunConfig, parse_layers
from stratalens.corpus.corpus import POPULATIONS
from stratalens.errors import ConfigError
from stratalens.evidence.collect import gather
from stratalens.evidence.passages import Place, strongest
from stratalens.files.output_dir import Workplace, workplace
from stratalens.harvest.context import reading_context
from stratalens.harvest.harvest import Reading
from stratalens.harvest.inputs import Prepared
from stratalens.harvest.open_model import OpenModel, open_model, prepare
from stratalens.harvest.shards import cut_shards, shard_characters
from stratalens.harvest.store import HarvestFile
from stratalens.harvest.workers import LocalWorker, Progress, Workers
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import find_meaning, open_labeller
from stratalens.models.memory import peak_memory_bytes
from stratalens.progress import Listener, Silence
from stratalens.ranking import rank as ranking
from stratalens.ranking.feature_list import read_feature_list, require_latents
from stratalens.report import run_record as record
from stratalens.report import tables
from stratalens.report.publish import present, publish
from stratalens.report.saved import Findings, read_facts


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
        StratalensError: the input or the output place is not usable; an earlier result is unchanged then.
    """
    listener = listener or Silence()
    config, listed = _with_list(config)
    lexicon = load_lexicon(config.domain, config.lexicon)
    directory = Path(config.output_dir).expanduser()
    with workplace(directory) as place, threads(config.threads), torch.inference_mode():
        labeller = open_labeller(config, listener)
        ready = prepare(config, listener)
        if listed is not None:
            require_latents(listed, {layer: sae.num_latents for layer, sae in ready.saes.items()})
        opened = open_model(config, ready, listener)
        reading = _read_text(config, ready, opened, place, listener)
        norms = {layer: sae.load().decoder_norms().double().numpy() for layer, sae in ready.saes.items()}
        ranked = ranking.rank(
            RankingInputs(reading.files, norms),
            top_n=config.top_n,
            rank_by=config.rank_by,
            split=ready.survey.split,
            listed=listed,
        )
        features = features_of(ranked.top)
        fvu = {layer: check.own.fvu for layer, check in opened.checks.items()}
        summary, places = leafed_through(reading.files, fvu, features)
        findings = Findings(ranked.top, ranked.latents, summary.layers)
        gathered = gather(config, ready, opened, features, places, listener)
        meaning = find_meaning(config, gathered.evidence, findings.top, gathered.lenses, lexicon, labeller, listener)
        hookpoints = {layer: sae.hookpoint for layer, sae in ready.saes.items()}
        settings = record.settings(config, ready.source.name)
        arranged = publish(config, findings, meaning, gathered.evidence, hookpoints, settings, place.staging)
        warnings = record.warnings(config, opened.checks, summary, arranged)
        for warning in warnings:
            listener.warn(warning)
        content = record.build(config, ready, opened.checks, summary, reading, warnings, peak_memory_bytes())
        content = present(arranged, content, reading.files, place.staging, place.staging)
    return Result(place.directory, arranged, content)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """While open, PyTorch uses so many threads of the CPU."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def leafed_through(
    files: Mapping[int, HarvestFile], fvu: Mapping[int, float], features: Mapping[int, Sequence[int]]
) -> tuple[record.HarvestSummary, set[Place]]:
    """What the harvest says of layers and text, and where the strongest passages of some features stand.

    Args:
        files: layer -> its harvest, of which one at a time is in memory.
        fvu: layer -> FVU of its SAE.
        features: layer -> features.
    """
    layers, split, places = {}, {}, set()
    totals = (np.zeros(POPULATIONS, np.int64),) * 3
    for layer, file in files.items():
        state = file.state()
        layers[layer] = record.layer_facts(fvu[layer], state.stats)
        split[layer] = state.batches_split
        places |= strongest(state.examples, features[layer])
        totals = state.stats.passages, state.stats.tokens, state.stats.countable_positions  # the same in every layer
    return record.HarvestSummary(layers, split, *totals), places


def features_of(top: Mapping[int, pd.DataFrame]) -> dict[int, list[int]]:
    """Layer -> numbers of the reported features, in the order of the table."""
    return {layer: [int(number) for number in table["feature_number"]] for layer, table in top.items()}


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
    config: RunConfig, ready: Prepared, opened: OpenModel, place: Workplace, listener: Listener
) -> record.TextReading:
    """Read all text once, as far as no earlier run has."""
    characters = shard_characters(ready.survey.characters)
    started = time.perf_counter()
    read = 0
    with listener.track("Reading text", ready.survey.kept_rows * len(opened.passes)) as advance:

        def on_tokens(tokens: int) -> None:
            nonlocal read
            read += tokens
            advance(0, tokens)

        progress = Progress(on_tokens, on_rows=lambda rows: advance(rows, 0))
        with _open_workers(config, ready, opened, progress) as workers:
            context = reading_context(config, ready, opened.norm_limits, workers.kind)
            reading = Reading(
                context,
                cut=lambda: cut_shards(ready.survey.select(ready.corpus), characters),
                place=place,
                result_facts=read_facts(place.directory),
                refresh=config.harvest == "refresh",
                say=listener.say,
                on_rows=progress.on_rows,
            )
            files = reading.harvest(workers, opened.passes)
    seconds = time.perf_counter() - started
    if read:
        listener.say(f"Read {read:,} tokens in {seconds:.0f} s, {read / seconds:,.0f} tokens/s")
    return record.TextReading(files, context.facts(), read, seconds)


def _open_workers(
    config: RunConfig, ready: Prepared, opened: OpenModel, progress: Progress
) -> AbstractContextManager[Workers]:
    if config.workers == "ray":
        from stratalens.harvest.ray_workers import ray_workers

        return ray_workers(config, ready, opened.norm_limits, progress)
    return nullcontext(LocalWorker(opened, ready.cutter, config.batch_tokens, progress))


class RankingInputs(Mapping[int, ranking.LayerInput]):
    """Layer -> input of the ranking, read from disk when asked for, so that one layer at a time is in memory.

    Args:
        files: layer -> its harvest.
        decoder_norms: layer -> norm of each decoder row.
    """

    def __init__(self, files: Mapping[int, HarvestFile], decoder_norms: Mapping[int, np.ndarray]):
        self._files, self._norms = files, decoder_norms

    def __getitem__(self, layer: int) -> ranking.LayerInput:
        state, norms = self._files[layer].state(), self._norms[layer]
        return ranking.LayerInput(state.stats, state.documents.matrix(len(norms)), norms)

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
