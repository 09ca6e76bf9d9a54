"""Sides of different kinds of text are told by their form; sides of like kinds are not, whatever they are about."""

import json

import pytest

from stratalens.config.validation import make_config
from stratalens.corpus import Corpus, survey
from stratalens.corpus.builtin import text_file
from stratalens.corpus.describe import examine_text
from stratalens.corpus.likeness import Likeness, likeness
from stratalens.corpus.text_sample import SampledText


def texts(name: str, *kinds: str) -> list[SampledText]:
    rows = [json.loads(line) for line in text_file(name).read_text(encoding="utf-8").splitlines()]
    chosen = [row["text"] for row in rows if not kinds or row["kind"] in kinds]
    return [SampledText(at, at, text, len(text)) for at, text in enumerate(chosen)]


def judged(one: list[SampledText], other: list[SampledText]) -> Likeness:
    others = [text._replace(document=text.document + 10**6) for text in other]
    found = likeness((one, others), ([0] * len(one), [0] * len(other)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "other"), [("table", "letter"), ("forum", "official"), ("dialogue", "report"), ("news", "forum")]
)
def test_unlike_kinds_are_told_apart_on_the_same_subject(kind, other):
    found = judged(texts("general", kind), texts("general", other))
    assert found.auroc > 0.9
    assert found.differs


def test_halves_of_one_side_are_not_told_apart():
    everything = texts("general")
    found = judged(everything[::2], everything[1::2])
    assert 0.4 < found.auroc < 0.6
    assert not found.differs


def test_an_unlike_mixture_is_no_difference_where_documents_are_compared_within_their_kind():
    financial = {kind: texts("financial", kind) for kind in ("table", "letter")}
    general = {kind: texts("general", kind) for kind in ("table", "letter")}
    domain = [*financial["table"], *financial["letter"][:12]]
    other = [*general["table"][:12], *general["letter"]]
    other = [text._replace(document=text.document + 10**6) for text in other]
    kinds = [0] * len(financial["table"]) + [1] * 12, [0] * 12 + [1] * len(general["letter"])
    within, without = likeness((domain, other), kinds), likeness((domain, other), ([0] * len(domain), [0] * len(other)))
    assert within is not None
    assert without is not None
    assert without.auroc > 0.8
    assert within.auroc < without.auroc - 0.1


def test_texts_of_one_document_are_judged_together():
    few = [text._replace(document=at % 3) for at, text in enumerate(texts("general"))]
    assert likeness((few, few), ([0] * len(few), [0] * len(few))) is None, "three documents are too few"
    assert likeness(([], []), ([], [])) is None


def test_the_run_says_so(tmp_path):
    for side, kind in (("financial", "table"), ("general", "letter")):
        rows = [json.dumps({"text": text.text}) for text in texts(side, kind)]
        (tmp_path / f"{side}.jsonl").write_text("\n".join(rows))
    config = make_config(domain_data=f"{tmp_path}/financial.jsonl", general_data=f"{tmp_path}/general.jsonl")
    corpus = Corpus.of_run(config)
    found = examine_text(config, corpus, survey(corpus, too_short=lambda _: False, max_documents=None, seed=0))
    [warning] = [warning for warning in found.warnings if "different kinds of text" in warning]
    assert found.likeness is not None
    assert f"AUROC {found.likeness.auroc:.2f} (above 0.75)" in warning
