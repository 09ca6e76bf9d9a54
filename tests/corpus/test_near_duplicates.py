"""Near duplicates count once, whatever their order; MinHash estimates the Jaccard similarity of shingles."""

import random
from pathlib import Path

import numpy as np
import pytest
from text_files import corpus_of

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, text_file
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.near_duplicates import SIGNATURE_ENTRIES, SignatureList, groups, signature
from stratalens.corpus.survey import Survey, survey
from stratalens.files.hashing import hash64

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"]
NOTICE = (
    "The board of the company declares a dividend of {} dollars a share payable in the {} quarter of this year to all"
)


def document(generator: random.Random, words: int) -> list[str]:
    return [generator.choice(WORDS) for _ in range(words)]


def changed(words: list[str], generator: random.Random, count: int) -> list[str]:
    copy = list(words)
    for place in generator.sample(range(len(words)), count):
        copy[place] = generator.choice(WORDS)
    return copy


def similarity(first: list[str], second: list[str]) -> float:
    one, other = ({tuple(words[start : start + 5]) for start in range(len(words) - 4)} for words in (first, second))
    return len(one & other) / len(one | other)


def survey_of(folder: Path, domain: list, general: list, files: int = 1, **options: object) -> tuple[Survey, Corpus]:
    corpus = corpus_of(folder, domain, general, files)
    defaults = {"too_short": lambda text: len(text) < 4, "max_documents": None, "seed": 0}
    return survey(corpus, **(defaults | options)), corpus


def unlike(count: int, seed: int = 1) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(document(generator, 40)) for _ in range(count)]


def kept(found: tuple[Survey, Corpus]) -> set[str]:
    return {row.text for row in found[0].select(found[1])}


def test_the_share_of_equal_entries_estimates_the_similarity_without_bias():
    generator = random.Random(0)
    errors = []
    for _ in range(400):
        first = document(generator, generator.choice([30, 100, 400]))
        second = changed(first, generator, generator.randrange(1 + len(first) // 40))
        equal = (signature(" ".join(first)) == signature(" ".join(second))).mean()
        errors.append(equal - similarity(first, second))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.06


def test_a_signature_takes_256_bytes_and_does_not_see_case_numbers_or_marks():
    one = signature("Sales rose by 4.5% in 2023, the bank said on Monday.")
    assert one.nbytes == 256
    assert (one == signature("sales ROSE by 12% in 1999 - the bank said on Monday")).all()
    assert (one == signature("Sales fell by 4.5% in 2023, the bank said on Monday.")).mean() < 0.8
    assert (signature("...") != signature("???")).any()


def test_pairs_above_the_threshold_are_grouped_and_unlike_ones_are_not():
    generator = random.Random(3)
    originals = [document(generator, 200) for _ in range(300)]
    copies = [changed(words, generator, 2) for words in originals]
    others = [changed(words, generator, 40) for words in originals]
    assert min(similarity(*pair) for pair in zip(originals, copies, strict=True)) > 0.88
    assert max(similarity(*pair) for pair in zip(originals, others, strict=True)) < 0.5
    texts = [" ".join(words) for words in (*originals, *copies, *others)]
    order = np.array([hash64(text) for text in texts], np.uint64)
    found = groups(np.stack(list(map(signature, texts))), order)
    paired = found[:300] == found[300:600]
    assert paired.mean() > 0.99
    assert not np.isin(found[600:], found[:600]).any()


def test_forty_copies_of_one_notice_are_one_document(tmp_path):
    copies = [NOTICE.format(number, "first") + f" {number}" for number in range(40)]
    found = survey_of(tmp_path, [*unlike(20), *copies], unlike(20, seed=2))
    assert found[0].counts[0].documents == 21
    assert found[0].counts[0].near_duplicates == 39
    assert kept(found) & set(copies) == {min(copies, key=hash64)}


def test_the_order_of_rows_and_files_changes_nothing(tmp_path):
    copies = [NOTICE.format(number, "first") for number in range(30)]
    rows = [*unlike(20), *copies]
    shuffled = random.Random(5).sample(rows, len(rows))
    one, other = survey_of(tmp_path, rows, unlike(20, 2)), survey_of(tmp_path, shuffled, unlike(20, 2), files=4)
    assert kept(one) == kept(other)
    assert one[0].digest == other[0].digest


def test_a_group_on_both_sides_is_dropped_from_both_and_told(tmp_path):
    copies = [NOTICE.format(number, "first") for number in range(6)]
    found = survey_of(tmp_path, [*unlike(20), *copies[:4]], [*unlike(20, 2), *copies[4:]])
    assert not kept(found) & set(copies)
    assert [counts.near_duplicates_on_both_sides for counts in found[0].counts] == [4, 2]
    assert [counts.near_duplicates for counts in found[0].counts] == [0, 0]


def test_rows_of_one_document_are_compared_together(tmp_path):
    parts = [document(random.Random(number), 60) for number in range(3)]
    rows = [
        {"id": f"{name}#{number}", "text": " ".join(words) + f" {name}"}
        for name in ("x", "y")
        for number, words in enumerate(parts)
    ]
    alike = survey_of(tmp_path, [*unlike(20), *rows], unlike(20, 2))
    assert alike[0].counts[0].near_duplicates == 1
    apart = [
        *rows[:3],
        {"id": "y", "text": rows[3]["text"]},
        {"id": "y", "text": " ".join(document(random.Random(9), 200))},
    ]
    assert survey_of(tmp_path, [*unlike(20), *apart], unlike(20, 2))[0].counts[0].near_duplicates == 0


def test_near_duplicates_are_kept_on_request(tmp_path):
    copies = [NOTICE.format(number, "first") for number in range(30)]
    found = survey_of(tmp_path, copies, unlike(20), keep_near_duplicates=True)
    assert found[0].counts[0].documents == 30


def test_max_documents_counts_those_that_are_left(tmp_path):
    copies = [NOTICE.format(number, "first") for number in range(30)]
    found = survey_of(tmp_path, [*unlike(25), *copies], unlike(20, 2), max_documents=25)
    assert found[0].counts[0].documents == 25
    assert found[0].counts[0].near_duplicates == 29


def test_signatures_stand_in_one_array_of_256_bytes_a_document():
    found = SignatureList()
    for number in range(1000):
        for part in range(3):
            found.add(number // 2 * 2, f"{number} {part} " + " ".join(WORDS[number % 100 : number % 100 + 20]))
    assert found.merged().entries.shape == (500, SIGNATURE_ENTRIES)
    assert found.merged().entries.nbytes == 500 * 256


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_the_built_in_texts_have_none(domain):
    corpus = Corpus.find([text_file(domain)], [text_file("general")])
    found = survey(corpus, too_short=lambda _: False, max_documents=None, seed=0)
    for counts in found.counts:
        assert counts.near_duplicates == counts.near_duplicates_on_both_sides == 0


def test_texts_without_spaces_are_compared_by_their_letters():
    letters = "银行今年为客户提高了利率因为业务增长公司市场经济政策发展投资风险管理信贷资本"
    random = np.random.default_rng(0)
    notice = "".join(random.choice(list(letters), 200))
    copies = [f"{notice[:100]}{name}{notice[100:]}" for name in ("王明", "李强", "张伟", "刘洋")]
    others = ["".join(random.choice(list(letters), 200)) for _ in range(4)]
    signatures = np.stack([signature(text) for text in (*copies, *others)])
    group = groups(signatures, np.arange(8, dtype=np.uint64))
    assert len(set(group[:4])) == 1
    assert len(set(group[4:])) == 4
