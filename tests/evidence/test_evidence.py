"""The second pass equals encoding every token by itself, for the given features only."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from planted import LAYER, at_random, planted_evidence, written_passages
from threads import one_thread
from tiny import TINY_LATENTS, write_sae

from stratalens.corpus.populations import Population, Populations
from stratalens.evidence.evidence import Evidence, first_tokens
from stratalens.evidence.passage_reader import PassageReader
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.models.loading import Placement, load_model
from stratalens.models.tokens import PassageCutter
from stratalens.saes.activations import Threshold
from stratalens.saes.formats.sparsify import load
from stratalens.saes.probe import Probe
from stratalens.saes.steps import Linear

LAYERS = Hookpoint(0), Hookpoint(2)
TEXTS = [
    "In 2019 <file_sep> it cost £5.50 <|endoftext|>, or 12% more, in Paris.",
    "The bank raised its rate by 3.5%, and bonds fell sharply.  Nobody in Zürich had expected it.",
    "Short words only.",
    "<|pad|>The heron waited in the reeds while 😀 the sparrow sang.\n\nIts nest was made of twigs, and of hair.",
]
FEATURES = {Hookpoint(0): [63, 5, 17, 40, 2], Hookpoint(2): [0, 31]}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@dataclass(frozen=True)
class Setting:
    """A model with probes and passages, and every latent of every token by itself."""

    model: torch.nn.Module
    probes: list[Probe]
    passages: list[Passage]
    special_ids: frozenset[int]
    naive: dict[Hookpoint, np.ndarray]
    """Hookpoint -> `[token, latent]`, without exception."""
    norms: dict[Hookpoint, np.ndarray]

    def read(self, features=FEATURES, probes=None, batch_tokens=64, **options) -> Evidence:
        reader = PassageReader(self.model, self.passages, self.special_ids, batch_tokens, **options)
        return reader.read([probes or self.probes], features)

    def counts(self) -> np.ndarray:
        """Whether each token counts: neither first nor special."""
        flags = [
            at > 0 and number not in self.special_ids
            for one in self.passages
            for at, number in enumerate(one.token_ids)
        ]
        return np.array(flags)


@pytest.fixture(scope="module")
def setting(tiny_model, tokenizer, tmp_path_factory) -> Setting:
    root = tmp_path_factory.mktemp("evidence saes")
    model = load_model(tiny_model, blocks=3, placement=Placement(torch.device("cpu"), torch.float32))
    cutter = PassageCutter(tokenizer, 128, 2)
    passages = []
    for number, text in enumerate(TEXTS):
        (span,) = cutter.spans(text)
        location = PassageLocation(hash64(text), 0, len(text))
        population = Population.numbered(number % len(Populations()))
        passages.append(Passage(location, number, population, text, cutter.sequence(span), cutter.token_offsets(span)))
    probes, naive, norms = [], {}, {}
    for layer in LAYERS:
        folder = write_sae(root / f"layers.{layer}", seed=layer.block)
        sae = load(folder)
        probes.append(Probe(layer, layer, sae, float("inf")))
        vectors = torch.cat([block_output(model, layer, one) for one in passages])
        rows = torch.zeros(len(vectors), TINY_LATENTS)
        for at, vector in enumerate(vectors):
            latents = sae.encode(vector[None])
            rows[at, latents.latent] = latents.value
        naive[layer], norms[layer] = rows.numpy(), vectors.norm(dim=1).numpy()
    return Setting(model, probes, passages, cutter.special_ids, naive, norms)


@torch.inference_mode()
def block_output(model: torch.nn.Module, layer: Hookpoint, one: Passage) -> torch.Tensor:
    """Output of a block on a passage that is alone in its batch, `[seq, d_model]`."""
    kept = []
    handle = model.get_submodule(f"layers.{layer}").register_forward_hook(
        lambda _module, _args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    model(input_ids=torch.from_numpy(one.token_ids)[None])
    handle.remove()
    return kept[0][0]


def dense(evidence: Evidence, layer: int) -> np.ndarray:
    return evidence.layers[layer].activations.toarray()


@pytest.mark.parametrize("batch_tokens", [16, 64, 4096])
def test_evidence_is_the_block_output_encoded_token_by_token(setting, batch_tokens):
    evidence = setting.read(batch_tokens=batch_tokens)
    counts = setting.counts()
    assert 0 < counts.sum() < len(counts)
    for layer, features in FEATURES.items():
        expected = np.where(counts[:, None], setting.naive[layer][:, features], 0)
        assert expected.any(0).sum() > 1, "features that fire are among the cases"
        assert np.allclose(dense(evidence, layer), expected, rtol=1e-4, atol=1e-5)


def test_only_the_given_features_have_columns_in_the_given_order(setting):
    evidence = setting.read()
    assert {layer: one.features.tolist() for layer, one in evidence.layers.items()} == FEATURES
    swapped = setting.read({LAYERS[0]: FEATURES[LAYERS[0]][::-1], LAYERS[1]: [31]})
    assert np.array_equal(dense(swapped, LAYERS[0]), dense(evidence, LAYERS[0])[:, ::-1])
    assert np.array_equal(dense(swapped, LAYERS[1]), dense(evidence, LAYERS[1])[:, [1]])


def test_first_positions_special_tokens_and_sinks_have_no_activation(setting):
    everything = {layer: list(range(TINY_LATENTS)) for layer in LAYERS}
    evidence = setting.read(everything)
    counts = setting.counts()
    for layer in LAYERS:
        assert setting.naive[layer][~counts].any(), "there is something to leave out"
        assert not dense(evidence, layer)[~counts].any()
        assert dense(evidence, layer)[counts].any(1).all()
    limit = float(np.median(setting.norms[LAYERS[0]]))
    probe = replace(setting.probes[0], norm_limit=limit)
    limited = dense(setting.read(everything, [probe]), LAYERS[0])
    kept = counts & (setting.norms[LAYERS[0]] <= limit)
    assert np.array_equal(limited.any(1), kept)
    assert np.allclose(limited[kept], dense(evidence, LAYERS[0])[kept])


def test_features_of_a_threshold_are_computed_alone_and_fire_as_among_all(setting, monkeypatch):
    threshold = Threshold(torch.full((TINY_LATENTS,), 0.5))
    probes = [replace(probe, sae=replace(probe.sae.encoder, activation=threshold)) for probe in setting.probes]
    everything = setting.read({layer: list(range(TINY_LATENTS)) for layer in LAYERS}, probes)
    computed = set()
    plain = Linear.__call__

    def counted(step: Linear, x: torch.Tensor) -> torch.Tensor:
        pre = plain(step, x)
        computed.add(pre.shape[1])
        return pre

    monkeypatch.setattr(Linear, "__call__", counted)
    some = setting.read(FEATURES, probes)
    assert computed == {len(features) for features in FEATURES.values()}
    for layer, features in FEATURES.items():
        assert dense(some, layer).any()
        np.testing.assert_allclose(dense(some, layer), dense(everything, layer)[:, features], rtol=1e-5, atol=1e-6)


def test_progress_counts_every_passage_and_token_once(setting):
    calls = []
    setting.read(on_batch=lambda passages, tokens: calls.append((passages, tokens)))
    assert len(calls) > 1
    assert np.array(calls).sum(0).tolist() == [len(TEXTS), sum(len(one.token_ids) for one in setting.passages)]


def test_a_layer_without_reported_features_has_no_columns(setting):
    evidence = setting.read({LAYERS[0]: [], LAYERS[1]: [31]})
    assert dense(evidence, LAYERS[0]).shape == (first_tokens(setting.passages)[-1], 0)
    assert evidence.maxima(LAYERS[0]).shape == evidence.means(LAYERS[0]).shape == (len(TEXTS), 0)


def test_loaded_evidence_equals_what_was_written(setting, tmp_path):
    evidence = setting.read()
    evidence.write(tmp_path / "evidence")
    loaded = Evidence.load(tmp_path / "evidence", LAYERS)
    assert [one.location for one in loaded.passages] == [one.location for one in evidence.passages]
    for layer in LAYERS:
        assert loaded.layers[layer].features.tolist() == FEATURES[layer]
        assert np.array_equal(dense(loaded, layer), dense(evidence, layer))
        assert loaded.layers[layer].activations.dtype == np.float32


@pytest.fixture(scope="module")
def sparse() -> Evidence:
    return planted_evidence(written_passages(5), [at_random(n, share) for n, share in enumerate((0.2, 0.01, 0.0, 1.0))])


def test_means_and_maxima_agree_with_a_loop(sparse):
    values, starts = dense(sparse, LAYER), sparse.starts
    means, maxima = sparse.means(LAYER), sparse.maxima(LAYER)
    for n, one in enumerate(sparse.passages):
        own = values[starts[n] : starts[n] + len(one.token_ids)]
        assert np.allclose(means[n], [sum(column) / len(column) for column in own.T.tolist()], rtol=1e-5)
        assert maxima[n].tolist() == [max(column) for column in own.T.tolist()]
    assert not maxima[:, 2].any()


def test_entries_and_tokens_of_a_feature_are_its_column(sparse):
    values, starts = dense(sparse, LAYER), sparse.starts
    for column in range(values.shape[1]):
        assert np.array_equal(sparse.layers[LAYER].dense(column), values[:, column])
        token, activation = sparse.layers[LAYER].entries(column)
        assert np.array_equal(np.sort(token), np.flatnonzero(values[:, column]))
        assert np.array_equal(activation, values[token, column])
        assert np.array_equal(sparse.tokens_of(LAYER, column, 3), values[starts[3] : starts[4], column])
