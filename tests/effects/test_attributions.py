"""Attributions of passages are folded to documents and to means, as a dense table gives them."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stratalens.effects.attributions import NO_ATTRIBUTIONS, Attributions, AttributionSums, joined

PASSAGES, DOCUMENTS, LATENTS = 12, 5, 7


def drawn(seed: int, rows: int) -> tuple[Attributions, np.ndarray]:
    """A random table of some rows, and the same with zeros where there is no entry."""
    generator = np.random.default_rng(seed)
    dense = generator.normal(size=(rows, LATENTS)) * (generator.random((rows, LATENTS)) < 0.4)
    row, latent = dense.nonzero()
    return Attributions(row, latent, dense[row, latent]), dense


@given(st.integers(0, 1000))
def test_passages_add_up_to_documents(seed):
    table, dense = drawn(seed, PASSAGES)
    document = np.random.default_rng(seed + 1).integers(0, DOCUMENTS, PASSAGES)
    expected = np.zeros((DOCUMENTS, LATENTS))
    np.add.at(expected, document, dense)
    of_documents = table.by_document(document)
    chosen = [5, 0, 3]
    np.testing.assert_allclose(of_documents.of_latents(chosen, DOCUMENTS), expected.T[chosen], atol=1e-12)
    np.testing.assert_allclose(of_documents.of_latents(range(LATENTS), DOCUMENTS), expected.T, atol=1e-12)
    assert of_documents.of_latents([], DOCUMENTS).shape == (0, DOCUMENTS)
    entries = list(zip(of_documents.row.tolist(), of_documents.latent.tolist(), strict=True))
    assert entries == sorted(set(entries))


@given(st.integers(0, 1000))
def test_the_order_of_batches_does_not_matter(seed):
    table, _ = drawn(seed, PASSAGES)
    parts = [Attributions(*(column[table.row % 3 == part] for column in table)) for part in (2, 0, 1)]
    assert all(np.array_equal(*pair) for pair in zip(joined(parts), table, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(joined([]), NO_ATTRIBUTIONS, strict=True))


@given(st.integers(0, 1000))
def test_means_and_errors_are_those_of_a_dense_table(seed):
    table, dense = drawn(seed, 9)
    domain = np.arange(9) % 2 == 0
    tokens = np.random.default_rng(seed).integers(1, 50, 9)
    sums = AttributionSums.of(table, domain, tokens, LATENTS)
    per_token = dense / tokens[:, None]
    for side, of_side in enumerate((per_token[domain], per_token[~domain])):
        np.testing.assert_allclose(sums.means()[side], of_side.mean(0), atol=1e-12)
        np.testing.assert_allclose(sums.standard_errors()[side], stats.sem(of_side), atol=1e-9)


@given(st.integers(0, 1000))
def test_sums_of_parts_are_those_of_all_documents(seed):
    table, _ = drawn(seed, 9)
    domain, tokens = np.arange(9) % 3 > 0, np.arange(9) + 1
    whole = AttributionSums.of(table, domain, tokens, LATENTS)
    parts = []
    for rows in (np.arange(4), np.arange(4, 4), np.arange(4, 9)):
        inside = np.isin(table.row, rows)
        own = Attributions(table.row[inside] - (rows[0] if len(rows) else 0), table.latent[inside], table.value[inside])
        parts.append(AttributionSums.of(own, domain[rows], tokens[rows], LATENTS))
    merged = reduce(AttributionSums.plus, parts)
    np.testing.assert_array_equal(merged.documents, whole.documents)
    np.testing.assert_allclose(merged.total, whole.total, atol=1e-12)
    np.testing.assert_allclose(merged.squares, whole.squares, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_side_without_documents_has_no_mean_and_one_document_no_error():
    table = Attributions(np.array([0]), np.array([2]), np.array([3.0]))
    sums = AttributionSums.of(table, np.array([True]), np.array([4]), LATENTS)
    assert sums.means()[0].tolist() == [0, 0, 0.75, 0, 0, 0, 0]
    assert np.isnan(sums.means()[1]).all()
    assert np.isnan(sums.standard_errors()).all()
