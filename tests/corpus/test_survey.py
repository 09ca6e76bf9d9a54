"""Which rows count and in which population: a matter of texts, ids and seed, never of order."""

import random
from collections import Counter

import pytest
from text_files import corpus_of

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Population, Side
from stratalens.corpus.survey import Survey, survey
from stratalens.errors import CorpusError
from stratalens.files.hashing import hash64

Texts = list[str | dict[str, object]]


def surveyed(corpus: Corpus, max_documents: int | None = None, seed: int = 0) -> Survey:
    return survey(
        corpus, too_short=lambda text: len(text) < 4, max_documents=max_documents, seed=seed, keep_near_duplicates=True
    )


def numbered(side: str, count: int) -> Texts:
    return [f"{side} text {number}" for number in range(count)]


def populations(found: Survey, corpus: Corpus) -> dict[str, int]:
    return {row.text: row.population for row in found.select(corpus)}


DOMAIN, GENERAL = numbered("domain", 60), numbered("general", 70)


def test_a_text_that_occurs_several_times_counts_once(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, *DOMAIN[:5], DOMAIN[0]], GENERAL, files=3)
    found = surveyed(corpus)
    assert found.counts[0].documents == found.counts[0].kept_rows == 60
    assert [found.counts[side].duplicates for side in Side] == [6, 0]
    assert Counter(row.text for row in found.select(corpus)) == Counter([*DOMAIN, *GENERAL])


def test_a_text_that_occurs_under_two_ids_counts_once_in_one_population(tmp_path):
    twice: Texts = [{"id": id_, "text": "the same words"} for id_ in "ab"]
    one = corpus_of(tmp_path, [*twice, *DOMAIN], GENERAL)
    other = corpus_of(tmp_path, [*DOMAIN, *twice[::-1]], GENERAL)
    assert surveyed(one).counts[0].kept_rows == 61
    assert set(surveyed(one).select(one)) == set(surveyed(other).select(other))


def test_a_text_on_both_sides_is_dropped_from_both(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, "shared", "shared"], ["shared", *GENERAL])
    found = surveyed(corpus)
    assert [found.counts[side].on_both_sides for side in Side] == [1, 1]
    assert [found.counts[side].documents for side in Side] == [60, 70]
    assert "shared" not in populations(found, corpus)


def test_empty_and_short_texts_are_counted_and_left_out(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, "", "  ", "abc"], GENERAL)
    counts = surveyed(corpus).counts[0]
    assert (counts.rows, counts.empty, counts.too_short, counts.documents) == (63, 2, 1, 60)


def test_passages_of_one_document_stay_in_one_population(tmp_path):
    rows: Texts = [{"id": f"doc{n}#{part}", "text": f"part {part} of {n}"} for n in range(60) for part in range(3)]
    corpus = corpus_of(tmp_path, rows, GENERAL, files=4)
    found = surveyed(corpus)
    assert (found.counts[0].documents, found.counts[0].kept_rows) == (60, 180)
    populations_of: dict[str, set[int]] = {}
    for row in found.select(corpus):
        if row.text.startswith("part"):
            populations_of.setdefault(row.text.split()[-1], set()).add(row.population)
    assert {len(found_in) for found_in in populations_of.values()} == {1}
    assert set.union(*populations_of.values()) == {Population(Side.DOMAIN, half).number for half in Half}


def test_equal_ids_on_the_two_sides_are_different_documents(tmp_path):
    sides = [[{"id": str(n), "text": f"{side} {n}"} for n in range(60)] for side in ("domain", "general")]
    corpus = corpus_of(tmp_path, sides[0], sides[1])  # pyright: ignore[reportArgumentType]
    found = surveyed(corpus)
    assert [found.counts[side].documents for side in Side] == [60, 60]
    documents: dict[int, set[int]] = {side: set() for side in Side}
    for row in found.select(corpus):
        assert row.population // 2 == (Side.DOMAIN if row.text.startswith("domain") else Side.GENERAL)
        documents[row.population // 2].add(row.document)
    assert documents[Side.DOMAIN].isdisjoint(documents[Side.GENERAL])


@pytest.mark.parametrize("max_documents", [None, 50])
def test_the_order_of_rows_and_their_cut_into_files_change_nothing(tmp_path, max_documents):
    shuffled = random.Random(1).sample(DOMAIN, len(DOMAIN)), random.Random(2).sample(GENERAL, len(GENERAL))
    one, other = corpus_of(tmp_path, DOMAIN, GENERAL), corpus_of(tmp_path, *shuffled, files=7)
    first, second = surveyed(one, max_documents), surveyed(other, max_documents)
    assert populations(first, one) == populations(second, other)
    assert (first.digest, first.counts, list(first.sample.items())) == (
        second.digest,
        second.counts,
        list(second.sample.items()),
    )
    assert first.calibration == second.calibration


def test_the_split_is_about_even_and_another_seed_splits_otherwise(tmp_path):
    corpus = corpus_of(tmp_path, numbered("domain", 400), GENERAL)
    first, again, other = (populations(surveyed(corpus, seed=seed), corpus) for seed in (0, 0, 1))
    assert first == again
    assert 150 < sum(number == Population(Side.DOMAIN, Half.CONFIRMATION).number for number in first.values()) < 250
    moved = sum(first[text] != other[text] for text in first)
    assert 150 < moved < 320


def test_a_document_keeps_its_half_when_others_come_and_go(tmp_path):
    few, many = corpus_of(tmp_path, DOMAIN, GENERAL), corpus_of(tmp_path, numbered("domain", 90), GENERAL)
    before, after = populations(surveyed(few), few), populations(surveyed(many), many)
    assert before.items() <= after.items()


def test_max_documents_keeps_whole_documents_and_a_nested_choice(tmp_path):
    rows: Texts = [{"id": f"doc{n}#{part}", "text": f"part {part} of {n}"} for n in range(60) for part in range(2)]
    corpus = corpus_of(tmp_path, rows, GENERAL)
    kept = {count: populations(surveyed(corpus, count), corpus) for count in (20, 40, 65)}
    counts = surveyed(corpus, 40).counts
    assert [(one.documents, one.kept_rows, one.beyond_max_documents) for one in counts] == [(40, 80, 40), (40, 40, 30)]
    assert kept[20].keys() < kept[40].keys() < kept[65].keys()
    assert len(kept[65]) == 120 + 65
    assert populations(surveyed(corpus, 40, seed=1), corpus).keys() != kept[40].keys()


def test_under_ten_documents_a_half_nothing_is_split_and_all_are_for_discovery(tmp_path):
    corpus = corpus_of(tmp_path, DOMAIN[:19], GENERAL)
    found = surveyed(corpus)
    assert not found.split
    assert set(populations(found, corpus).values()) == {Population(side, Half.DISCOVERY).number for side in Side}
    assert [(one.discovery_documents, one.confirmation_documents) for one in found.counts] == [(19, 0), (70, 0)]


def test_with_enough_documents_every_half_of_both_sides_is_filled(tmp_path):
    found = surveyed(corpus_of(tmp_path, DOMAIN, GENERAL))
    assert found.split
    for counts in found.counts:
        assert min(counts.discovery_documents, counts.confirmation_documents) >= 10
        assert counts.discovery_documents + counts.confirmation_documents == counts.documents


def test_two_documents_on_a_side_are_too_few_and_three_are_enough(tmp_path):
    with pytest.raises(
        CorpusError, match=r"^2 usable documents on the general side \(4 rows read: 1 empty, 1 too short"
    ):
        surveyed(corpus_of(tmp_path, DOMAIN, [*GENERAL[:2], "", "abc"]))
    assert surveyed(corpus_of(tmp_path, DOMAIN, GENERAL[:3])).counts[1].documents == 3


def test_selecting_reads_each_row_that_counts_once_with_its_side_and_its_hashes(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, *DOMAIN, "abc"], [*GENERAL, ""])
    found = surveyed(corpus)
    rows = list(found.select(corpus))
    assert sorted(row.text for row in rows) == sorted([*DOMAIN, *GENERAL])  # pyright: ignore[reportArgumentType]
    assert len(rows) == found.kept_rows
    for row in rows:
        assert row.content == hash64(row.text)
        assert row.population // 2 == (Side.DOMAIN if row.text in DOMAIN else Side.GENERAL)
        assert row.sampled == (row.document in found.sample)


def test_selecting_only_some_texts_gives_these_and_no_others(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, *DOMAIN], GENERAL, files=3)
    found = surveyed(corpus)
    everything = {row.content: row for row in found.select(corpus)}
    wanted = frozenset(sorted(everything)[::7])
    assert sorted(found.select(corpus, wanted)) == sorted(everything[content] for content in wanted)
    assert list(found.select(corpus, frozenset())) == []


def test_32_documents_calibrate_with_one_text_each(tmp_path):
    rows: Texts = [{"id": f"doc{n}#{part}", "text": f"part {part} of {n}"} for n in range(60) for part in range(3)]
    corpus = corpus_of(tmp_path, rows, GENERAL)
    found = surveyed(corpus)
    chosen = list(found.select(corpus, found.calibration))
    assert len(chosen) == len({row.document for row in chosen}) == 32
    smallest = {row.document: row.content for row in sorted(found.select(corpus), key=lambda row: -row.content)}
    assert all(row.content == smallest[row.document] for row in chosen)


def test_the_characters_of_texts_that_do_not_count_are_told_apart(tmp_path):
    corpus = corpus_of(tmp_path, [*DOMAIN, DOMAIN[0]], GENERAL)
    found = surveyed(corpus)
    assert found.kept_characters == sum(len(row.text) for row in found.select(corpus))
    assert found.characters == found.kept_characters + len(DOMAIN[0])
