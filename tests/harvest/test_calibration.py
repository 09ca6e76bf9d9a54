"""What is read for the fit check is little, whatever the corpus."""

import json
from pathlib import Path

import pytest

from stratalens.corpus import Corpus
from stratalens.corpus.builtin import text_file
from stratalens.corpus.survey import survey
from stratalens.harvest.calibration import calibration_text
from stratalens.models.tokens import PassageCutter

LENGTH = 24


@pytest.fixture
def cutter(tokenizer) -> PassageCutter:
    return PassageCutter(tokenizer, LENGTH)


def calibrated(folder: Path, cutter: PassageCutter, documents: int, rows: int):
    """What is read of a corpus of so many documents a side, each of so many rows of several passages."""
    sides = []
    for name in ("financial", "general"):
        texts = [json.loads(line)["text"] for line in text_file(name).read_text(encoding="utf-8").splitlines()]
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for number in range(documents):
                for row in range(rows):
                    text = f"{number} {row}: {texts[number % len(texts)]}"
                    stream.write(json.dumps({"id": f"{name}{number}#{row}", "text": text}) + "\n")
        sides.append([path])
    corpus = Corpus.find(*sides)
    found = survey(corpus, too_short=cutter.too_short, max_documents=None, seed=0, keep_near_duplicates=True)
    return corpus, found, calibration_text(corpus, found, cutter)


@pytest.mark.parametrize(("documents", "rows", "passages"), [(40, 1, 32), (40, 30, 32), (300, 1, 32), (10, 1, 20)])
def test_one_passage_of_32_documents_is_read_however_many_rows_they_have(tmp_path, cutter, documents, rows, passages):
    corpus, found, text = calibrated(tmp_path, cutter, documents, rows)
    by_document: dict[int, list[tuple[int, ...]]] = {}
    for row in found.select(corpus):
        own = by_document.setdefault(row.document, [])
        own += [tuple(cutter.sequence(span)) for span in cutter.first_spans(row.text, 1)]
    used = [sum(tuple(sequence) in own for sequence in text.sequences) for own in by_document.values()]
    assert len(text.sequences) == sum(used) == passages
    assert max(used) == 1


def test_at_most_a_tenth_of_a_small_text_is_read_and_always_a_passage(tmp_path, cutter):
    for documents in (3, 5, 9):
        cutter = PassageCutter(cutter.tokenizer, 2048)  # a passage for each text
        corpus, found, text = calibrated(tmp_path, cutter, documents, rows=1)
        rows = sorted(found.select(corpus), key=lambda row: row.content)
        assert len(text.sequences) >= 1
        read = sum(len(row.text) for row in rows[: len(text.sequences)])
        assert text.characters == read
        assert read <= 0.1 * sum(len(row.text) for row in rows) or len(text.sequences) == 1
        one_more = sum(len(row.text) for row in rows[: len(text.sequences) + 1])
        assert one_more > 0.1 * found.kept_characters
