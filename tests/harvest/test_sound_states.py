"""A state whose checksum is right but which no run made is refused like a damaged one, without a traceback."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from finished_result import refused
from safetensors.numpy import load, save

from stratalens.corpus import Populations
from stratalens.corpus.sources import NO_SOURCES
from stratalens.errors import CapacityError, OutputError
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.harvest import store
from stratalens.harvest.state.layer_state import pack_state, unpack_state
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInputs
from stratalens.report.saved import load_result

pytestmark = pytest.mark.usefixtures("own_environment")
Arrays = dict[str, np.ndarray]


def packed_state(result) -> bytes:
    file = load_result(result).harvest[Hookpoint(0)]
    packed = read_checksummed(file.path, file.key)
    assert packed is not None
    return packed


def put(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update({name: np.ascontiguousarray(change(arrays[name]))})


FORGED: dict[str, Callable[[Arrays], Any]] = {
    "without statistics": lambda arrays: arrays.pop("stats.tokens"),
    "with more than a state": lambda arrays: arrays.update({"stats.more": np.zeros(3)}),
    "without a count of batches": lambda arrays: arrays.update({"batches_split": np.zeros(0, np.int64)}),
    "of two populations": put("stats.passages", lambda column: column[:2]),
    "of counts for sums": put("stats.mean_sum", lambda column: column.astype(np.int8)),
    "of other latents than counts": put("stats.latents", lambda column: column[:-1]),
    "of latents that fall": put("stats.latents", lambda column: column[::-1]),
    "of latents beyond the SAE": put("stats.latents", lambda column: column + 10**6),
    "of latents below zero": put("examples.latent", lambda column: column - 10**6),
    "of documents of latents beyond the SAE": put("documents.latent", lambda column: column + 10**6),
    "of a fifth population": put("documents.population", lambda column: column + 4),
    "of examples of a fifth population": put("examples.population", lambda column: column + 4),
    "of rows that do not exist": put("documents.row", lambda column: column + 10**6),
    "of examples of several lengths": put("examples.start", lambda column: column[:-1]),
    "of a histogram of bins that do not exist": put("histogram.indices", lambda column: column + 10**6),
    "of a histogram of other rows": put("histogram.indptr", lambda column: column[:-1]),
    "of a flat matrix": put("documents.residual", lambda column: column.reshape(-1)),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_state_is_refused_wherever_it_is_read(result, capsys, documented, case):
    file = load_result(result).harvest[Hookpoint(0)]
    arrays = load(packed_state(result))
    FORGED[case](arrays)
    write_checksummed(file.path, file.key, save(arrays))
    assert file.is_intact()
    with pytest.raises(OutputError, match=r"layer_0\.state: missing, damaged or of another version"):
        RankingInputs({Hookpoint(0): file}, {Hookpoint(0): np.ones(64)}, Populations(), NO_SOURCES)[Hookpoint(0)]
    line = refused(capsys, "report", str(result), "--quiet")
    assert line.endswith("harvest/layer_0.state: missing, damaged or of another version; run the analysis again")
    documented("Finished results", "a forged harvest", line)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_bytes_that_are_no_state_are_refused(content):
    with pytest.raises(ValueError, match="not a state"):
        unpack_state(content)


def test_a_sound_state_is_read_as_it_was_written(result):
    packed = packed_state(result)
    assert pack_state(unpack_state(packed, 64)) == packed
    assert pack_state(unpack_state(packed)) == packed


def test_a_state_for_which_there_is_no_memory_is_named(result, monkeypatch):
    def no_memory(*_: object) -> None:
        raise MemoryError

    file = load_result(result).harvest[Hookpoint(0)]
    monkeypatch.setattr(store, "unpack_state", no_memory)
    with pytest.raises(CapacityError, match=r"layer_0\.state: out of memory while it was read"):
        file.state()
