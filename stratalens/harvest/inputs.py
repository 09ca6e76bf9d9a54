"""The inputs of a run: model source, SAEs and text, found and checked as far as possible without loading the model."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import nn

from stratalens.config.options import RunConfig
from stratalens.corpus import Corpus, survey
from stratalens.corpus.describe import TextFindings, describe_files, describe_survey, examine_text
from stratalens.corpus.survey import Survey
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter, find_model
from stratalens.models.limits import position_warning, require_positions, rows_of_embedding
from stratalens.models.memory import MemoryBytes
from stratalens.models.source import ModelSource, load_tokenizer
from stratalens.progress import Progress
from stratalens.saes import find_saes
from stratalens.saes.sae import SaeFile


@dataclass(frozen=True)
class ModelInputs:
    """Model source, SAEs and tokenizer of a run: what it needs besides text, not yet loaded."""

    source: ModelSource
    saes: dict[Hookpoint, SaeFile]
    """Hookpoint -> its SAE."""
    cutter: PassageCutter
    warnings: tuple[str, ...]
    """What limits the results and is known from the model alone."""


@dataclass(frozen=True)
class LoadedModel:
    """The model with the blocks that a run needs, which were tried on a small batch."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    memory_limit: MemoryBytes
    """What the whole run may use, as measured before the model was loaded."""
    load_in: str | None = None
    """`8bit` or `4bit` if its blocks are quantised."""


@dataclass(frozen=True)
class RunInputs(ModelInputs):
    """Model source, SAEs and text of a run."""

    corpus: Corpus
    survey: Survey
    """Which rows of the corpus count, and in which population."""
    text: TextFindings
    """What a reader must know about the text."""
    loaded: LoadedModel | None
    """The model, where it was loaded before the text was read."""


LoadModel = Callable[[RunConfig, ModelInputs], LoadedModel]
"""Loads a model, and tries it on a small batch."""


def find_inputs(
    config: RunConfig,
    progress: Progress,
    only: Collection[Hookpoint] | None = None,
    load: LoadModel | None = None,
) -> RunInputs:
    """Find model, SAEs and text, and decide which documents count: the cheapest checks first.

    1. The files of the text are found, and the first rows of each are read.
    2. Model and SAEs are found, and checked by configuration and names; the tokenizer is loaded (`find_model_inputs`).
    3. The model is loaded and tried on a small batch, if `load` does so.
    4. The text is read once, which may take hours, to decide which rows count.

    What needs the text and the model, such as the fit check, comes after this: `open_model`.

    Args:
        config: options of the run.
        progress: receives messages, warnings and counts of scanned rows.
        only: the hookpoints to read, instead of those of `--layers` and `--sites`.
        load: loads and tries the model; None leaves it out.

    Raises:
        StratalensError: an input is missing or cannot be used; most user errors are reported here.
    """
    corpus = Corpus.of_run(config)
    for message in describe_files(config.domain, corpus):
        progress.say(message)
    with progress.track("Looking at the first rows", sum(map(len, corpus.files))) as advance:
        corpus.check_first_rows(lambda: advance(1, 0))
    found = find_model_inputs(config, progress, only)
    loaded = None if load is None else load(config, found)
    surveyed = _survey_text(config, corpus, found.cutter, progress)
    text = examine_text(config, corpus, surveyed)
    for warning in text.warnings:
        progress.warn(warning)
    return RunInputs(found.source, found.saes, found.cutter, found.warnings, corpus, surveyed, text, loaded)


def find_model_inputs(config: RunConfig, progress: Progress, only: Collection[Hookpoint] | None = None) -> ModelInputs:
    """Find model and SAEs and load the tokenizer, without weights of the model.

    Args:
        config: options of the run.
        progress: receives messages and warnings.
        only: the hookpoints to read, instead of those of `--layers` and `--sites`.

    Raises:
        StratalensError: model or SAEs are missing or cannot be used, or do not belong together.
    """
    source = find_model(config, progress.say)
    saes = find_saes(config, source, only, progress.say)
    require_positions(source, config.max_length)
    cutter = passage_cutter(config, source)
    warnings = [position_warning(source, config.max_length), *(sae.warning for sae in saes.values())]
    told = tuple(filter(None, warnings))
    for warning in told:
        progress.warn(warning)
    return ModelInputs(source, saes, cutter, told)


def passage_cutter(config: RunConfig, source: ModelSource) -> PassageCutter:
    """Load the tokenizer of a model, to cut texts as the run does.

    Raises:
        ModelError: the tokenizer is missing or cannot be used.
    """
    rows = rows_of_embedding(source)
    return PassageCutter(load_tokenizer(source), config.max_length, config.min_length, known_ids=rows)


def _survey_text(config: RunConfig, corpus: Corpus, cutter: PassageCutter, progress: Progress) -> Survey:
    """Read the text once to decide which rows count."""
    progress.stage("scan")
    with progress.track("Scanning text", None) as advance:
        surveyed = survey(
            corpus,
            too_short=cutter.too_short,
            max_documents=config.max_documents,
            seed=config.seed,
            keep_near_duplicates=config.keep_near_duplicates,
            on_row=lambda: advance(1, 0),
        )
    progress.say(describe_survey(config.domain, surveyed))
    return surveyed
