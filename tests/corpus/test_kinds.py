"""Kinds of text are strata: which documents are compared, which half each belongs to, and what is told of the rest."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from error_book import Documented
from text_files import corpus_of, jsonl

from stratalens.config.validation import make_config
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.describe import describe_survey, examine_text
from stratalens.corpus.names import NO_NAME
from stratalens.corpus.populations import Half, Population, Populations, Side
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.survey import Survey, survey
from stratalens.errors import ConfigError, CorpusError
from stratalens.files.hashing import hash64

Rows = list[dict[str, object]]
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty"]


def rows(side: str, kinds: dict[str | None, int]) -> Rows:
    """So many documents of each kind, which say nothing alike."""
    return [
        {"id": f"{side}-{kind}-{number}", "kind": kind, "text": f"{side} {kind} {' '.join(chosen(side, kind, number))}"}
        for kind, count in kinds.items()
        for number in range(count)
    ]


def chosen(*parts: object) -> list[str]:
    own = random.Random(str(parts))
    return [f"{own.choice(WORDS)}{own.randrange(10**6)}" for _ in range(12)]


def with_kinds(folder: Path, domain: Rows, general: Rows, files: int = 1) -> Corpus:
    found = corpus_of(folder, domain, general, files)
    options = TextOptions(kind_column="kind")
    sides = [tuple(file._replace(options=options) for file in own) for own in found.files]
    return Corpus((sides[0], sides[1]))


def surveyed(corpus: Corpus, max_documents: int | None = None, seed: int = 0) -> Survey:
    return survey(corpus, too_short=lambda _: False, max_documents=max_documents, seed=seed)


def numbers(found: Survey) -> Counter[Population]:
    documents = dict(zip(found.document.tolist(), found.membership.tolist(), strict=True))
    return Counter(map(Population.numbered, documents.values()))


def test_documents_are_compared_within_the_kinds_that_both_sides_have(tmp_path):
    domain = rows("d", {"news": 21, "letter": 30, "table": 9, "poem": 12, None: 4})
    general = rows("g", {"news": 40, "letter": 11, "table": 30, "play": 5})
    found = surveyed(with_kinds(tmp_path, domain, general))
    assert found.populations == Populations(("letter", "news"))
    assert numbers(found) == {
        Population(Side.DOMAIN, Half.DISCOVERY, 0): 15,
        Population(Side.DOMAIN, Half.CONFIRMATION, 0): 15,
        Population(Side.DOMAIN, Half.DISCOVERY, 1): 10,
        Population(Side.DOMAIN, Half.CONFIRMATION, 1): 11,
        Population(Side.GENERAL, Half.DISCOVERY, 0): 5,
        Population(Side.GENERAL, Half.CONFIRMATION, 0): 6,
        Population(Side.GENERAL, Half.DISCOVERY, 1): 20,
        Population(Side.GENERAL, Half.CONFIRMATION, 1): 20,
    }
    counts = [(own.without_kind, own.kind_on_one_side, own.too_few_of_kind, own.documents) for own in found.counts]
    assert counts == [(4, 12, 9, 51), (0, 5, 30, 51)]
    assert found.split
    assert not found.kinds_ignored


def test_a_half_is_the_lower_or_upper_half_by_hash_within_side_and_kind(tmp_path):
    domain, general = rows("d", {"news": 21, "letter": 30}), rows("g", {"news": 40, "letter": 12})
    corpus = with_kinds(tmp_path, domain, general)
    found = surveyed(corpus, seed=3)
    half_of = {row.document: found.populations.halves[row.population] for row in found.select(corpus)}
    for side, own in zip(Side, (domain, general), strict=True):
        for kind in ("news", "letter"):
            documents = [hash64("document", int(side), str(row["id"])) for row in own if row["kind"] == kind]
            documents.sort(key=lambda document: hash64(3, "half", document))
            halves = [half_of[document] for document in documents]
            assert halves == sorted(halves)
            assert halves.count(Half.DISCOVERY) == len(documents) // 2


def test_the_order_of_rows_and_files_does_not_matter(tmp_path):
    domain, general = rows("d", {"news": 15, "letter": 25}), rows("g", {"news": 20, "letter": 20})
    domain += [
        row | {"kind": kind} for row in domain[:3] for kind in ("letter", "poem")
    ]  # the same text as another kind
    shuffled = [random.Random(1).sample(own, len(own)) for own in (domain, general)]
    one = surveyed(with_kinds(tmp_path, domain, general))
    other = surveyed(with_kinds(tmp_path, *shuffled, files=3))
    assert one.digest == other.digest
    assert one.counts[0].duplicates == 6


@pytest.mark.parametrize(
    ("domain", "general"),
    [
        ({"news": 30, "letter": 8}, {"news": 30, "letter": 30}),
        ({"news": 30, "letter": 30}, {"news": 30, "essay": 30}),
        ({"news": 30, None: 8}, {"news": 38}),
    ],
)
def test_with_fewer_than_two_strata_the_run_is_as_without_kinds_and_warns(tmp_path, domain, general):
    own, other = rows("d", domain), rows("g", general)
    found = surveyed(corpus := with_kinds(tmp_path, own, other))
    plain = surveyed(corpus_of(tmp_path, own, other))
    assert (found.populations, found.digest, found.sample) == (Populations(), plain.digest, plain.sample)
    assert found.kinds_ignored == (None not in domain)
    warnings = examine_text(make_config(), corpus, found).warnings
    assert any("kinds are ignored" in warning for warning in warnings) == found.kinds_ignored
    assert not plain.kinds_ignored


def test_one_kind_alone_is_no_kind(tmp_path):
    own, other = rows("d", {"news": 30}), rows("g", {"news": 30})
    assert not surveyed(with_kinds(tmp_path, own, other)).kinds_ignored


def test_of_many_documents_each_kind_keeps_its_share(tmp_path):
    domain, general = rows("d", {"a": 100, "b": 50, "c": 12}), rows("g", {"a": 50, "b": 50, "c": 50})
    corpus = with_kinds(tmp_path, domain, general)
    found = surveyed(corpus, max_documents=60)
    kinds = [Counter(), Counter()]
    for population, count in numbers(found).items():
        kinds[population.side][found.populations.strata[population.stratum]] += count
    assert kinds == [{"a": 30, "b": 19, "c": 11}, {"a": 20, "b": 20, "c": 20}]
    assert [own.beyond_max_documents for own in found.counts] == [102, 90]
    assert surveyed(corpus, max_documents=29).populations == Populations(("a", "b")), "too few for three kinds"
    assert surveyed(corpus, max_documents=19).populations == Populations()


def test_what_is_left_out_is_told(tmp_path):
    domain = rows("d", {"news": 20, "letter": 20, "poem": 3, None: 2})
    corpus = with_kinds(tmp_path, domain, rows("g", {"news": 20, "letter": 20}))
    found = surveyed(corpus)
    line = describe_survey("financial", found)
    assert line.endswith(
        "40 financial (20 discovery, 20 confirmation), skipped 2 without a kind, 3 of kinds on one side only; "
        "40 general (20 discovery, 20 confirmation); compared within 2 kinds: letter, news"
    )
    assert examine_text(make_config(), corpus, found).warnings[0] == (
        "financial documents left out: 2 have no kind; 3 are of a kind that the other side lacks"
    )


def test_a_document_of_several_kinds_is_of_one_and_told(tmp_path):
    domain = rows("d", {"news": 20, "letter": 20})
    mixed = [{"id": "both", "kind": kind, "text": f"{kind} of both"} for kind in ("news", "letter")]
    found = surveyed(with_kinds(tmp_path, domain + mixed, rows("g", {"news": 20, "letter": 20})))
    assert found.counts[0].documents == 41
    assert found.warnings[0] == ("1 document has rows of several kinds; one of them counts",)


def test_too_many_kinds_are_refused(tmp_path, documented: Documented):
    kinds = {f"kind {number}": 10 for number in range(32)}
    with pytest.raises(CorpusError) as error:
        surveyed(with_kinds(tmp_path, rows("d", kinds), rows("g", kinds)))
    documented("Texts", "too many kinds of text", f"stratalens: {error.value}")
    long = [{"kind": "k" * 65, "text": "one"}]
    with pytest.raises(CorpusError) as error:
        surveyed(with_kinds(tmp_path, long, long))
    assert "is no kind of text" in str(error.value)


def test_the_sample_is_shared_out_among_the_strata(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["stratalens.corpus.survey"], "MAX_SAMPLED_DOCUMENTS", 16)
    found = surveyed(with_kinds(tmp_path, rows("d", {"a": 40, "b": 20}), rows("g", {"a": 40, "b": 40})))
    sampled = Counter(found.sources.population.tolist())
    assert set(sampled.values()) == {8}
    assert len(sampled) == 8
    assert set(found.sources.document.tolist()) == set(found.sample)


def test_a_source_is_the_file_or_what_the_column_says(tmp_path):
    domain, general = rows("d", {"a": 20, "b": 20}), rows("g", {"a": 20, "b": 20})
    found = surveyed(with_kinds(tmp_path, domain, general, files=2))
    assert found.sources.names == (("0.jsonl", "1.jsonl"),) * 2
    assert Counter(found.sources.source.tolist()) == {0: 40, 1: 40}
    (tmp_path / "a.jsonl").write_bytes(jsonl([row | {"from": f"s{row['kind']}"} for row in domain]))
    (tmp_path / "b.jsonl").write_bytes(jsonl([row | {"from": None} for row in general]))
    options = {"domain_data": f"{tmp_path}/a.jsonl", "general_data": f"{tmp_path}/b.jsonl", "source_column": "from"}
    found = surveyed(Corpus.of_run(make_config(**options)))
    assert found.sources.names == (("sa", "sb"), ("b.jsonl",))
    assert found.sources.of(found.sources.document[:3] + 1).tolist() == [NO_NAME] * 3


def test_more_sources_than_can_be_told_apart_have_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr("stratalens.corpus.side_rows.MAX_SOURCES", 3)
    found = surveyed(corpus_of(tmp_path, rows("d", {"a": 20}), rows("g", {"a": 20}), files=4))
    assert found.sources.names == ((), ())
    assert set(found.sources.source.tolist()) == {NO_NAME}


def pairs_of(folder: Path) -> list[list[str]]:
    for name, side in (("a", "d"), ("b", "d"), ("c", "g"), ("e", "g")):
        (folder / f"{name}.jsonl").write_bytes(jsonl([{"text": row["text"]} for row in rows(side + name, {name: 20})]))
    return [["news", f"{folder}/a.jsonl", f"{folder}/c.jsonl"], ["filing", f"{folder}/b.jsonl", f"{folder}/e.jsonl"]]


def test_pairs_name_texts_of_one_kind_on_both_sides(tmp_path):
    found = surveyed(Corpus.of_run(make_config(pair=pairs_of(tmp_path))))
    assert found.populations.strata == ("filing", "news")
    assert [own.documents for own in found.counts] == [40, 40]
    assert found.sources.names == (("a.jsonl", "b.jsonl"), ("c.jsonl", "e.jsonl"))


def test_one_file_cannot_be_of_two_kinds(tmp_path, documented: Documented):
    pairs = pairs_of(tmp_path)
    pairs[1][2] = pairs[0][2]
    with pytest.raises(CorpusError) as error:
        Corpus.of_run(make_config(pair=pairs))
    documented("Texts", "one file in two pairs", f"stratalens: {error.value}")
    pairs[1][0] = "news"
    assert len(Corpus.of_run(make_config(pair=pairs)).files[1]) == 1, "of one kind it is read once"


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("`--pair` beside `--domain_data`", {"pair": [["news", "a", "b"]], "domain_data": "c"}),
        ("`--pair` beside `--general_data`", {"pair": [["news", "a", "b"]], "general_data": "c"}),
        ("`--pair` beside `--kind_column`", {"pair": [["news", "a", "b"]], "kind_column": "kind"}),
        ("a pair of two words", {"pair": [["news", "a"]]}),
        ("a pair without a kind", {"pair": [[" ", "a", "b"]]}),
        ("a pair without a text", {"pair": [["news", "a", ""]]}),
        ("a pair that is one word", {"pair": "news"}),
        ("`--kind_column` for the built-in texts", {"kind_column": "kind"}),
        ("an empty `--source_column`", {"source_column": ""}),
    ],
)
def test_options_that_do_not_go_together_are_refused(case, options, documented: Documented):
    with pytest.raises(ConfigError) as error:
        make_config(**options)
    documented("Commands and options", case, f"stratalens: {error.value}")


@pytest.mark.parametrize("kind", [["news"], {"name": "news"}])
def test_a_kind_is_a_word(tmp_path, kind):
    corpus = with_kinds(tmp_path, [{"kind": kind, "text": "one"}], [{"kind": "news", "text": "two"}])
    with pytest.raises(CorpusError, match=r"not a word or a number; name another column with --kind_column"):
        surveyed(corpus)


def test_a_kind_column_must_be_there(tmp_path):
    corpus = with_kinds(tmp_path, [{"text": "one"}], [{"kind": "news", "text": "two"}])
    with pytest.raises(CorpusError, match=r"no column `kind` \(found: text\); give the kind column with --kind_column"):
        surveyed(corpus)


def test_kinds_and_sources_can_be_written_whatever_bytes_name_them(tmp_path):
    domain, general = (
        [row | {"kind": f"{row['kind']}\udce9"} for row in rows(side, {"a": 12, "b": 12})] for side in "dg"
    )
    corpus = with_kinds(tmp_path, domain, general)
    found = surveyed(corpus)
    assert found.populations.strata == ("a\\udce9", "b\\udce9")
    path = tmp_path / "caf\udce9.jsonl"
    path.write_bytes(jsonl(rows("e", {"a": 24})))
    assert surveyed(Corpus.find([path], [corpus.files[1][0].place])).sources.names[0] == ("caf\\udce9.jsonl",)
