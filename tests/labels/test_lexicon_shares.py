"""Lexicon shares: how much of a feature's activation lies on the lexicon's terms, and on the tokens before them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import LAYER, LEXICON, Plant, at_random, on, on_words, passage, planted_evidence, written_passages

from stratalens.config.options import RunConfig
from stratalens.corpus.populations import Half, Side
from stratalens.evidence.collect import CollectedEvidence
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.passages import Passage
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.concepts.lexicon import Concept, Lexicon, load_lexicon
from stratalens.labels.feature_report import NO_SHARES, LexiconShares, Reports
from stratalens.labels.labelling import LabelSources, label_features
from stratalens.labels.lexicon_shares import lexicon_tokens
from stratalens.optional_parts import OptionalParts
from stratalens.progress import NoProgress

OWN = Lexicon([Concept("Lending", "", ("interest rate", "loan", "mortgage"), specific=True)])


@pytest.fixture
def lexicon(tmp_path) -> Lexicon:
    (tmp_path / "lexicon.yaml").write_text(LEXICON, encoding="utf-8")
    return load_lexicon("pottery", [str(tmp_path / "lexicon.yaml")])


def sampled(passages: Sequence[Passage]) -> list[Passage]:
    return [replace(one, sampled=True) for one in passages]


def reports_of(evidence: Evidence, lexicon: Lexicon) -> Reports:
    features = evidence.layers[LAYER].features
    top = {LAYER: pd.DataFrame({"feature_number": features, "flags": ""})}
    config = RunConfig.model_validate({"domain": "pottery", "domain_data": "x", "general_data": "y"})
    collected = CollectedEvidence(evidence, {})
    return label_features(config, collected, top, LabelSources(lexicon), OptionalParts(NoProgress()))


def shares(passages: Sequence[Passage], plants: Sequence[Plant], lexicon: Lexicon) -> list[LexiconShares]:
    return [report.lexicon for report in reports_of(planted_evidence(passages, plants), lexicon)[LAYER]]


def before(*words: str) -> Plant:
    """Fires on each token that one of some words follows."""
    return lambda tokens: [
        3.0 * (at + 1 < len(tokens) and tokens[at + 1].lower() in words) for at in range(len(tokens))
    ]


def test_planted_features_have_the_shares_that_they_were_made_with(lexicon):
    passages = sampled(written_passages())
    terms = "mortgage borrower loan refinanced dividend payout holder crude barrel".split()  # noqa: SIM905
    found = shares(passages, [on_words(*terms), before(*terms), on_words("soup", "heron")], lexicon)
    assert found[0].lexicon_share_input == 1
    assert found[1].lexicon_share_output == 1
    assert found[1].lexicon_share_input == 0
    assert found[2] == LexiconShares(0, 0)


def test_a_feature_that_fires_at_random_has_the_shares_of_all_tokens(lexicon):
    passages = sampled(written_passages(120))
    tokens = lexicon_tokens(AnnotatedPassages.of(passages, lexicon))
    visible = np.concatenate([one.offsets[:, 1] > one.offsets[:, 0] for one in passages]) & tokens.counted
    found = shares(passages, [at_random(0, share=0.5)], lexicon)[0]
    assert found.lexicon_share_input == pytest.approx(tokens.in_term[visible].mean(), abs=0.01)
    assert found.lexicon_share_output == pytest.approx(tokens.before_term[visible].mean(), abs=0.01)
    assert 0.02 < tokens.in_term[visible].mean() < 0.2


def test_a_term_of_several_words_and_tokens_is_one():
    """`interest` is followed by a part of a term, but not by its first token; so are the pieces of a word."""
    text = "They said the interest rate of any mortgage rose"
    whole = passage(text, Side.DOMAIN, Half.CONFIRMATION)
    start = text.index("mortgage")
    at = next(i for i, (_, end) in enumerate(whole.offsets) if end == start + len("mortgage"))
    offsets = [*whole.offsets[:at].tolist(), [start - 1, start + 4], [start + 4, start + 8]]
    offsets += whole.offsets[at + 1 :].tolist()
    pieces = replace(whole, offsets=np.array(offsets), token_ids=np.arange(len(offsets)), sampled=True)
    tokens = lexicon_tokens(AnnotatedPassages.of([pieces, replace(pieces, sampled=False)], OWN))
    words = [text[a:b].strip() for a, b in offsets] * 2
    assert [word for word, own in zip(words, tokens.in_term, strict=True) if own] == [
        *("interest", "rate", "mort", "gage")
    ] * 2
    assert [word for word, own in zip(words, tokens.before_term, strict=True) if own] == ["the", "any"] * 2
    assert tokens.counted.tolist() == [True] * len(offsets) + [False] * len(offsets)


def test_the_end_of_a_passage_is_not_followed_by_the_next_one():
    first, second = (passage(text, Side.DOMAIN, Half.CONFIRMATION) for text in ("They all went", "loan sharks"))
    bare = replace(second, offsets=second.offsets[1:], token_ids=second.token_ids[1:])  # no special token between
    tokens = lexicon_tokens(AnnotatedPassages.of([first, bare], OWN))
    assert not tokens.before_term.any()
    assert tokens.in_term.sum() == 1


def test_only_sampled_passages_of_the_confirmation_half_count():
    held_out, other, strongest = (
        passage(text, Side.DOMAIN, half)
        for text, half in (
            ("a loan and a tree", Half.CONFIRMATION),
            ("one tree or two trees", Half.DISCOVERY),
            ("a loan is a loan", Half.CONFIRMATION),
        )
    )
    plants = [on_words("loan", "tree"), on_words("two"), on(lambda word: False)]
    found = shares([*sampled([held_out, other]), strongest], plants, OWN)
    assert found == [LexiconShares(0.5, 0), NO_SHARES, NO_SHARES]
    nothing_held_back = sampled([replace(one, population=other.population) for one in (held_out, other)])
    assert shares(nothing_held_back, plants, OWN)[0] == LexiconShares(pytest.approx(1 / 3), 0)


def test_without_a_lexicon_of_the_domain_there_are_none():
    passages = sampled(written_passages(10))
    assert shares(passages, [on_words("mortgage")], load_lexicon("pottery")) == [NO_SHARES]
    assert shares(passages, [on_words("mortgage")], load_lexicon("financial"))[0].lexicon_share_input == 1


def test_passages_of_an_earlier_version_give_none():
    evidence = planted_evidence(written_passages(10), [on_words("mortgage")])
    assert [report.lexicon for report in reports_of(evidence, OWN)[LAYER]] == [NO_SHARES]
