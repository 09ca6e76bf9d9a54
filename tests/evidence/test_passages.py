"""Passages for evidence: chosen by hashes and by activation, and read exactly as chosen."""

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import LATENTS, POPULATIONS, passage_values, pointers

from stratalens.corpus import survey
from stratalens.corpus.builtin import text_file
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Populations, Side
from stratalens.corpus.survey import Survey
from stratalens.evidence.passages import (
    CANDIDATE_SPANS,
    STRONGEST_PER_HALF,
    Passage,
    PassageLocation,
    load_passages,
    read_passages,
    sample_texts,
    strongest_passages,
    write_passages,
)
from stratalens.harvest.state.top_examples import TopExamples
from stratalens.models.tokens import PassageCutter

PARTS = 3
"""Rows of each document."""


@pytest.fixture(scope="module")
def cutter(tokenizer) -> PassageCutter:
    return PassageCutter(tokenizer, 24, 4)


def write_corpus(folder: Path, order: int | None = None) -> Corpus:
    """30 documents of three rows a side; with `order`, the rows are shuffled over two files."""
    sides = []
    for name in ("financial", "general"):
        lines = text_file(name).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"][: 300 + 7 * n] for n, line in enumerate(lines[: 30 * PARTS])]
        rows = [{"id": f"{name}-{n // PARTS}#{n % PARTS}", "text": text} for n, text in enumerate(texts)]
        rows[0]["text"] += "\n\tGains 😀😃 of £5 in 東京, said Émile.   "
        if order is not None:
            np.random.default_rng(order).shuffle(rows)
        files = []
        for part, some in enumerate((rows[:40], rows[40:])):
            path = folder / f"{name}-{order}-{part}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
            files.append(str(path))
        sides.append(files)
    return Corpus.find(*sides)


def surveyed(corpus: Corpus, cutter: PassageCutter) -> Survey:
    return survey(corpus, too_short=cutter.too_short, max_documents=None, seed=0)


@pytest.fixture(scope="module")
def read(cutter, tmp_path_factory) -> tuple[Corpus, Survey]:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"))
    return corpus, surveyed(corpus, cutter)


def wanted_locations(corpus: Corpus, found: Survey, cutter: PassageCutter) -> dict[PassageLocation, str]:
    """The text of the last and one other passage of every fifth text."""
    wanted = {}
    for row in list(found.select(corpus))[::5]:
        spans = list(cutter.spans(row.text))
        for span in {spans[-1].start: spans[-1], spans[1].start: spans[1]}.values():
            wanted[PassageLocation(row.content, span.start, span.end)] = row.text[span.start : span.end]
    return wanted


def as_tuple(one: Passage) -> tuple:
    return (
        one.location,
        one.document,
        one.population,
        one.text,
        one.token_ids.tolist(),
        one.offsets.tolist(),
        one.sampled,
    )


def test_the_sample_takes_one_text_a_document_from_every_population(read):
    _, found = read
    sampled = sample_texts(found, 0, texts=9)
    at = np.flatnonzero(np.isin(found.content, np.array(sorted(sampled), np.uint64)))
    assert len(sampled) == len(at) == 9 * POPULATIONS
    assert np.bincount(found.membership[at]).tolist() == [9] * POPULATIONS
    assert len(np.unique(found.document[at])) == len(at)
    assert sample_texts(found, 0, texts=10) > sampled, "a larger sample holds the smaller one"
    assert sample_texts(found, 1, texts=9) != sampled
    assert sample_texts(found, 0, texts=1000) == frozenset(found.content.tolist()), "there are no more"


def test_few_documents_give_several_texts_each(read):
    _, found = read
    documents = np.array([len(np.unique(found.document[found.membership == p])) for p in range(POPULATIONS)])
    sampled = sample_texts(found, 0, texts=int(documents.max()) + 1)
    at = np.flatnonzero(np.isin(found.content, np.array(sorted(sampled), np.uint64)))
    assert np.bincount(found.membership[at]).tolist() == (2 * documents).tolist()
    _, counts = np.unique(found.document[at], return_counts=True)
    assert (counts == 2).all()


def test_sample_and_passages_do_not_depend_on_the_order_of_the_corpus(read, cutter, tmp_path):
    corpus, found = read
    locations = set(wanted_locations(corpus, found, cutter))
    other = write_corpus(tmp_path, order=1)
    again = surveyed(other, cutter)
    sampled = sample_texts(found, 0, texts=9)
    assert sample_texts(again, 0, texts=9) == sampled
    passages = read_passages(corpus, found, cutter, locations, sampled)
    assert list(map(as_tuple, read_passages(other, again, cutter, locations, sampled))) == list(map(as_tuple, passages))
    assert len({one.location for one in passages}) == len(passages)


def test_exactly_the_wanted_passages_are_read(read, cutter):
    corpus, found = read
    wanted = wanted_locations(corpus, found, cutter)
    assert any(location.start > 0 for location in wanted)
    passages = read_passages(corpus, found, cutter, set(wanted), frozenset())
    assert {one.location: one.text for one in passages} == wanted
    membership = dict(zip(found.content.tolist(), found.membership.tolist(), strict=True))
    document = dict(zip(found.content.tolist(), found.document.tolist(), strict=True))
    for one in passages:
        assert one.population.number == membership[one.location.content]
        assert one.document == document[one.location.content]
        assert (type(one.side), type(one.half)) == (Side, Half)
    assert read_passages(corpus, found, cutter, set(), frozenset()) == []


def test_of_a_sampled_text_one_of_its_first_passages_is_read_beside_the_wanted_ones(read, cutter):
    corpus, found = read
    sampled = sample_texts(found, 0)
    alone = read_passages(corpus, found, cutter, set(), sampled)
    assert sorted(one.location.content for one in alone) == sorted(sampled)
    texts = {row.content: row.text for row in found.select(corpus)}
    first = {one.location.content: cutter.first_spans(texts[one.location.content], CANDIDATE_SPANS) for one in alone}
    chosen = [[span.start for span in first[one.location.content]].index(one.location.start) for one in alone]
    assert len(set(chosen)) > 2, "not always the same one"
    wanted = set(wanted_locations(corpus, found, cutter))
    both = read_passages(corpus, found, cutter, wanted, sampled)
    assert {one.location for one in both} == {one.location for one in alone} | wanted
    assert {one.location for one in both if one.sampled} == {one.location for one in alone}
    assert len(both) == len({one.location for one in both})


def test_offsets_reconstruct_the_text_token_by_token(read, cutter):
    corpus, found = read
    smiling = next(row for row in found.select(corpus) if "😀" in row.text)
    locations = {PassageLocation(smiling.content, span.start, span.end) for span in cutter.spans(smiling.text)}
    passages = read_passages(corpus, found, cutter, locations, sample_texts(found, 0))
    split_characters = 0
    for one in passages:
        assert len(one.offsets) == len(one.token_ids)
        positions, texts = one.tokens
        assert "".join(texts) == one.text
        decoded = cutter.tokenizer.decode(one.token_ids.tolist()).strip()
        whole = decoded.strip("\ufffd")  # of a character whose tokens two passages share, each has a part
        assert whole in one.text
        assert len(one.text.strip()) - len(whole) == (decoded != whole)
        assert [one.token_ids[at] in cutter.special_ids for at in positions] == [False] * len(positions)
        split_characters += texts.count("")
    assert split_characters > 0, "a character of several tokens is among the cases"


def test_loaded_passages_equal_those_written(read, cutter, tmp_path):
    corpus, found = read
    passages = read_passages(corpus, found, cutter, set(), sample_texts(found, 0))
    write_passages(passages, tmp_path / "passages.parquet")
    loaded = load_passages(tmp_path / "passages.parquet")
    assert list(map(as_tuple, loaded)) == list(map(as_tuple, passages))
    for one in loaded:
        assert isinstance(hash(one.location), int)
        assert one.token_ids.dtype == one.offsets.dtype == np.int64
    assert max(one.location.content for one in passages) > 2**63, "hashes that need all 64 bits are among the cases"


def test_an_empty_list_of_passages_can_be_written_and_loaded(tmp_path):
    write_passages([], tmp_path / "passages.parquet")
    assert load_passages(tmp_path / "passages.parquet") == []


def test_the_strongest_passages_are_the_first_examples_of_each_population():
    examples = TopExamples.of(passage_values(150, 0), pointers(150, 0))
    expected = {
        PassageLocation(int(examples.content[row]), int(examples.start[row]), int(examples.end[row]))
        for f in (0, 3)
        for p in Populations()
        for row in np.flatnonzero((examples.population == p.number) & (examples.latent == f))[
            : STRONGEST_PER_HALF[p.side]
        ]
    }
    assert strongest_passages(examples, [0, 3], Populations()) == expected
    assert strongest_passages(examples, [3], Populations()) < expected
    assert strongest_passages(examples, [LATENTS - 1], Populations()) == set(), (
        "a feature that never fires has no passages"
    )
