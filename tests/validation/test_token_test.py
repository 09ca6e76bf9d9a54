"""The token test tells planted latents apart: those of tokens, of context, of both, and silent ones."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from planted_latents import (
    CUE,
    HALF_TOKENS,
    LATENTS,
    ORDINARY,
    OWN_TOKENS,
    PLACE,
    VOCABULARY,
    PlantedReader,
    general_text,
    planted_evidence,
)
from scipy import stats

from stratalens.corpus import Half, Side
from stratalens.corpus.sense_pairs import SensePair
from stratalens.models import PassageCutter
from stratalens.progress import Advance, NoProgress
from stratalens.validation.injection import Piece, ValueStore, describe_work, pack_values, read_pieces, unpack_values
from stratalens.validation.masking import Terms
from stratalens.validation.ngrams import strongest_ngrams
from stratalens.validation.other_senses import PairSentences, other_senses, pair_sentences
from stratalens.validation.snippets import CONTROLS, PASTED, SNIPPET_TOKENS
from stratalens.validation.token_test import TokenSet, TokenTest, TokenTestText
from stratalens.validation.token_verdicts import TokenTestScore, cohens_d, welch_p

SEEDS = range(6)
TOKENS = TokenSet(
    ordinary_ids=np.arange(1, VOCABULARY),
    special_ids=frozenset([0]),
    frame=lambda ids: np.asarray(ids, np.int64),
    show=lambda ids: " ".join(map(str, ids)),
)


def planted(seed: int) -> TokenTest:
    rng = np.random.default_rng([seed, 5])
    snippets = [general_text(rng, SNIPPET_TOKENS) for _ in range(CONTROLS)]
    return TokenTest(TokenTestText(planted_evidence(rng), True, snippets, None, PairSentences([], []), seed), TOKENS)


def with_text(test: TokenTest, **changes: object) -> TokenTest:
    return TokenTest(replace(test.text, **changes), test.tokens)


def judged(test: TokenTest, store: ValueStore, reader: PlantedReader | None = None) -> dict[int, TokenTestScore]:
    values = read_pieces(test.pieces, reader or PlantedReader(), store, NoProgress())
    return test.scores(values)[PLACE]


@pytest.fixture
def store(tmp_path) -> ValueStore:
    return ValueStore(tmp_path, {PLACE: "planted"})


def test_planted_latents_are_told_apart(store):
    found = [judged(planted(seed), store) for seed in SEEDS]
    verdicts = {latent: Counter(own[latent].verdict for own in found) for latent in LATENTS}
    assert verdicts[0] == {"token-driven": len(SEEDS)}
    assert verdicts[1] == {"context": len(SEEDS)}
    assert verdicts[2]["mostly tokens"] > len(SEEDS) / 2
    assert verdicts[2]["context"] == 0
    assert 0.5 < np.mean([own[2].d for own in found]) < 0.8
    assert verdicts[3] == {"undecided": len(SEEDS)}
    assert {(own[3].d, own[3].p_value) for own in found} == {(0, 1)}


def test_the_tokens_that_fire_are_those_that_are_pasted():
    test = planted(0)
    ngrams = strongest_ngrams(test.text.evidence, Half.DISCOVERY, TOKENS.special_ids)[PLACE]
    assert {ngram[0] for ngram in ngrams[0][1]} == set(OWN_TOKENS)
    assert {ngram[0] for ngram in ngrams[1][1]} == set(ORDINARY)
    assert {ngram[0] for ngram in ngrams[2][1]} == set(HALF_TOKENS)
    assert all(ngram[-1] in OWN_TOKENS for size in (2, 3) for ngram in ngrams[0][size])
    assert ngrams[3] == {}
    shared, *own = test.pieces
    assert len(shared.sequences) == CONTROLS
    assert {len(sequence) for sequence in shared.sequences} == {SNIPPET_TOKENS + 6}
    of_tokens = own[0].sequences[:PASTED]
    assert all(np.isin(sequence, OWN_TOKENS).sum() >= 3 for sequence in of_tokens)
    assert len({sequence.tobytes() for sequence in of_tokens}) == PASTED


def test_ngrams_come_from_the_half_that_chooses():
    """What a feature does on the confirmation half changes nothing that is pasted."""
    test = planted(1)
    layer = test.text.evidence.layers[PLACE]
    owner = np.repeat([passage.half for passage in test.text.evidence.passages], np.diff(test.text.evidence.starts))
    blind = replace(layer, activations=layer.activations.multiply((owner == Half.DISCOVERY)[:, None]).tocsc())
    evidence = replace(test.text.evidence, layers={PLACE: blind})
    choose = lambda own: strongest_ngrams(own, Half.DISCOVERY, TOKENS.special_ids)  # noqa: E731
    assert choose(evidence) == choose(test.text.evidence)


def test_a_feature_that_fires_nowhere_on_its_own_passages_is_undecided(store):
    """A small effect alone is not context: the feature must fire on its own passages as they are read here."""
    test = planted(2)
    scores = judged(test, store)
    assert scores[1].verdict == "context"

    class Deaf(PlantedReader):
        def read(self, piece: Piece, advance: Advance):
            return {place: 0 * own for place, own in super().read(piece, advance).items()}

    deaf = judged(test, ValueStore(store.folder, {PLACE: "deaf"}), Deaf())
    assert {score.verdict for score in deaf.values()} == {"undecided"}
    assert deaf[1].own_active_share == 0


def test_random_tokens_are_as_frequent_as_the_pasted_ones():
    test = planted(3)
    general = [passage.token_ids for passage in test.text.evidence.passages if passage.side == Side.GENERAL]
    counts = np.bincount(np.concatenate(general), minlength=VOCABULARY)
    shared = test.pieces[0]
    snippets = np.concatenate(list(test.text.snippets))
    drawn = np.bincount(np.concatenate(shared.sequences), minlength=VOCABULARY)
    drawn -= np.bincount(snippets, minlength=VOCABULARY)
    assert drawn.sum() == 6 * CONTROLS
    ngrams = strongest_ngrams(test.text.evidence, Half.DISCOVERY, TOKENS.special_ids)[PLACE]
    pasted = [i for by_size in ngrams.values() for size in by_size.values() for ngram in size for i in ngram]
    share_unseen = np.mean(counts[pasted] == 0)
    assert drawn[counts == 0].sum() / drawn.sum() == pytest.approx(share_unseen, abs=0.05)
    assert drawn[0] == 0


def test_masked_terms_take_away_what_fires_on_them_and_nothing_else(store):
    test = planted(4)
    passages = test.text.evidence.passages
    ids = np.concatenate([passage.token_ids for passage in passages])
    sampled = frozenset(passage.location.content for passage in passages)
    by_terms = {}
    for name, terms in (("own", OWN_TOKENS), ("cue", np.array([CUE]))):
        masked = with_text(test, terms=Terms(np.isin(ids, terms), sampled))
        by_terms[name] = judged(masked, store)
        for sequence, number in zip(masked.masked.sequences, masked.masked.numbers, strict=True):
            before = passages[number].token_ids
            assert not np.isin(sequence, terms).any()
            assert (sequence == before)[~np.isin(before, terms)].all()
    assert by_terms["own"][0].masked_share_kept == 0
    assert by_terms["own"][1].masked_share_kept == 1
    assert by_terms["cue"][0].masked_share_kept == 1
    assert by_terms["cue"][1].masked_share_kept == 0
    assert by_terms["own"][3].masked_share_kept is None


def test_pairs_of_senses_are_counted_on_their_word(store):
    rng = np.random.default_rng(0)
    sentences = [general_text(rng, 20) for _ in range(8)]
    for number in (0, 2, 3):  # both sentences of the second pair have the token
        sentences[number][5] = OWN_TOKENS[0]
    sentences[6][9] = OWN_TOKENS[0]  # beside the word of the fourth pair
    of_word = [np.arange(20) == 5 for _ in sentences]
    scores = judged(with_text(planted(5), pairs=PairSentences(sentences, of_word)), store)
    assert (scores[0].pairs_fired, scores[0].pairs_silent) == (2, 1)
    assert (scores[3].pairs_fired, scores[3].pairs_silent) == (0, 0)
    maxima = np.array([[1.0, 0], [0, 0], [2, 1], [2, 0]])
    assert other_senses(maxima) == [(2, 1), (1, 1)]


class Stopping(NoProgress):
    """Raises as Ctrl-C does, after so many reports."""

    def __init__(self, reports: int):
        self.left = reports

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        def advance(_rows: int, _tokens: int) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        yield advance


def test_what_was_read_is_not_read_again(tmp_path):
    test = planted(0)
    reader = PlantedReader()
    whole = judged(test, ValueStore(tmp_path / "whole", {PLACE: "planted"}))
    with pytest.raises(KeyboardInterrupt):
        read_pieces(test.pieces, reader, ValueStore(tmp_path / "stopped", {PLACE: "planted"}), Stopping(2))
    store, rest = ValueStore(tmp_path / "stopped", {PLACE: "planted"}), PlantedReader()
    assert "were read before" in describe_work(test.pieces, store, None)
    assert judged(test, store, rest) == whole
    assert rest.sequences_read == sum(len(piece.sequences) for piece in test.pieces[2:])
    unpacked = {PLACE: unpack_values(pack_values(store.used[PLACE]))}
    again, nothing = ValueStore(tmp_path / "new", {PLACE: "planted"}, unpacked), PlantedReader()
    assert judged(test, again, nothing) == whole
    assert nothing.sequences_read == 0
    assert again.digest() == store.digest()
    other = PlantedReader()
    judged(test, ValueStore(tmp_path / "stopped", {PLACE: "another model"}), other)
    assert other.sequences_read == sum(len(piece.sequences) for piece in test.pieces)


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}x\n", b'{"a": [1, 2]}\n\0\0\0\0', b'{"a": [-1, -1]}\n\0\0\0\0', b'{"a": 3}\n', b"[]\n", b"[" * 9999],
)
def test_values_that_no_test_writes_are_refused(packed):
    with pytest.raises(ValueError, match=r"."):
        unpack_values(packed)


def test_effect_and_p_value_are_those_of_the_books():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.7, 1.4, 64), rng.normal(0, 1, 256)
    pooled = np.sqrt((63 * x.var(ddof=1) + 255 * y.var(ddof=1)) / 318)
    effect = cohens_d(x, y)
    assert effect.d == pytest.approx((x.mean() - y.mean()) / pooled)
    width = 1.959964 * np.sqrt(320 / (64 * 256) + effect.d**2 / 640)
    assert (effect.low, effect.high) == pytest.approx((effect.d - width, effect.d + width))
    assert welch_p(x, y) == pytest.approx(stats.ttest_ind(x, y, equal_var=False, alternative="greater").pvalue)
    silent, ones = np.zeros(256), np.ones(64)
    assert cohens_d(ones, silent) == (np.inf, np.inf, np.inf)
    assert (welch_p(ones, silent), welch_p(silent, ones), welch_p(silent, silent)) == (0, 1, 1)
    assert cohens_d(silent[:64], silent).high < 0.5  # so many snippets tell 0 from 0.5


def test_the_word_of_a_pair_is_found_among_the_tokens(tokenizer):
    cutter = PassageCutter(tokenizer, 64, min_length=4)
    pairs = [
        SensePair("bank", "The loan came from the bank.", "We sat on the bank of the river, a bank of mud."),
        SensePair("bank", "bank", "bank"),
    ]
    found = pair_sentences(pairs, cutter)
    assert len(found.sequences) == len(found.of_word) == 2  # the second pair is too short
    for sentence, sequence, of_word in zip(pairs[0][1:], found.sequences, found.of_word, strict=True):
        assert len(sequence) == len(of_word)
        words = cutter.token_text([int(i) for i in sequence[of_word]])
        assert words.replace(" ", "") == "bank" * sentence.count("bank")
