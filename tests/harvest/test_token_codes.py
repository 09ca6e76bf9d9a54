"""The table of codes has those of the passages that are kept, whatever batches they come from."""

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratalens.harvest.token_codes import BatchCodes, CodedPassage, codes_table, schema


def passage(number: int) -> CodedPassage:
    return CodedPassage(
        content=100 + number,
        start=0,
        end=2,
        document=number,
        population=0,
        text="ab",
        token_ids=np.array([1, 2]),
        offsets=np.array([[0, 1], [1, 2]]),
        whole=True,
    )


def batch_of(numbers: list[int], entries: list[int]) -> BatchCodes:
    """Codes of the passages of a batch: of each so many entries, which differ by their position."""
    return BatchCodes(
        passage=torch.tensor(numbers, dtype=torch.int32).repeat_interleave(torch.tensor(entries)),
        position=torch.cat([torch.arange(own, dtype=torch.int32) for own in entries]),
        latent=(torch.tensor(numbers, dtype=torch.int32) + 7).repeat_interleave(torch.tensor(entries)),
        activation=torch.cat([1 + torch.arange(own, dtype=torch.float32) / 8 for own in entries]),
    )


@given(
    order=st.permutations(range(9)),
    entries=st.lists(st.integers(0, 5), min_size=9, max_size=9),
    kept=st.sets(st.integers(0, 8)),
    size=st.integers(1, 9),
)
def test_each_kept_passage_has_its_own_entries_in_their_order(order, entries, kept, size):
    batches = [order[first : first + size] for first in range(0, 9, size)]
    parts = [batch_of(numbers, [entries[number] for number in numbers]) for numbers in batches]
    table = codes_table({number: passage(number) for number in sorted(kept)}, parts)
    assert table.schema.equals(schema())
    assert table.column("content").to_pylist() == [100 + number for number in sorted(kept)]
    assert table.column("entries").to_pylist() == [entries[number] for number in sorted(kept)]
    for row, number in zip(table.to_pylist(), sorted(kept), strict=True):
        assert row["position"] == list(range(entries[number]))
        assert row["latent"] == [number + 7] * entries[number]
        assert row["activation"] == [1 + place / 8 for place in range(entries[number])]


def test_passages_on_which_nothing_fires_have_no_entries():
    table = codes_table({2: passage(2), 5: passage(5)}, [])
    assert table.column("entries").to_pylist() == [0, 0]
    assert table.column("latent").to_pylist() == [[], []]
    assert table.column("latent").type == pa.list_(pa.field("element", pa.int32(), nullable=False))
    assert codes_table({}, []).num_rows == 0
