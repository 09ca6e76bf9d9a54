"""The inputs of a run: model source, SAEs and text, found and checked as far as possible without loading the model."""

from collections.abc import Collection
from dataclasses import dataclass

from stratalens.config.options import RunConfig
from stratalens.corpus import Corpus, survey
from stratalens.corpus.describe import corpus_warnings, describe_files, describe_survey
from stratalens.corpus.survey import Survey
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter, find_model
from stratalens.models.source import ModelSource, load_tokenizer
from stratalens.progress import Progress
from stratalens.saes import find_saes
from stratalens.saes.sae import SaeFile


@dataclass(frozen=True)
class RunInputs:
    """Model source, SAEs and text of a run, checked as far as possible without loading the model."""

    source: ModelSource
    saes: dict[Hookpoint, SaeFile]
    """Hookpoint -> its SAE."""
    corpus: Corpus
    survey: Survey
    """Which rows of the corpus count, and in which population."""
    cutter: PassageCutter


def find_inputs(config: RunConfig, progress: Progress, only: Collection[Hookpoint] | None = None) -> RunInputs:
    """Find model, SAEs and text, and decide which documents count.

    Args:
        config: options of the run.
        only: the hookpoints to read, instead of those of `--layers` and `--sites`.
        progress: receives messages, warnings and counts of scanned rows.

    Raises:
        StratalensError: an input is missing or cannot be used; most user errors are reported here.
    """
    corpus = Corpus.of_run(config)
    for message in describe_files(config.domain, corpus):
        progress.say(message)
    with progress.track("Looking at the first rows", sum(map(len, corpus.files))) as advance:
        corpus.check_first_rows(lambda: advance(1, 0))
    source = find_model(config, progress.say)
    saes = find_saes(config, source, only, progress.say)
    tokenizer = load_tokenizer(source)
    cutter = PassageCutter(tokenizer, config.max_length, config.min_length)
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
    for warning in corpus_warnings(config, corpus, surveyed):
        progress.warn(warning)
    return RunInputs(source, saes, corpus, surveyed, cutter)
