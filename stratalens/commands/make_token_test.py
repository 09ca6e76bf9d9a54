"""The token test of a run, whether it is just made or finished: gather its text, read it, judge the features."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from stratalens.config.options import RunConfig
from stratalens.corpus.builtin import BUILT_IN_DOMAINS
from stratalens.corpus.sense_pairs import load_sense_pairs
from stratalens.errors import ConfigError
from stratalens.evidence import Evidence
from stratalens.evidence.passages import sample_texts
from stratalens.files.atomic import write_checksummed
from stratalens.files.output_dir import WorkDirectories
from stratalens.harvest.context import harvest_context
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.workers import WorkerKind, kind_of
from stratalens.hookpoint import Hookpoint
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.concepts.term_tokens import tokens_of_terms
from stratalens.models.tokens import TokenSpan
from stratalens.progress import Progress
from stratalens.report.formats import plain_number
from stratalens.report.token_test_record import TokenTestRecord
from stratalens.saes.fit_check import SINK_RATIO
from stratalens.validation.injection import (
    VALUES_NAME,
    ModelReader,
    ValueStore,
    describe_work,
    pack_values,
    read_pieces,
    read_values,
    values_path,
)
from stratalens.validation.masking import Terms
from stratalens.validation.other_senses import pair_sentences
from stratalens.validation.snippets import CONTROLS, SNIPPET_TOKENS, general_snippets
from stratalens.validation.token_test import TokenSet, TokenTest, TokenTestText
from stratalens.validation.token_verdicts import VERDICTS, TokenTestScores


class ModelToRead(NamedTuple):
    """The model of a run, which may not be loaded yet."""

    load: Callable[[], OpenModel]
    """With the norm limits below."""
    groups: tuple[tuple[Hookpoint, ...], ...]
    """Hookpoints whose SAEs fit into memory together."""
    norm_limits: Mapping[Hookpoint, float]
    """Hookpoint -> norm above which a position is a sink, as `run.json` holds it."""
    kind: WorkerKind


@dataclass(frozen=True)
class TestedRun:
    """A run whose reported features are tested."""

    config: RunConfig
    inputs: RunInputs
    evidence: Evidence
    """Of the reported features."""
    model: ModelToRead
    tokens_per_second: float | None
    """Of its harvest, to say how long the test will take."""


class FinishedTokenTest(NamedTuple):
    """What came of a token test."""

    scores: TokenTestScores
    record: TokenTestRecord


def run_to_test(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, harvest: Harvest, evidence: Evidence
) -> TestedRun:
    """The run that is being made, with its open model."""
    medians = {place: float(plain_number(check.median_norm)) for place, check in opened.checks.items()}
    limits = {place: SINK_RATIO * median for place, median in medians.items()}
    limited = replace(opened, norm_limits=limits)
    model = ModelToRead(lambda: limited, opened.passes, limits, kind_of(opened.device, opened.dtype))
    speed = harvest.tokens_read / harvest.seconds if harvest.tokens_read else None
    return TestedRun(config, inputs, evidence, model, speed)


def make_token_test(run: TestedRun, work: WorkDirectories, progress: Progress) -> FinishedTokenTest:
    """Make the token test of a run: read what was not read before, and store the values in the staging directory.

    Args:
        run: whose reported features are tested.
        work: directories of the result.
        progress: receives messages and counts of sequences and tokens.

    Raises:
        StratalensError: the text cannot be read or is too little, or the model cannot be used.
    """
    progress.stage("token test")
    test = TokenTest(_text(run), _tokens(run.inputs))
    if not test.features:
        raise ConfigError("no feature is reported, so there is nothing to test")
    notes = _notes(run, test)
    for note in notes:
        progress.say(f"Token test: {note}")
    store = _store(run, work)
    progress.say(describe_work(test.pieces, store, run.tokens_per_second))
    special_ids, batch_tokens = run.inputs.cutter.special_ids, run.config.tokens_per_batch
    reader = ModelReader(run.model.load, run.model.groups, special_ids, batch_tokens)
    values = read_pieces(test.pieces, reader, store, progress)
    scores = test.scores(values, sizes=(1,)) if run.config.no_examples else test.scores(values)
    for place, own in store.used.items():
        write_checksummed(work.staging / values_path(place), VALUES_NAME, pack_values(own))
    return FinishedTokenTest(scores, _record(test, scores, store, notes))


def _text(run: TestedRun) -> TokenTestText:
    config, inputs = run.config, run.inputs
    has_lexicon = config.domain in BUILT_IN_DOMAINS or bool(config.lexicon)
    terms = None
    if has_lexicon:
        lexicon = load_lexicon(config.domain, config.lexicon)
        of_term = tokens_of_terms(run.evidence.passages, lexicon)
        terms = Terms(of_term, sample_texts(inputs.survey, config.seed))
    return TokenTestText(
        evidence=run.evidence,
        split=inputs.survey.split,
        snippets=general_snippets(inputs, config.seed),
        terms=terms,
        pairs=pair_sentences(load_sense_pairs(config.domain, config.senses), inputs.cutter),
        seed=config.seed,
    )


def _tokens(inputs: RunInputs) -> TokenSet:
    cutter = inputs.cutter
    return TokenSet(
        ordinary_ids=cutter.ordinary_ids,
        special_ids=cutter.special_ids,
        frame=lambda ids: cutter.sequence(TokenSpan(list(ids), 0, 0, [])),
        show=cutter.token_text,
    )


def _notes(run: TestedRun, test: TokenTest) -> list[str]:
    """What a reader must know of the text of a test."""
    notes = []
    if (snippets := len(test.text.snippets)) < CONTROLS:
        notes.append(
            f"there are {snippets} different general snippets of {SNIPPET_TOKENS} tokens; the {CONTROLS} shared "
            "controls use them again with other random tokens"
        )
    if not run.inputs.survey.split:
        notes.append("nothing was held back: n-grams and snippets are from the same documents")
    if test.text.terms is None:
        notes.append("the domain has no lexicon, so no terms were masked")
    if not test.text.pairs.sequences:
        notes.append("the domain has no pairs of sentences with other senses of its words")
    return notes


def _store(run: TestedRun, work: WorkDirectories) -> ValueStore:
    """The values of an earlier test of the result, and of one that was stopped."""
    context = harvest_context(run.config, run.inputs, run.model.norm_limits, run.model.kind)
    facts = {place: [context.shared, own] for place, own in context.layers.items()}
    before = {place: read_values(work.result / values_path(place), VALUES_NAME) for place in facts}
    return ValueStore(work.shards, facts, before)


def _record(test: TokenTest, scores: TokenTestScores, store: ValueStore, notes: list[str]) -> TokenTestRecord:
    verdicts = Counter(score.verdict for own in scores.values() for score in own.values())
    return TokenTestRecord(
        features=verdicts.total(),
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
        snippets=len(test.text.snippets),
        masked_passages=len(test.masked.sequences),
        pairs=len(test.text.pairs.sequences) // 2,
        tokens=sum(piece.tokens for piece in test.pieces),
        seed=test.text.seed,
        digest=store.digest(),
        notes=notes,
        hookpoints=[str(place) for place in sorted(store.used)],
    )
