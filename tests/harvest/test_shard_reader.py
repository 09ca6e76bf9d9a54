"""The harvest equals its definition, however passages are batched, ordered and cut into shards."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import naive_harvest as naive
import numpy as np
import pytest
import torch
from synthetic import POPULATIONS
from threads import one_thread
from tiny import TINY_LATENTS, write_sae
from tokenizers.processors import TemplateProcessing

from stratalens.corpus.builtin import text_file
from stratalens.corpus.survey import DocumentRow
from stratalens.errors import ModelError
from stratalens.files.hashing import hash64
from stratalens.harvest import chunks as chunks_module
from stratalens.harvest import shards as shards_module
from stratalens.harvest.chunks import chunks
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard, ShardTask, cut_shards
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.harvest.state.layer_state import (
    LayerState,
    fold,
    pack_state,
    unpack_state,
)
from stratalens.harvest.state.passage_values import _deterministic_sums
from stratalens.harvest.state.statistics import HISTOGRAM_BINS as BINS
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import EXAMPLES_KEPT, TopExamples
from stratalens.hookpoint import Hookpoint
from stratalens.models import tokens as tokens_module
from stratalens.models.loading import Placement, load_model
from stratalens.models.streams import Division, Streams
from stratalens.models.token_classes import vocabulary_classes
from stratalens.models.tokens import PassageCutter
from stratalens.saes.formats.sparsify import load
from stratalens.saes.probe import Probe

LENGTH = 24
FIRST, INPUT, LAST = LAYERS = Hookpoint(0), Hookpoint(1, "resid", "in"), Hookpoint(2)
EXACT = {"latents", "passages", "tokens", "countable_positions", "positions", "passages_fired", "positions_fired"}
SINKS = 39
"""Positions of each layer whose norm is made to exceed the limit."""
LONG = 3
"""Index of a document of many passages."""


def document_rows() -> list[DocumentRow]:
    """Two dozen texts of many lengths, one with special tokens in it, two of one document, a few not sampled."""
    lines = text_file("general").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"][: 15 + 9 * n] for n, line in enumerate(lines[:24])]
    texts[LONG] = json.loads(lines[30])["text"]
    texts[5] = "In 2019 <|pad|> it cost £5.50 <|endoftext|>, or 12% more, in Paris."
    documents = [7 if n in (7, 11) else n for n in range(len(texts))]
    return [
        DocumentRow(text, hash64(text), hash64("document", number), number % POPULATIONS, number % 6 != 4)
        for text, number in zip(texts, documents, strict=True)
    ]


Harvest = dict[Hookpoint, LayerState]
ALONE = Division(streams=1, threads=1, ahead=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@dataclass(frozen=True)
class Setting:
    """Everything that a harvest needs, and what it should give."""

    model_directory: Path
    tokenizer: object
    model: torch.nn.Module
    cutter: PassageCutter
    token_classes: torch.Tensor
    rows: list[DocumentRow]
    probes: list[Probe]
    hooked_saes: dict[Hookpoint, naive.HookedSae]
    passages: dict[Hookpoint, list[naive.EncodedPassage]]
    division: Division = ALONE

    def reader(self, batch_tokens: int = 1024, **callbacks) -> ShardReader:
        probes = {probe.hookpoint: probe for probe in self.probes}
        return ShardReader(
            Streams.of(self.model, self.division),
            probes,
            self.cutter,
            self.token_classes,
            batch_tokens,
            **callbacks,
        )

    def cut(self, rows: Iterable[DocumentRow] | None = None, characters: int = 10**9) -> list[Shard]:
        return list(cut_shards(self.rows if rows is None else rows, characters, POPULATIONS))

    def harvest(self, shards: list[Shard] | None = None, batch_tokens: int = 1024) -> "Harvest":
        """The states of all shards, merged as in a run."""
        read = self.read(self.cut() if shards is None else shards, self.reader(batch_tokens))
        return {layer: fold(states[layer] for states in read) for layer in LAYERS}

    def read(self, shards: Iterable[Shard], reader: ShardReader | None = None) -> list["Harvest"]:
        """The states of each shard."""
        reader = self.reader() if reader is None else reader
        return [read.states for read in reader.read(ShardTask(shard, LAYERS) for shard in shards)]


@pytest.fixture(scope="module")
def setting(tiny_model, tokenizer, tmp_path_factory) -> Setting:
    root = tmp_path_factory.mktemp("harvest saes")
    low = {"encoder.bias": torch.linspace(-40.0, 0.0, TINY_LATENTS)}
    folders = {
        FIRST: write_sae(root / "layers.0", seed=0),
        INPUT: write_sae(root / "layers.1", seed=1, config={"transcode": True, "activation": "groupmax"}),
        LAST: write_sae(root / "layers.2", seed=2, config={"k": 48}, **low),  # pyright: ignore[reportArgumentType]
    }
    rows = document_rows()
    readings = naive.read(tiny_model, tokenizer, rows, LENGTH, ([], []))
    hooked_saes, passages = {}, {}
    for layer, folder in folders.items():
        anything = naive.HookedSae(folder, layer.block + (layer != INPUT), np.inf)
        norms = np.sort(
            np.concatenate([np.linalg.norm(one.hidden, axis=1) for one in naive.encode(readings, anything)])
        )
        hooked_saes[layer] = replace(anything, norm_limit=float(norms[-SINKS - 1 :][:2].mean()))
        passages[layer] = naive.encode(readings, hooked_saes[layer])
    return Setting(
        model_directory=tiny_model,
        tokenizer=tokenizer,
        model=load_model(tiny_model, blocks=3, placement=Placement(torch.device("cpu"), torch.float32)),
        cutter=PassageCutter(tokenizer, LENGTH),
        token_classes=torch.from_numpy(vocabulary_classes(tokenizer)),
        rows=rows,
        probes=[Probe(n, Hookpoint(n.block), load(folders[n]), hooked_saes[n].norm_limit) for n in LAYERS],
        hooked_saes=hooked_saes,
        passages=passages,
    )


@pytest.fixture(scope="module")
def reference(setting) -> Harvest:
    return setting.harvest()


def documents(one: Harvest, layer: Hookpoint) -> DocumentMatrix:
    return one[layer].documents.matrix(TINY_LATENTS)


def statistics(one: Harvest, layer: Hookpoint) -> FeatureStats:
    return one[layer].stats.for_latents(np.arange(TINY_LATENTS))


def assert_same_statistics(got: FeatureStats, expected: Mapping[str, np.ndarray]) -> None:
    """Counts are equal, sums of floats within rounding; rounding may move a passage or two to another bin."""
    for field in fields(FeatureStats):
        x, y = getattr(got, field.name), expected[field.name]
        if field.name == "histogram":
            x, y = (
                one if isinstance(one, np.ndarray) else one.toarray().reshape(POPULATIONS, -1, BINS) for one in (x, y)
            )
            assert np.array_equal(x.sum(2), y.sum(2))
            assert np.abs(x.cumsum(2) - y.cumsum(2)).sum() <= 2
        else:
            tolerance = 0 if field.name in EXACT else 1e-4
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=field.name)


def assert_same(a: Harvest, b: Harvest) -> None:
    """Counts and locations are equal, sums of floats within rounding."""
    for layer in LAYERS:
        assert_same_statistics(statistics(a, layer), vars(statistics(b, layer)))
        assert_same_examples(a[layer].examples, b[layer].examples)
        assert_same_documents(documents(a, layer), documents(b, layer))


TIE = 1e-4
"""Rounding may swap activations this close: passages with the same beginning have the same activations there."""


def assert_same_examples(a: TopExamples, b: TopExamples) -> None:
    """The same values; and the same passages, except among those that tie with the weakest one kept."""
    assert np.array_equal(a.cell, b.cell)
    np.testing.assert_allclose(a.value, b.value, rtol=TIE, atol=TIE)
    for cell in np.unique(a.cell):
        rows = a.cell == cell
        weakest = a.value[rows].min() * (1 + TIE) + TIE
        one, other = ({row[:3] for row in rows_of(examples, rows) if row[3] > weakest} for examples in (a, b))
        assert one == other


def rows_of(examples: TopExamples, rows: np.ndarray) -> list[tuple[int, int, int, float]]:
    """Content, start, end and value of some rows."""
    columns = (examples.content, examples.start, examples.end, examples.value)
    return list(zip(*(column[rows].tolist() for column in columns), strict=True))


def assert_same_documents(a: DocumentMatrix, b: DocumentMatrix) -> None:
    for name in ("document", "population", "passages", "positions"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    np.testing.assert_allclose(a.values.toarray(), b.values.toarray(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(a.residual, b.residual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_statistics_equal_a_naive_count_over_single_passages(setting, reference, layer):
    expected = naive.statistics(setting.passages[layer], setting.tokenizer)
    assert expected["positions"].sum() == expected["countable_positions"].sum() - SINKS
    assert_same_statistics(statistics(reference, layer), expected)
    assert (expected["class_mass"].sum((0, 1)) > 0).all(), "every class of token is among the cases"
    assert 0 < expected["early_mass"].sum() < expected["activation_sum"].sum()
    assert (expected["passages_fired"].sum(0) == 0).any() == (layer == LAST), "some latents of one layer are dead"


@pytest.mark.parametrize("layer", LAYERS)
def test_examples_equal_those_of_a_naive_search(setting, reference, layer):
    examples = reference[layer].examples
    for population in range(POPULATIONS):
        for latent in range(TINY_LATENTS):
            expected = naive.top_examples(setting.passages[layer], population, latent)
            rows = np.flatnonzero((examples.population == population) & (examples.latent == latent))
            strongest = [one[0] for one in expected[:EXAMPLES_KEPT]]
            np.testing.assert_allclose(examples.value[rows], strongest, rtol=TIE, atol=TIE)
            values = {one[1:]: one[0] for one in expected}
            found = rows_of(examples, rows)
            assert len({one[:3] for one in found}) == len(found)
            for *location, value in found:
                assert values[tuple(location)] == pytest.approx(value, rel=TIE, abs=TIE)


@pytest.mark.parametrize("layer", LAYERS)
def test_document_values_equal_naive_means_over_the_passages_of_each_sampled_document(setting, reference, layer):
    matrix = documents(reference, layer)
    sampled = sorted({row.document for row in setting.rows if row.sampled})
    assert len(sampled) < len({row.document for row in setting.rows})
    assert matrix.document.tolist() == sampled
    dense = matrix.values.toarray()
    for index, document in enumerate(sampled):
        own = [one for one in setting.passages[layer] if one.row.document == document]
        assert matrix.population[index] == own[0].row.population
        assert matrix.passages[index] == len(own)
        assert matrix.positions[index] == sum(len(one.countable) for one in own)
        np.testing.assert_allclose(dense[index], np.mean([one.mean for one in own], 0), rtol=1e-4, atol=1e-4)
        residual = np.mean([one.mean_hidden for one in own], 0)
        np.testing.assert_allclose(matrix.residual[index], residual, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_sums_on_a_gpu_are_deterministic_and_the_mode_of_the_caller_stays(gpu, before):
    def mode() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    enabled, warn_only = before
    try:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        with _deterministic_sums(torch.device("cuda" if gpu else "cpu")):
            assert mode() == (gpu or enabled, warn_only)
        assert mode() == before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_refused_and_not_left_out_as_a_sink(setting, value):
    model = copy.deepcopy(setting.model)

    def overflow(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        output[0, -1] = value
        return output

    model.get_submodule("layers.2").register_forward_hook(overflow)
    with pytest.raises(ModelError, match=r"^the activations at layer 2 are not finite on some .*; use --dtype float32"):
        replace(setting, model=model).harvest()


def test_padding_that_is_not_finite_changes_nothing(setting, reference):
    model = copy.deepcopy(setting.model)

    def overflow(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        output[:, 0] = float("inf")
        return output

    model.get_submodule("layers.2").register_forward_hook(overflow)
    assert_same(replace(setting, model=model).harvest(), reference)


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_size_of_batches_does_not_matter(setting, reference, batch_tokens):
    assert_same(setting.harvest(batch_tokens=batch_tokens), reference)


def test_order_of_documents_does_not_matter(setting, reference):
    order = np.random.default_rng(0).permutation(len(setting.rows))
    assert_same(setting.harvest(setting.cut([setting.rows[n] for n in order])), reference)


@pytest.mark.parametrize("characters", [1, 500])
def test_small_shards_equal_one_shard(setting, reference, characters):
    shards = setting.cut(characters=characters)
    assert len(setting.cut()) == 1
    assert len(shards) > 5
    assert_same(setting.harvest(shards), reference)


@pytest.mark.parametrize("chunk_tokens", [1, 150])
def test_small_chunks_equal_one_chunk(setting, reference, monkeypatch, chunk_tokens):
    assert len(list(chunks(setting.cut()[0], setting.cutter))) == 1
    monkeypatch.setattr(chunks_module, "CHUNK_TOKENS", chunk_tokens)
    assert len(list(chunks(setting.cut()[0], setting.cutter))) > 5
    assert_same(setting.harvest(), reference)


def test_a_document_of_many_passages_over_many_shards_is_one_row_with_the_mean_of_its_passages(setting, monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_PIECE_CHARACTERS", 150)
    row = setting.rows[LONG]
    shards = setting.cut([row], characters=100)
    own = [one for one in setting.passages[FIRST] if one.row is row]
    cut = setting.harvest(shards)
    assert len(shards) >= 3
    assert [shard.rows for shard in shards] == [0] * (len(shards) - 1) + [1]
    matrix = documents(cut, FIRST)
    assert matrix.document.tolist() == [row.document]
    assert matrix.passages.tolist() == [cut[FIRST].stats.passages.sum()]
    assert cut[FIRST].stats.passages.sum() >= len(own)
    assert len(cut[FIRST].documents.document) == len(shards)
    joined = cut[FIRST].stats.for_latents(np.arange(TINY_LATENTS)).mean_sum.sum(0) / cut[FIRST].stats.passages.sum()
    np.testing.assert_allclose(matrix.values.toarray()[0], joined, rtol=1e-4, atol=1e-4)


def test_shards_contain_every_character_once_and_count_each_row_where_it_ends(setting, monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_PIECE_CHARACTERS", 150)
    shards = setting.cut(characters=400)
    assert len(shards) > 5
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert sum(shard.rows for shard in shards) == len(setting.rows)
    together = [piece for shard in shards for piece in shard.pieces]
    for row in setting.rows:
        own = [piece for piece in together if piece.content == row.content]
        assert "".join(piece.text for piece in own) == row.text
        assert [piece.start for piece in own] == np.cumsum([0, *(len(piece.text) for piece in own[:-1])]).tolist()
        assert {(piece.document, piece.population, piece.sampled) for piece in own} == {row[2:]}
    assert all(sum(len(piece.text) for piece in shard.pieces) >= 400 for shard in shards[:-1])


def test_chunks_contain_every_passage_once(setting):
    read = [tuple(sequence) for chunk in chunks(setting.cut()[0], setting.cutter) for sequence in chunk.sequences]
    assert read == [tuple(one.ids) for one in setting.passages[FIRST]]


def test_the_digest_of_a_shard_depends_on_its_pieces_and_on_nothing_else(setting):
    shard = setting.cut()[0]
    same = shard._replace(number=7, pieces=tuple(piece._replace(text=piece.text) for piece in shard.pieces))
    assert same.digest() == shard.digest()
    digests = {shard.digest()}
    first = shard.pieces[0]
    changes = [("content", 1), ("document", 1), ("population", 3 - first.population), ("start", 1), ("ends_row", False)]
    for name, value in [*changes, ("sampled", not first.sampled), ("text", first.text + "x")]:
        digests.add(shard._replace(pieces=(first._replace(**{name: value}), *shard.pieces[1:])).digest())
    digests.add(shard._replace(pieces=shard.pieces[1:]).digest())
    digests.add(shard._replace(pieces=(shard.pieces[1], first, *shard.pieces[2:])).digest())
    assert len(digests) == 10


@pytest.mark.parametrize(
    ("corpus", "shard"),
    [(0, 2**16), (10**6, 2**16), (2**24, 2**16), (2**24 + 512, 2**17), (10**9, 2**22), (10**12, 2**24)],
)
def test_large_corpora_have_large_shards_within_bounds(corpus, shard):
    assert shards_module.shard_characters(corpus) == shard


@pytest.mark.parametrize("chunk_tokens", [1, 60, 100_000])
def test_progress_reports_every_token_and_every_row_once(setting, monkeypatch, chunk_tokens):
    monkeypatch.setattr(chunks_module, "CHUNK_TOKENS", chunk_tokens)
    tokens, rows = [], []
    (states,) = setting.read(setting.cut(), setting.reader(200, on_batch=tokens.append, on_rows=rows.append))
    state = states[FIRST]
    assert sum(tokens) == state.stats.tokens.sum() == sum(len(one.ids) for one in setting.passages[FIRST])
    assert state.stats.passages.sum() == len(setting.passages[FIRST])
    assert sum(rows) == len(setting.rows)


def test_nothing_fires_where_every_position_is_a_sink_and_passages_still_count(setting, reference):
    all_sinks = replace(setting, probes=[replace(probe, norm_limit=0.0) for probe in setting.probes])
    nothing = all_sinks.harvest()
    for layer in LAYERS:
        stats, before = nothing[layer].stats, reference[layer].stats
        assert np.array_equal(stats.passages, before.passages)
        assert np.array_equal(stats.countable_positions, before.countable_positions)
        assert not stats.positions.any()
        assert not stats.norm_sum.any()
        assert len(stats.latents) == 0
        assert len(nothing[layer].examples.value) == 0
        assert documents(nothing, layer).values.nnz == 0


def test_the_state_of_a_shard_without_passages_changes_nothing(setting, reference):
    first = setting.cut()[0]
    nothing = first._replace(number=1, pieces=(first.pieces[0]._replace(text=" "),))
    states = setting.read((nothing, first, nothing))
    for layer in LAYERS:
        assert states[0][layer].stats.passages.sum() == 0
        folded = fold(state[layer] for state in states)
        assert pack_state(folded) == pack_state(reference[layer])


def test_special_tokens_around_and_inside_a_passage_never_count(setting):
    tokenizer = copy.deepcopy(setting.cutter.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<|endoftext|> $A <|pad|>", special_tokens=[("<|endoftext|>", 0), ("<|pad|>", 1)]
    )
    framed = replace(setting, cutter=PassageCutter(tokenizer, LENGTH)).harvest()
    readings = naive.read(setting.model_directory, tokenizer, setting.rows, LENGTH, ([0], [1]))
    read = naive.encode(readings, setting.hooked_saes[FIRST])
    expected = naive.statistics(read, tokenizer)
    tokens = sum(len(one.ids) for one in read)
    assert framed[FIRST].stats.tokens.sum() == tokens
    assert expected["countable_positions"].sum() == tokens - 2 * len(read) - 2
    stats = statistics(framed, FIRST)
    for name in ("countable_positions", "positions", "positions_fired"):
        assert np.array_equal(getattr(stats, name), expected[name]), name
    np.testing.assert_allclose(stats.class_mass, expected["class_mass"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats.early_mass, expected["early_mass"], rtol=1e-4, atol=1e-4)


def test_two_harvests_of_the_same_text_are_identical(setting, reference):
    again = setting.harvest()
    assert {layer: pack_state(again[layer]) for layer in LAYERS} == {
        layer: pack_state(reference[layer]) for layer in LAYERS
    }


@pytest.mark.parametrize("chunk_tokens", [60, 100_000])
@pytest.mark.parametrize("shard_characters", [200, 10**9])
@pytest.mark.parametrize("streams", [1, 2])
def test_batches_read_ahead_and_beside_each_other_give_the_same_states(
    setting, monkeypatch, chunk_tokens, shard_characters, streams
):
    monkeypatch.setattr(chunks_module, "CHUNK_TOKENS", chunk_tokens)
    shards = setting.cut(characters=shard_characters)
    alone = setting.reader(200)
    beside = replace(setting, division=Division(streams, 1, ahead=True)).reader(200 * streams, layers_at_once=3)
    expected = [{layer: pack_state(states[layer]) for layer in LAYERS} for states in setting.read(shards, alone)]
    found = [{layer: pack_state(states[layer]) for layer in LAYERS} for states in setting.read(shards, beside)]
    assert found == expected
    assert len(found) == len(shards)


def test_a_layer_read_alone_has_the_same_state_as_one_read_among_others(setting, reference):
    for layer in LAYERS:
        (alone,) = setting.reader().read([ShardTask(setting.cut()[0], (layer,))])
        assert pack_state(alone.states[layer]) == pack_state(reference[layer])


def test_a_packed_state_unpacks_unchanged(reference):
    for layer in LAYERS:
        again = unpack_state(pack_state(reference[layer]))
        for part in ("stats", "examples", "documents"):
            before, after = getattr(reference[layer], part), getattr(again, part)
            for field in fields(before):
                x, y = getattr(before, field.name), getattr(after, field.name)
                if field.name == "histogram":
                    x, y = x.toarray(), y.toarray()
                assert x.dtype == y.dtype, field.name
                assert np.array_equal(x, y), field.name
