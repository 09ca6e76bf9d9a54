"""Arrays of safetensors, npz and torch files: read alike, either way round, in bounded memory, and never run."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from traps import Trap

from stratalens.errors import CheckpointError
from stratalens.saes import weights
from stratalens.saes.weights import digest_of, mapped_rows, read_array, read_header, read_numbers

ROWS, COLUMNS = 70, 50
ENDS = [".safetensors", ".npz", ".pt", ".pth", ".old.pt", ".packed.npz"]


def arrays(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(ROWS, COLUMNS, generator=generator).to(dtype)
    return {"matrix": matrix, "vector": torch.arange(9.0), "scalar": torch.tensor(0.25), "k": torch.tensor(32)}


def write(path: Path, content: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".npz":
        save = np.savez_compressed if ".packed" in path.name else np.savez
        save(path, **{name: array.numpy() for name, array in content.items()})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=".old" not in path.name)
    return path


@pytest.fixture(params=ENDS)
def path(request, tmp_path) -> Path:
    return tmp_path / f"weights{request.param}"


@pytest.mark.parametrize("block", [2**20, 64])
def test_every_container_gives_the_arrays_that_were_written(path, block, monkeypatch):
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", block)
    content = arrays()
    write(path, content)
    header = read_header(path)
    assert header.shapes == {name: tuple(array.shape) for name, array in content.items()}
    assert [header.dtypes[name] for name in ("matrix", "vector")] == ["F32", "F32"]
    header.require({"matrix": (ROWS, COLUMNS)}, "the test")
    with pytest.raises(CheckpointError, match=r"`k` holds \w+, but floating-point numbers are expected"):
        header.require({"k": ()}, "the test")
    assert torch.equal(read_array(path, "matrix"), content["matrix"])
    turned = read_array(path, "matrix", turned=True)
    assert torch.equal(turned, content["matrix"].T)
    assert turned.is_contiguous()
    assert torch.equal(mapped_rows(path, "matrix"), content["matrix"])
    rows = mapped_rows(path, "matrix", turned=True)
    assert torch.equal(rows, content["matrix"].T)
    assert rows.is_contiguous()
    assert read_array(path, "scalar") == 0.25
    assert read_numbers(path, "k") == [32]
    assert read_numbers(path, "vector") == list(range(9))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("end", [".safetensors", ".pt"])
def test_wide_arrays_stay_in_bfloat16_where_that_loses_nothing(tmp_path, end, turned, monkeypatch):
    monkeypatch.setattr(weights, "WIDE_ELEMENTS", 100)
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", 200)
    exact = write(tmp_path / f"exact{end}", arrays(torch.bfloat16))
    read = read_array(exact, "matrix", narrow=True, turned=turned)
    expected = arrays(torch.bfloat16)["matrix"]
    assert read.dtype == torch.bfloat16
    assert torch.equal(read, expected.T if turned else expected)
    content = arrays(torch.bfloat16)
    content["matrix"] = content["matrix"].float()
    content["matrix"][60, 3] += 2**-12
    wide = read_array(write(tmp_path / f"wide{end}", content), "matrix", narrow=True, turned=turned)
    assert wide.dtype == torch.float32
    assert torch.equal(wide, content["matrix"].T if turned else content["matrix"])


def test_types_of_numpy_that_torch_lacks_are_told_and_others_are_turned(tmp_path):
    matrix = np.arange(12, dtype=">f4").reshape(3, 4)
    path = tmp_path / "a.npz"
    np.savez(path, big=matrix, columns=np.asfortranarray(matrix), half=matrix.astype("f2"), text=np.array(["a"]))
    expected = torch.arange(12.0).reshape(3, 4)
    assert all(torch.equal(read_array(path, name), expected) for name in ("big", "columns", "half"))
    assert torch.equal(read_array(path, "columns", turned=True), expected.T)
    assert mapped_rows(path, "half").dtype == torch.float16
    assert read_header(path).dtypes["half"] == "F16"
    with pytest.raises(CheckpointError, match="`text` holds <U1, but floating-point numbers are expected"):
        read_header(path).require({"text": (1,)}, "the test")


def test_nested_state_dicts_have_dotted_names_and_plain_values_beside(tmp_path):
    path = tmp_path / "ae.pt"
    torch.save({"ae": arrays(), "step": 7, "config": {"k": 32, "kind": "TopK", "sizes": [1, 2]}}, path)
    header = read_header(path)
    assert set(header.shapes) == {f"ae.{name}" for name in arrays()}
    assert header.values == {"step": 7, "config.k": 32, "config.kind": "TopK", "config.sizes": [1, 2]}
    assert torch.equal(read_array(path, "ae.matrix"), arrays()["matrix"])


def hostile(path: Path, mark: Path) -> None:
    """Write a file that makes another one when it is unpickled."""
    trap = Trap(mark)
    if path.suffix == ".npz":
        np.savez(path, W_enc=np.ones((2, 2)), W_dec=np.array([trap], dtype=object))
    elif path.name.startswith("raw"):
        path.write_bytes(pickle.dumps({"W_enc": trap}))
    else:
        torch.save(
            {"W_enc": torch.ones(2, 2), "extra": trap}, path, _use_new_zipfile_serialization="old" not in path.name
        )


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "old.pt", "raw.pt", "a.npz"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, name):
    path, mark = tmp_path / name, tmp_path / "ran"
    hostile(path, mark)
    mark.unlink(missing_ok=True)
    with pytest.raises(CheckpointError) as refusal:
        read_header(path)
    assert not mark.exists()
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)
    assert "could run code" in str(refusal.value) or name == "raw.pt"
    if path.suffix == ".npz":
        np.load(path, allow_pickle=True)["W_dec"]
    else:
        torch.load(path, weights_only=False) if name != "raw.pt" else pickle.loads(path.read_bytes())
    assert mark.exists(), "the trap works"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early_is_refused_in_one_line(path, share):
    content = write(path, arrays()).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"^[^\n]+: truncated or corrupt \([^\n]+\); copy or download it again$"):
        read_array(path, "matrix")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(path, number):
    content = arrays()
    content["matrix"][3, 4] = number
    write(path, content)
    for turned in (False, True):
        for read in (read_array, mapped_rows):
            with pytest.raises(CheckpointError, match="`matrix` holds NaN or infinite values"):
                read(path, "matrix", turned=turned)


def test_arrays_larger_than_their_file_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"matrix": torch.ones(1, 1).expand(2**20, 2**20)}, path)
    with pytest.raises(CheckpointError, match=r"`matrix` has shape \[1048576, 1048576\], which is more than the file"):
        read_header(path)


@pytest.mark.parametrize("array", [torch.ones(3, 3).to_sparse(), torch.ones(3, 3, device="meta")])
def test_arrays_without_plain_numbers_are_refused(tmp_path, array):
    torch.save({"matrix": array}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="`matrix` is not a plain array of numbers"):
        read_header(tmp_path / "a.pt")


@pytest.mark.parametrize("end", [".pt", ".npz", ".safetensors"])
def test_turning_an_array_takes_a_fifth_more_memory_than_the_array(tmp_path, end, monkeypatch):
    """The blocks that torch has are looked at one by one; what numpy has is measured."""
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", 2**16)
    content = {"matrix": torch.ones(1024, 8192)}
    path, total = write(tmp_path / f"a{end}", content), content["matrix"].numel()
    sizes: list[int] = []
    put = weights._put

    def watched(array: Tensor, row: int, block: Tensor) -> None:
        sizes.append(block.numel())
        put(array, row, block)

    monkeypatch.setattr(weights, "_put", watched)
    tracemalloc.start()
    try:
        read_array(path, "matrix", turned=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == total
    assert max(sizes) <= 0.05 * total
    assert peak <= 0.2 * 4 * total


def test_settings_change_the_digest_and_so_does_a_number(tmp_path):
    content = arrays()
    path = write(tmp_path / "a.pt", content)
    plain, told = digest_of(path), digest_of(path, "topk:32")
    assert len({plain, told, digest_of(path, "topk:33")}) == 3
    content["vector"][0] = 5
    assert digest_of(write(tmp_path / "b.pt", content)) != plain
