"""A damaged or malicious result is refused with the file's name; nothing outside it is changed and no code runs."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from finished_result import (
    contents,
    refused,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import named_error

from stratalens.cli.main import main
from stratalens.cli.show import show
from stratalens.corpus.sources import DocumentSources
from stratalens.evidence.evidence import PASSAGES_FILE, Evidence
from stratalens.hookpoint import Hookpoint
from stratalens.report.evidence_file import read_lenses
from stratalens.report.saved import load_result

pytestmark = pytest.mark.usefixtures("own_environment")

fuzzed = settings(
    max_examples=30, deadline=4000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.integers(), max_size=2)
    | st.just({})
    | st.sampled_from(["../../x", "/etc/passwd", "a\0b", "x" * 9999, "[bold]", "\x1b[2J"])
)


def first_feature(result: Path) -> list[str]:
    row = pd.read_parquet(result / "features.parquet").iloc[0]
    return [str(row["layer"]), str(row["feature_number"])]


def json_paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Paths to everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [at, *(path for key, inner in inside for path in json_paths(inner, (*at, key)))]


def replaced(value: Any, at: tuple, new: object) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(copy[at[0]], at[1:], new)
    return copy


def read_everything(result: Path) -> None:
    """Read all that `label` and `show` take from a result."""
    saved = load_result(result)
    assert isinstance(saved.sources, DocumentSources)
    evidence = Evidence.load(result / "evidence", saved.findings.top)
    for layer, one in evidence.layers.items():
        read_lenses(result / f"layer_{layer}" / "evidence.json", one.features.tolist())
    show(result, Hookpoint(0), int(first_feature(result)[1]))


@fuzzed
@given(data=st.data())
@pytest.mark.parametrize("name", ["run.json", "layer_0/evidence.json"])
def test_any_value_in_a_record_or_in_evidence_is_read_or_refused(finished, result, name, data):
    record = json.loads((finished / name).read_text())
    at = data.draw(st.sampled_from(json_paths(record)))
    (result / name).write_text(json.dumps(replaced(record, at, data.draw(VALUES))))
    error = named_error(lambda: read_everything(result))
    unchanged = (result / name).read_text() == json.dumps(record)
    assert not unchanged or error is None, "an unchanged result must be readable"


BINARY = [
    "documents.parquet",
    "features.parquet",
    "layer_0/all_features.parquet",
    f"evidence/{PASSAGES_FILE}",
    "evidence/layer_0.npz",
]


@fuzzed
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8), st.none() | st.integers(0, 2**14))
@pytest.mark.parametrize("name", BINARY)
def test_any_damage_to_a_table_or_to_activations_is_refused_or_does_no_harm(finished, result, name, changes, length):
    raw = bytearray((finished / name).read_bytes())
    for position, byte in changes:
        raw[position % len(raw)] = byte
    (result / name).write_bytes(raw[:length])
    error = named_error(lambda: read_everything(result))
    unchanged = (result / name).read_bytes() == (finished / name).read_bytes()
    assert not unchanged or error is None, "an unchanged result must be readable"


def edited(path: Path, **columns: object) -> None:
    pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


def without(path: Path, *columns: str) -> None:
    pd.read_parquet(path).drop(columns=list(columns)).to_parquet(path, index=False)


CERTAIN = {"repetitions": 200, "with_discovery": 200, "rate": 1.0, "low": 0.98, "high": 1.0}
IMPOSSIBLE_PART = json.dumps(
    [{"side": "", "name": "x", "auroc": 0.5, "low": 0.6, "high": 0.7, "domain_documents": 5, "general_documents": 5}]
)
NUMBERS_OF_EVIDENCE = [
    *[("top_tokens", 0, "share"), ("top_tokens", 0, "background"), ("promoted", 0, "logit")],
    *[("suppressed", 0, "deviation"), ("examples", 0, "activation"), ("examples", 0, "activations", 0)],
]


def evidence_with(path: Path, at: tuple, value: object) -> None:
    path.write_text(json.dumps(replaced(json.loads(path.read_text()), ("features", 0, *at), value)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1.7976931348623157e308, -1e101])
def test_a_number_in_evidence_that_no_run_writes_is_refused_by_every_command_that_shows_it(result, capsys, number):
    path = result / "layer_0/evidence.json"
    sound = path.read_text()
    shown = str(json.loads(sound)["features"][0]["feature_number"])
    for at in NUMBERS_OF_EVIDENCE:
        evidence_with(path, at, number)
        assert "evidence.json: damaged, missing or of another version" in refused(capsys, "report", str(result))
        assert main(["show", str(result), "0", shown]) == 2
        path.write_text(sound)


def saved_arrays(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as archive:
        np.savez_compressed(path, **{**{name: archive[name] for name in archive.files}, **arrays})


def record_with(result: Path, at: tuple, value: object) -> None:
    record = json.loads((result / "run.json").read_text())
    (result / "run.json").write_text(json.dumps(replaced(record, at, value)))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def pickled(path: Path) -> None:
    """Replace activations by pickled arrays, and then by a bare pickle."""
    mark = path.parents[2] / "mark"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays | {"data": np.array([Payload(mark)], dtype=object)}, allow_pickle=True)
    assert refused_by(path)
    path.write_bytes(pickle.dumps(Payload(mark)))


def refused_by(path: Path) -> bool:
    return main(["label", str(path.parents[1]), "--quiet"]) == 2


def endless_header(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"}", b" ", 1))


def bare_array(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())


Damage = Callable[[Path], object]
NPZ = "evidence/layer_0.npz"
DAMAGED: dict[str, tuple[Damage, str]] = {
    "a record that is YAML, not JSON": (
        lambda out: (out / "run.json").write_text("settings: {}\nlayers: {}"),
        "run.json: damaged, missing or of another version",
    ),
    "a record that is a list": (lambda out: (out / "run.json").write_text("[]"), "run.json: expected options such as"),
    "a record that has only settings": (
        lambda out: (out / "run.json").write_text('{"settings": {}}'),
        "the result is of format none, this version of stratalens reads format 1",
    ),
    "a record with an option out of range": (
        lambda out: record_with(out, ("settings", "top_n"), 0),
        "top_n: input should be greater than or equal to 1 (got 0)",
    ),
    "a record whose domain is a path": (
        lambda out: record_with(out, ("settings", "domain"), "../../x"),
        "run.json: a run.json names a domain, not where it lies",
    ),
    "a record whose layer is a path": (
        lambda out: record_with(out, ("layers",), {"../../x": {}}),
        "run.json: damaged, missing or of another version",
    ),
    "a record without SAEs": (lambda out: record_with(out, ("saes",), {}), "run.json: damaged, missing or of anoth"),
    "a record that lists more files than a run writes": (
        lambda out: record_with(out, ("files",), ["report.html"] * 100_001),
        "run.json: damaged, missing or of another version",
    ),
    "a record whose controls are of other layers": (
        lambda out: record_with(out, ("controls", "hookpoints"), {}),
        "run.json: damaged, missing or of another version",
    ),
    "a record with a rate of discoveries above 1": (
        lambda out: record_with(out, ("controls", "shuffled_labels"), CERTAIN | {"rate": 2}),
        "run.json: damaged, missing or of another version",
    ),
    "a record with a control of text": (
        lambda out: record_with(out, ("controls", "words"), "high"),
        "run.json: damaged, missing or of another version",
    ),
    "features without a column": (
        lambda out: without(out / "features.parquet", "auroc"),
        "features.parquet: damaged, missing or of another version (no column auroc)",
    ),
    "features with text in a column of numbers": (
        lambda out: edited(out / "features.parquet", auroc="high"),
        "features.parquet: damaged, missing or of another version (the column auroc does not hold finite numbers)",
    ),
    "features whose confirmation is a text": (
        lambda out: edited(out / "features.parquet", confirmed="yes"),
        "features.parquet: damaged, missing or of another version (the column confirmed does not hold true, false or",
    ),
    "latents of infinite activation": (
        lambda out: edited(out / "layer_0/all_features.parquet", general_activation=np.inf),
        "all_features.parquet: damaged, missing or of another version (the column general_activation does not hold",
    ),
    "features whose AUROC by kind is no list": (
        lambda out: edited(out / "features.parquet", auroc_by_kind="{}"),
        "features.parquet: damaged, missing or of another version (the column auroc_by_kind does not hold lists of AUR",
    ),
    "features whose AUROC by source is outside its interval": (
        lambda out: edited(out / "features.parquet", auroc_by_source=IMPOSSIBLE_PART),
        "features.parquet: damaged, missing or of another version (the column auroc_by_source does not hold lists of A",
    ),
    "features that are not latents": (
        lambda out: edited(out / "features.parquet", feature_number=10**6),
        "features.parquet: damaged, missing or of another version (its features do not match the layers and latents",
    ),
    "latents out of order": (
        lambda out: edited(out / "layer_0/all_features.parquet", feature_number=3),
        "all_features.parquet: damaged, missing or of another version (its rows are not one per latent, in order)",
    ),
    "no table of latents": (
        lambda out: (out / "layer_0/all_features.parquet").unlink(),
        "all_features.parquet: damaged, missing or of another version",
    ),
    "passages that do not fit their tokens": (
        lambda out: edited(out / "evidence" / PASSAGES_FILE, text="x"),
        "passages.parquet: damaged, missing or of another version (a passage does not fit its tokens)",
    ),
    "passages without tokens": (
        lambda out: without(out / "evidence" / PASSAGES_FILE, "token_ids"),
        "passages.parquet: damaged, missing or of another version",
    ),
    "activations of tokens that do not exist": (
        lambda out: saved_arrays(out / NPZ, indices=np.full(len(np.load(out / NPZ)["indices"]), 2**30)),
        "layer_0.npz: damaged, missing or of another version",
    ),
    "activations of another number of tokens": (
        lambda out: saved_arrays(out / NPZ, shape=np.load(out / NPZ)["shape"] + [1, 0]),
        "layer_0.npz: damaged, missing or of another version (it does not fit the",
    ),
    "negative activations": (
        lambda out: saved_arrays(out / NPZ, data=-np.load(out / NPZ)["data"]),
        "layer_0.npz: damaged, missing or of another version (it holds values that are not activations)",
    ),
    "pickled activations": (lambda out: pickled(out / NPZ), "layer_0.npz: damaged, missing or of another version"),
    "an array whose header does not end": (
        lambda out: endless_header(out / NPZ),
        "layer_0.npz: damaged, missing or of another version",
    ),
    "an array instead of an archive": (
        lambda out: bare_array(out / NPZ),
        "layer_0.npz: damaged, missing or of another ver",
    ),
    "evidence without features": (
        lambda out: (out / "layer_0/evidence.json").write_text('{"features": [{}]}'),
        "evidence.json: damaged, missing or of another version",
    ),
    "evidence of other features": (
        lambda out: shutil.copy(out / "layer_2/evidence.json", out / "layer_0/evidence.json"),
        "evidence.json: damaged, missing or of another version (no evidence on feature",
    ),
    "evidence that is not a number": (
        lambda out: evidence_with(out / "layer_0/evidence.json", ("top_tokens", 0, "share"), float("nan")),
        "evidence.json: damaged, missing or of another version",
    ),
    "deeply nested evidence": (
        lambda out: (out / "layer_0/evidence.json").write_text("[" * 100_000),
        "evidence.json: damaged, missing or of another version",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_result_that_is_not_as_a_run_writes_it_is_refused_with_the_name_of_the_file(
    result, documented, tmp_path, capsys, case
):
    damage, message = DAMAGED[case]
    damage(result)
    before = contents(result)
    line = refused(capsys, "label", str(result), "--quiet")
    assert message in line
    assert contents(result) == before
    assert not (tmp_path / "mark").exists()
    documented("Finished results", case, line)


@pytest.fixture
def outside(tmp_path) -> Path:
    """Files of the user that are not part of the result."""
    folder = tmp_path / "outside"
    for name in ("layer_0", "evidence"):
        (folder / name).mkdir(parents=True)
    for name in ("thesis.txt", "layer_0/notes.txt", "features.parquet"):
        (folder / name).write_text("mine")
    return folder


def test_names_in_a_record_reach_nothing_outside(result, outside):
    (result / "link").symlink_to(outside)
    (result / "loop").symlink_to("loop")
    mine = ["../outside/thesis.txt", str(outside / "thesis.txt"), "link/thesis.txt", "loop/x", "", ".", "..", "a\0b"]
    before = contents(outside)
    for names in (mine, "link", [7], {}, ["x" * 5000], ["link", *mine[:3]]):
        record_with(result, ("files",), names)
        before_run = contents(result)
        if main(["label", str(result), "--quiet"]) == 2:
            assert contents(result) == before_run
        assert contents(outside) == before
    assert (result / "link").is_symlink(), "no run writes a file of that name"


@pytest.mark.parametrize("name", ["layer_0", "evidence"])
def test_a_folder_of_the_result_that_is_a_link_is_refused_and_not_written(result, outside, documented, capsys, name):
    shutil.move(result / name, outside / name / "moved")
    (result / name).symlink_to(outside / name / "moved")
    before, others = contents(outside), contents(result)
    line = refused(capsys, "label", str(result), "--quiet")
    assert f"{name}: a link, where a run makes a folder; move it away or choose another --output_dir" in line
    assert (contents(outside), contents(result)) == (before, others)
    if name == "layer_0":
        documented("Output, disk and cache", "a folder of the result that is a link to elsewhere", line)


def test_a_link_instead_of_a_file_is_replaced_and_not_followed(result, outside):
    shutil.copy(result / "features.parquet", outside)
    (result / "features.parquet").unlink()
    (result / "features.parquet").symlink_to(outside / "features.parquet")
    edited(outside / "features.parquet", label="theirs")
    before = contents(outside)
    assert main(["label", str(result), "--quiet"]) == 0
    assert contents(outside) == before
    assert not (result / "features.parquet").is_symlink()


def test_labels_of_a_record_cannot_control_the_terminal(result, capsys):
    layer, feature = first_feature(result)
    edited(result / "features.parquet", label="[bold]\x1b[2Jx", label_note="[red]\x1b]0;title\x07")
    assert main(["show", str(result), layer, feature]) == 0
    said = capsys.readouterr().out
    assert "[bold]" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "columns",
    [
        {"document": 7},
        {"document": "x"},
        {"side": "neither"},
        {"half": None},
        {"kind": "another"},
        {"source": 1.5},
        {"source": pd.NA},
    ],
)
def test_documents_that_no_run_writes_are_refused_by_what_ranks_again(result, columns, capsys):
    edited(result / "documents.parquet", **columns)
    before = {path: path.read_bytes() for path in result.rglob("*.csv")}
    code = main(["rank", str(result), "--quiet"])
    if columns.get("source") is pd.NA:
        assert code == 0, "the source of a document may be unknown"
    else:
        assert code == 2
        assert "documents.parquet: damaged, missing or of another version" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in result.rglob("*.csv")} == before


def test_an_undamaged_result_is_read_completely(finished):
    read_everything(finished)
    assert load_result(finished).findings.top.keys() == {Hookpoint(0), Hookpoint(2)}
