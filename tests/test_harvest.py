"""The harvest equals its definition, however passages are batched, ordered and cut into shards."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import naive_harvest as naive
import numpy as np
import pytest
import torch
from conftest import TINY_LATENTS, write_sae
from threads import one_thread
from tokenizers.processors import TemplateProcessing

from stratalens import harvest as harvest_module
from stratalens.checkpoints.sparsify import load_sae
from stratalens.corpora import POPULATIONS, DocumentRow
from stratalens.documents import DocumentMatrix, read_documents
from stratalens.embedded import DATA_DIRECTORY
from stratalens.examples import EXAMPLES_KEPT
from stratalens.harvest import Harvest, LayerProbe, harvest, shards
from stratalens.hashing import hash64
from stratalens.model import load_model
from stratalens.statistics import FeatureStats
from stratalens.tokens import PassageCutter
from stratalens.vocabulary import vocabulary_classes

LENGTH = 24
LAYERS = (0, 1, 2)
EXACT = {"passages", "countable_positions", "positions", "passages_fired", "positions_fired"}
SINKS = 39
"""Positions of each layer whose norm is made to exceed the limit."""
LONG = 3
"""Index of a document of many passages."""


def document_rows() -> list[DocumentRow]:
    """Two dozen texts of many lengths, one with special tokens in it, two of one document, a few not sampled."""
    lines = (DATA_DIRECTORY / "texts" / "general.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"][: 15 + 9 * n] for n, line in enumerate(lines[:24])]
    texts[LONG] = json.loads(lines[30])["text"]
    texts[5] = "In 2019 <|im_end|> it cost £5.50 <|endoftext|>, or 12% more, in Paris."
    documents = [7 if n in (7, 11) else n for n in range(len(texts))]
    return [
        DocumentRow(text, hash64(text), hash64("document", number), number % POPULATIONS, number % 6 != 4)
        for text, number in zip(texts, documents, strict=True)
    ]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@dataclass(frozen=True)
class Setting:
    """Everything a harvest takes, and what it should give."""

    model_directory: Path
    tokenizer: object
    model: torch.nn.Module
    cutter: PassageCutter
    token_classes: torch.Tensor
    rows: list[DocumentRow]
    probes: list[LayerProbe]
    places: dict[int, naive.Place]
    passages: dict[int, list[naive.Passage]]

    def harvest(self, directory: Path, rows: Iterable[DocumentRow] | None = None, batch_tokens: int = 1024) -> Harvest:
        directory.mkdir(exist_ok=True)
        return harvest(
            self.model,
            self.probes,
            self.rows if rows is None else rows,
            self.cutter,
            token_classes=self.token_classes,
            batch_tokens=batch_tokens,
            directory=directory,
        )


@pytest.fixture(scope="module")
def setting(tiny_model, tokenizer, tmp_path_factory) -> Setting:
    root = tmp_path_factory.mktemp("harvest saes")
    low = {"encoder.bias": torch.linspace(-40.0, 0.0, TINY_LATENTS)}
    folders = {
        0: write_sae(root / "layers.0", seed=0),
        1: write_sae(root / "layers.1", seed=1, config={"transcode": True, "activation": "groupmax"}),
        2: write_sae(root / "layers.2", seed=2, config={"k": 48}, **low),  # pyright: ignore[reportArgumentType]
    }
    rows = document_rows()
    readings = naive.read(tiny_model, tokenizer, rows, LENGTH, ([], []))
    places, passages = {}, {}
    for layer, folder in folders.items():
        anything = naive.Place(folder, layer if layer == 1 else layer + 1, np.inf)
        norms = np.sort(
            np.concatenate([np.linalg.norm(one.hidden, axis=1) for one in naive.encode(readings, anything)])
        )
        places[layer] = replace(anything, norm_limit=float(norms[-SINKS - 1 :][:2].mean()))
        passages[layer] = naive.encode(readings, places[layer])
    return Setting(
        model_directory=tiny_model,
        tokenizer=tokenizer,
        model=load_model(tiny_model, blocks=3, device=torch.device("cpu"), dtype=torch.float32),
        cutter=PassageCutter(tokenizer, LENGTH),
        token_classes=torch.from_numpy(vocabulary_classes(tokenizer)),
        rows=rows,
        probes=[LayerProbe(n, load_sae(folders[n], f"layers.{n}"), places[n].norm_limit) for n in LAYERS],
        places=places,
        passages=passages,
    )


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory) -> Harvest:
    return setting.harvest(tmp_path_factory.mktemp("reference"))


def documents(one: Harvest, layer: int) -> DocumentMatrix:
    return read_documents(one.document_files, layer, TINY_LATENTS)


def assert_same_statistics(got: FeatureStats, expected: Mapping[str, np.ndarray]) -> None:
    """Counts are equal, sums of floats within rounding; rounding may move a passage or two to another bin."""
    for field in fields(FeatureStats):
        x, y = getattr(got, field.name), expected[field.name]
        if field.name == "histogram":
            assert np.array_equal(x.sum(2), y.sum(2))
            assert np.abs(x.cumsum(2) - y.cumsum(2)).sum() <= 2
        else:
            tolerance = 0 if field.name in EXACT else 1e-4
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=field.name)


def assert_same(a: Harvest, b: Harvest) -> None:
    """Counts and places are equal, sums of floats within rounding."""
    assert (a.tokens, a.passages) == (b.tokens, b.passages)
    for layer in LAYERS:
        assert_same_statistics(a.layers[layer].stats, vars(b.layers[layer].stats))
        for name in ("content", "start", "end", "peak_token"):
            assert np.array_equal(getattr(a.layers[layer].examples, name), getattr(b.layers[layer].examples, name))
        np.testing.assert_allclose(a.layers[layer].examples.value, b.layers[layer].examples.value, rtol=1e-4, atol=1e-4)
        assert_same_documents(documents(a, layer), documents(b, layer))


def assert_same_documents(a: DocumentMatrix, b: DocumentMatrix) -> None:
    for name in ("document", "population", "passages", "positions"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    np.testing.assert_allclose(a.values.toarray(), b.values.toarray(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(a.residual, b.residual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_statistics_equal_a_naive_count_over_single_passages(setting, reference, layer):
    expected = naive.statistics(setting.passages[layer], setting.tokenizer)
    assert expected["positions"].sum() == expected["countable_positions"].sum() - SINKS
    assert_same_statistics(reference.layers[layer].stats, expected)
    assert (expected["class_mass"].sum((0, 1)) > 0).all(), "every class of token is among the cases"
    assert 0 < expected["early_mass"].sum() < expected["activation_sum"].sum()
    assert (expected["passages_fired"].sum(0) == 0).any() == (layer == 2), "some latents of one layer are dead"


@pytest.mark.parametrize("layer", LAYERS)
def test_examples_equal_those_of_a_naive_search(setting, reference, layer):
    examples = reference.layers[layer].examples
    for population in range(POPULATIONS):
        for latent in range(TINY_LATENTS):
            expected = naive.top_examples(setting.passages[layer], population, latent, EXAMPLES_KEPT)
            slots = [(population, latent, slot) for slot in range(EXAMPLES_KEPT)]
            np.testing.assert_allclose(
                [examples.value[at] for at in slots],
                [one[0] for one in expected] + [0.0] * (EXAMPLES_KEPT - len(expected)),
                rtol=1e-4,
                atol=1e-4,
            )
            for at, one in zip(slots, expected, strict=False):
                found = [getattr(examples, name)[at] for name in ("content", "start", "end", "peak_token")]
                assert found == list(one[1:])


@pytest.mark.parametrize("layer", LAYERS)
def test_document_values_equal_naive_means_over_the_passages_of_each_sampled_document(setting, reference, layer):
    matrix = documents(reference, layer)
    sampled = sorted({row.document for row in setting.rows if row.sampled})
    assert len(sampled) < len({row.document for row in setting.rows})
    assert matrix.document.tolist() == sampled
    dense = matrix.values.toarray()
    for place, document in enumerate(sampled):
        own = [one for one in setting.passages[layer] if one.row.document == document]
        assert matrix.population[place] == own[0].row.population
        assert matrix.passages[place] == len(own)
        assert matrix.positions[place] == sum(len(one.countable) for one in own)
        np.testing.assert_allclose(dense[place], np.mean([one.mean for one in own], 0), rtol=1e-4, atol=1e-4)
        residual = np.mean([one.hidden.mean(0) for one in own], 0)
        np.testing.assert_allclose(matrix.residual[place], residual, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_size_of_batches_does_not_matter(setting, reference, tmp_path, batch_tokens):
    assert_same(setting.harvest(tmp_path, batch_tokens=batch_tokens), reference)


def test_order_of_documents_does_not_matter(setting, reference, tmp_path):
    order = np.random.default_rng(0).permutation(len(setting.rows))
    assert_same(setting.harvest(tmp_path, [setting.rows[n] for n in order]), reference)


@pytest.mark.parametrize("shard_tokens", [1, 150])
def test_small_shards_equal_one_shard(setting, reference, tmp_path, monkeypatch, shard_tokens):
    monkeypatch.setattr(harvest_module, "shards", partial(shards, shard_tokens=shard_tokens))
    cut = setting.harvest(tmp_path)
    assert len(reference.document_files) == 1
    assert len(cut.document_files) > 5
    assert_same(cut, reference)


def test_a_document_of_many_passages_over_many_shards_is_one_row_with_the_mean_of_its_passages(
    setting, tmp_path, monkeypatch
):
    monkeypatch.setattr(harvest_module, "shards", partial(shards, shard_tokens=2 * LENGTH))
    row = setting.rows[LONG]
    cut = setting.harvest(tmp_path, [row])
    own = [one for one in setting.passages[0] if one.row is row]
    assert len(cut.document_files) >= 3
    assert len(own) > len(cut.document_files)
    matrix = documents(cut, 0)
    assert matrix.document.tolist() == [row.document]
    assert matrix.passages.tolist() == [len(own)]
    np.testing.assert_allclose(matrix.values.toarray()[0], np.mean([one.mean for one in own], 0), rtol=1e-4, atol=1e-4)


def test_shards_hold_every_passage_once_and_count_each_row_where_it_ends(setting):
    cut = list(shards(setting.rows, setting.cutter, shard_tokens=60))
    assert len(cut) > 5
    assert sum(shard.rows for shard in cut) <= len(setting.rows)
    together = [tuple(sequence) for shard in cut for sequence in shard.sequences]
    assert together == [tuple(one.ids) for one in setting.passages[0]]
    for shard in cut:
        assert shard.tokens == sum(map(len, shard.sequences))
        for first, sequence in zip(shard.pointers.first_token, shard.sequences, strict=True):
            assert np.array_equal(shard.pointers.token_ids[first : first + len(sequence)], sequence)


@pytest.mark.parametrize("shard_tokens", [1, 60, 100_000])
def test_progress_reports_every_token_and_every_row_once(setting, tmp_path, monkeypatch, shard_tokens):
    monkeypatch.setattr(harvest_module, "shards", partial(shards, shard_tokens=shard_tokens))
    tokens, rows = [], []
    done = harvest(
        setting.model,
        setting.probes,
        setting.rows,
        setting.cutter,
        token_classes=setting.token_classes,
        batch_tokens=200,
        directory=tmp_path,
        on_batch=tokens.append,
        on_rows=rows.append,
    )
    assert sum(tokens) == done.tokens == sum(len(one.ids) for one in setting.passages[0])
    assert done.passages == len(setting.passages[0])
    assert sum(rows) == len(setting.rows)


def test_nothing_fires_where_every_position_is_a_sink_and_passages_still_count(setting, reference, tmp_path):
    all_sinks = replace(setting, probes=[replace(probe, norm_limit=0.0) for probe in setting.probes])
    nothing = all_sinks.harvest(tmp_path)
    for layer in LAYERS:
        stats, before = nothing.layers[layer].stats, reference.layers[layer].stats
        assert np.array_equal(stats.passages, before.passages)
        assert np.array_equal(stats.countable_positions, before.countable_positions)
        for name in ("positions", "norm_sum", "passages_fired", "mean_sum", "class_mass", "early_mass", "histogram"):
            assert not getattr(stats, name).any(), name
        assert not nothing.layers[layer].examples.value.any()
        assert documents(nothing, layer).values.nnz == 0


def test_special_tokens_around_and_inside_a_passage_never_count(setting, tmp_path):
    tokenizer = copy.deepcopy(setting.cutter.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    framed = replace(setting, cutter=PassageCutter(tokenizer, LENGTH)).harvest(tmp_path)
    readings = naive.read(setting.model_directory, tokenizer, setting.rows, LENGTH, ([1], [2]))
    read = naive.encode(readings, setting.places[0])
    expected = naive.statistics(read, tokenizer)
    tokens = sum(len(one.ids) for one in read)
    assert framed.tokens == tokens
    assert expected["countable_positions"].sum() == tokens - 2 * len(read) - 2
    stats = framed.layers[0].stats
    for name in ("countable_positions", "positions", "positions_fired"):
        assert np.array_equal(getattr(stats, name), expected[name]), name
    np.testing.assert_allclose(stats.class_mass, expected["class_mass"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stats.early_mass, expected["early_mass"], rtol=1e-4, atol=1e-4)


def test_two_harvests_of_the_same_text_are_identical(setting, reference, tmp_path):
    again = setting.harvest(tmp_path)
    for layer in LAYERS:
        for field in fields(FeatureStats):
            x, y = getattr(again.layers[layer].stats, field.name), getattr(reference.layers[layer].stats, field.name)
            assert np.array_equal(x, y), field.name
    assert again.document_files[0].read_bytes() == reference.document_files[0].read_bytes()
