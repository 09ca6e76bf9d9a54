"""Read all of the text of a run into the harvest of each layer."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from stratalens.config.options import RunConfig
from stratalens.files.output_dir import WorkDirectories
from stratalens.harvest.context import Facts, harvest_context
from stratalens.harvest.corpus_reader import CorpusReader
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.keep_plan import plan_kept
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shards import cut_shards, shard_characters
from stratalens.harvest.store import HarvestFile
from stratalens.harvest.workers import HarvestCallbacks, LocalWorker, Workers
from stratalens.hookpoint import Hookpoint
from stratalens.progress import Progress


@dataclass(frozen=True)
class Harvest:
    """The harvest of a run, and the work it took."""

    files: Mapping[Hookpoint, HarvestFile]
    """Hookpoint -> its harvest on disk."""
    facts: Facts
    """Model, SAEs, settings and text of the harvest, see `HarvestContext.facts`."""
    tokens_read: int
    """Tokens that this run read itself, without those reused from earlier runs."""
    seconds: float
    """Wall-clock time of reading and merging."""
    codes: Mapping[Hookpoint, Path] = field(default_factory=dict)
    """Hookpoint -> the codes that are kept of it, see `kept_codes`."""


def read_corpus(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, work: WorkDirectories, progress: Progress
) -> Harvest:
    """Read the text that no earlier run has read, and store the harvest of each layer in the staging directory.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and text.
        opened: the loaded model, and which layers are read together.
        work: directories of the run, which may hold states of an earlier one.
        progress: receives messages and counts of rows and tokens.

    Raises:
        CapacityError: there is not enough memory for a single passage.
        OutputError: a stored state was removed or damaged during the run.
    """
    survey, characters = inputs.survey, shard_characters(inputs.survey.characters)
    plan = plan_kept(survey.sample, survey.kept_characters, opened.code_bytes, config.keep_bytes)
    started = time.perf_counter()
    tokens_read = 0
    progress.stage("harvest")
    with progress.track("Reading text", inputs.survey.kept_rows * len(opened.passes)) as advance:

        def on_tokens(tokens: int) -> None:
            nonlocal tokens_read
            tokens_read += tokens
            advance(0, tokens)

        callbacks = HarvestCallbacks(on_tokens, on_rows=lambda rows: advance(rows, 0))
        with _open_workers(config, inputs, opened, callbacks) as workers:
            context = harvest_context(config, inputs, opened.norm_limits, workers.kind)
            reader = CorpusReader(
                context,
                cut=lambda: cut_shards(survey.select(inputs.corpus), characters, len(survey.populations), plan),
                work=work,
                refresh=config.harvest == "refresh",
                say=progress.say,
                on_rows=callbacks.on_rows,
                plan=plan,
            )
            files, codes = reader.harvest(workers, opened.passes)
    seconds = time.perf_counter() - started
    if tokens_read:
        progress.say(f"Read {tokens_read:,} tokens in {seconds:.0f} s, {tokens_read / seconds:,.0f} tokens/s")
    return Harvest(files, context.facts(), tokens_read, seconds, codes)


def _open_workers(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, callbacks: HarvestCallbacks
) -> AbstractContextManager[Workers]:
    if config.workers == "ray":
        from stratalens.harvest.ray_workers import ray_workers

        return ray_workers(config, inputs, opened, callbacks)
    return nullcontext(LocalWorker(opened, inputs.cutter, config.tokens_per_batch, callbacks))
