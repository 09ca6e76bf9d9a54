"""Read text again or other text beside the harvest of a run; the model is loaded only if a shard is missing."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from stratalens.config.options import RunConfig
from stratalens.files.output_dir import WorkDirectories
from stratalens.files.result_names import STATE_SUFFIX
from stratalens.harvest.context import Facts, harvest_context
from stratalens.harvest.corpus_reader import CorpusReader
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.memory_plan import estimate_memory, memory_limits, plan_passes
from stratalens.harvest.open_model import OpenModel, open_checked
from stratalens.harvest.shards import ShardTask, cut_shards, shard_characters
from stratalens.harvest.workers import FinishedShard, HarvestCallbacks, LocalWorker, WorkerKind, kind_of
from stratalens.hookpoint import Hookpoint
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.progress import Progress


@dataclass(frozen=True)
class OtherText:
    """Text, and what reads it, for a harvest beside that of the run."""

    config: RunConfig
    """Options of the run, with those of the other text."""
    inputs: RunInputs
    """Model and SAEs of the run, with the other text."""
    norm_limits: Mapping[Hookpoint, float]
    """Hookpoint -> norm above which a position is a sink, as the run measured it."""
    folder: str
    """Name of the folder of its harvest, in the result directory."""
    recorded: Facts
    """Facts of the harvest that lies there; empty where there is none."""
    opened: OpenModel | None = None
    """The model, where it is loaded already."""


def other_harvest_path(folder: str, hookpoint: Hookpoint) -> Path:
    """Path of the harvest of one layer of other text, relative to the result directory."""
    return Path(folder) / f"layer_{hookpoint}{STATE_SUFFIX}"


def read_other_text(text: OtherText, work: WorkDirectories, progress: Progress) -> Harvest:
    """Read what was not read before of other text, and store its harvest in the staging directory.

    Args:
        text: the text, and what reads it.
        work: directories of the result.
        progress: receives messages and counts of rows and tokens.

    Raises:
        StratalensError: the model cannot be loaded or used, or a stored state was damaged during the work.
    """
    config, inputs, survey = text.config, text.inputs, text.inputs.survey
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    estimate = estimate_memory(config, inputs, device, dtype)
    passes = plan_passes(estimate, memory_limits(config, estimate, device))
    started, tokens_read = time.perf_counter(), 0
    progress.stage("harvest")
    with progress.track("Reading text", survey.kept_rows * len(passes)) as advance:

        def on_tokens(tokens: int) -> None:
            nonlocal tokens_read
            tokens_read += tokens
            advance(0, tokens)

        callbacks = HarvestCallbacks(on_tokens, on_rows=lambda rows: advance(rows, 0))
        kind = kind_of(device, dtype)
        context = harvest_context(config, inputs, text.norm_limits, kind)
        characters = shard_characters(survey.characters)
        reader = CorpusReader(
            context,
            cut=lambda: cut_shards(survey.select(inputs.corpus), characters, len(survey.populations)),
            work=work,
            refresh=False,
            say=progress.say,
            on_rows=callbacks.on_rows,
            place=lambda hookpoint: other_harvest_path(text.folder, hookpoint),
            recorded=text.recorded,
            context_file=f"context_{text.folder}.json",
        )
        files, _ = reader.harvest(_LateWorker(kind, lambda: _opened(text, progress), text, callbacks), passes)
    return Harvest(files, context.facts(), tokens_read, time.perf_counter() - started)


def _opened(text: OtherText, progress: Progress) -> OpenModel:
    return text.opened or open_checked(text.config, text.inputs, text.norm_limits, progress)


@dataclass(frozen=True)
class _LateWorker:
    """Reads in this process; loads the model when the first shard is to be read."""

    kind: WorkerKind
    load: Callable[[], OpenModel]
    text: OtherText
    callbacks: HarvestCallbacks

    @cached_property
    def _worker(self) -> LocalWorker:
        return LocalWorker(self.load(), self.text.inputs.cutter, self.text.config.tokens_per_batch, self.callbacks)

    def read(self, hookpoints: tuple[Hookpoint, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """See `Workers`."""
        waiting = iter(tasks)
        first = next(waiting, None)
        if first is not None:
            yield from self._worker.read(hookpoints, chain([first], waiting))
