"""What an earlier run has read is used again exactly where nothing changed, and never mixed with anything else."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures_off import draw_no_figures
from refusal import with_options
from threads import one_thread
from tiny import tiny_run_arguments

from stratalens.cli.main import main
from stratalens.files.output_dir import WORK_FOLDER
from stratalens.harvest import shards as shards_module
from stratalens.harvest import workers
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.workers import LocalWorker

LAYERS = (0, 2)
LEAST_CHARACTERS = 600
"""Of a shard, so that small texts are cut into several."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(shards_module, "LEAST_CHARACTERS", LEAST_CHARACTERS)
    with one_thread():
        yield


class Power:
    """Goes out after some shards; counts what was read before."""

    class Cut(BaseException):
        """Stands for a process that ends at once."""

    def __init__(self, monkeypatch, shards: int | None = None):
        self.read: list[tuple[int, int]] = []
        whole = ShardReader.read

        def read(reader, shard, layers):
            if len(self.read) == shards:
                raise Power.Cut
            self.read.append((shard.number, len(layers)))
            return whole(reader, shard, layers)

        monkeypatch.setattr(ShardReader, "read", read)


def analyze(arguments: list[str], *more: str) -> int:
    return main(["analyze", *arguments, "--top_n", "5", *more])


def contents(output: Path) -> dict[str, bytes]:
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_saes, small_texts, tmp_path_factory) -> Path:
    """Result of a run that nothing stopped."""
    place = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(shards_module, "LEAST_CHARACTERS", LEAST_CHARACTERS)
        draw_no_figures(patch)
        assert analyze(tiny_run_arguments(tiny_model, tiny_saes, small_texts, place), "--quiet") == 0
    return place


@pytest.fixture
def finished(whole, output) -> Path:
    """The same in the place where a test runs, to run again."""
    return Path(shutil.copytree(whole, output))


def files_of_a_run(arguments: list[str], place: Path, *more: str) -> dict[str, bytes]:
    assert analyze(with_options(arguments, {"output_dir": str(place)}), "--quiet", *more) == 0
    return contents(place)


def stopped_after(shards: int, arguments: list[str], monkeypatch, *more: str) -> None:
    with monkeypatch.context() as patch:
        Power(patch, shards)
        with pytest.raises(Power.Cut):
            analyze(arguments, "--quiet", *more)


def test_a_stopped_run_reads_only_what_is_missing_and_ends_in_the_same_bytes(
    tiny_arguments, output, whole, monkeypatch, capsys
):
    stopped_after(2, tiny_arguments, monkeypatch)
    assert len(list((output / WORK_FOLDER / "shards").rglob("*.state"))) == 2 * len(LAYERS)
    power = Power(monkeypatch)
    assert analyze(tiny_arguments) == 0
    assert power.read == [(number, 2) for number in range(2, len(power.read) + 2)]
    total = len(power.read) + 2
    assert total > 3
    assert f"2 of {total} shards were there from an earlier run that was stopped" in capsys.readouterr().out
    assert contents(output) == contents(whole)


def test_a_run_stopped_after_its_reading_reads_nothing_again(tiny_arguments, output, whole, monkeypatch):
    def out(*_arguments, **_options):
        raise Power.Cut

    with monkeypatch.context() as patch:
        patch.setattr("stratalens.commands.analyze.collect_evidence", out)
        with pytest.raises(Power.Cut):
            analyze(tiny_arguments, "--quiet")
    with monkeypatch.context() as patch:
        power = Power(patch)
        assert analyze(tiny_arguments, "--quiet") == 0
        assert power.read == []
    assert contents(output) == contents(whole)


def test_a_finished_result_is_not_read_again_and_other_thresholds_change_the_tables_alone(
    tiny_arguments, finished, tmp_path, monkeypatch, capsys
):
    before = contents(finished)
    with monkeypatch.context() as patch:
        power = Power(patch)
        assert analyze(tiny_arguments) == 0
        assert "the harvest of layers 0 2 is used again" in capsys.readouterr().out
        assert contents(finished) == before
        assert analyze(tiny_arguments, "--rank_by", "auroc") == 0
        assert power.read == []
    assert contents(finished) != before
    assert contents(finished) == files_of_a_run(tiny_arguments, tmp_path / "elsewhere", "--rank_by", "auroc")


@pytest.mark.parametrize("damage", ["torn", "altered", "empty", "swapped"])
def test_a_damaged_shard_is_named_and_read_again(tiny_arguments, output, whole, monkeypatch, capsys, damage):
    stopped_after(3, tiny_arguments, monkeypatch)
    states = sorted((output / WORK_FOLDER / "shards" / "layer_2").iterdir())
    content = states[0].read_bytes()
    middle = len(content) // 2
    states[0].write_bytes(
        {
            "torn": content[:middle],
            "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "swapped": states[1].read_bytes(),
        }[damage]
    )
    power = Power(monkeypatch)
    assert analyze(tiny_arguments) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "of layer 2 was damaged on disk, reading it again" in said
    assert states[0].name in said
    assert sorted(layers for _, layers in power.read)[0] == 1, "of that shard, the other layer was sound"
    assert contents(output) == contents(whole)


def test_a_damaged_harvest_is_named_and_read_again(tiny_arguments, finished, monkeypatch, capsys):
    before = contents(finished)
    path = finished / "harvest" / "layer_2.state"
    path.write_bytes(path.read_bytes()[:-1])
    power = Power(monkeypatch)
    assert analyze(tiny_arguments) == 0
    assert "The harvest of layers 2 here was damaged: reading them anew" in capsys.readouterr().out
    assert {layers for _, layers in power.read} == {1}
    assert contents(finished) == before


def change_text(arguments: list[str], tmp_path: Path) -> list[str]:
    path = Path(arguments[arguments.index("--domain_data") + 1])
    rows = path.read_text().splitlines()
    changed = json.loads(rows[5])
    changed["text"] += " And the bank raised its rate once more."
    copy = tmp_path / "changed.jsonl"
    copy.write_text("\n".join([*rows[:5], json.dumps(changed), *rows[6:]]) + "\n")
    return with_options(arguments, {"domain_data": str(copy)})


def change_model(arguments: list[str], tmp_path: Path) -> list[str]:
    copy = tmp_path / "another model"
    shutil.copytree(arguments[arguments.index("--base_model") + 1], copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    return with_options(arguments, {"base_model": str(copy)})


def change_sae(arguments: list[str], tmp_path: Path) -> list[str]:
    copy = tmp_path / "other saes"
    shutil.copytree(arguments[arguments.index("--sae_model") + 1], copy)
    config = json.loads((copy / "layers.2" / "cfg.json").read_text())
    (copy / "layers.2" / "cfg.json").write_text(json.dumps(config | {"k": 4}))
    return with_options(arguments, {"sae_model": str(copy)})


def change_setting(arguments: list[str], _tmp_path: Path) -> list[str]:
    return [*arguments, "--max_length", "64"]


def change_threads(arguments: list[str], _tmp_path: Path) -> list[str]:
    return [*arguments, "--threads", "2"]


CHANGES = {
    "text": (change_text, "text"),
    "model": (change_model, "model"),
    "an SAE": (change_sae, "SAE of layer 2"),
    "a setting": (change_setting, "--max_length"),
    "threads": (change_threads, "device"),
}


@pytest.mark.parametrize(("change", "name"), CHANGES.values(), ids=CHANGES)
def test_what_changed_is_noticed_by_name_and_never_mixed_with_what_was_read_before(
    tiny_arguments, tmp_path, output, whole, monkeypatch, capsys, change, name
):
    changed = change(tiny_arguments, tmp_path)
    fresh = files_of_a_run(changed, tmp_path / "fresh")
    shutil.copytree(whole, output)
    assert analyze(changed) == 0
    assert f"another {name}" in told(capsys, r"here was read with (.*?): reading")
    assert contents(output) == fresh
    shutil.rmtree(output)
    stopped_after(3, tiny_arguments, monkeypatch)
    assert analyze(changed) == 0
    assert f"another {name}" in told(capsys, r"stopped here had (.*?): of its shards")
    assert contents(output) == fresh


def told(capsys, line: str) -> list[str]:
    """The differences that a run tells in such a line."""
    said = capsys.readouterr().out.replace("\n", " ")
    found = re.search(line, said)
    assert found is not None, said
    return found[1].split(", ")


def test_of_a_changed_text_only_the_changed_shards_are_read(tiny_arguments, tmp_path, output, monkeypatch):
    stopped_after(3, tiny_arguments, monkeypatch)
    power = Power(monkeypatch)
    assert analyze(change_text(tiny_arguments, tmp_path), "--quiet") == 0
    assert 0 in [number for number, _ in power.read]


def test_refresh_reads_everything_anew(tiny_arguments, output, monkeypatch):
    stopped_after(2, tiny_arguments, monkeypatch)
    power = Power(monkeypatch)
    assert analyze(tiny_arguments, "--quiet", "--harvest", "refresh") == 0
    everything = list(power.read)
    assert [number for number, _ in everything] == list(range(len(everything)))
    assert analyze(tiny_arguments, "--quiet", "--harvest", "refresh") == 0
    assert power.read == everything * 2


def test_a_further_layer_is_read_alone(tiny_arguments, output, whole, monkeypatch):
    assert analyze(tiny_arguments, "--quiet", "--layers", "2") == 0
    power = Power(monkeypatch)
    assert analyze(tiny_arguments, "--quiet") == 0
    assert {layers for _, layers in power.read} == {1}
    assert contents(output) == contents(whole)


def test_shards_may_come_back_in_any_order(tiny_arguments, output, whole, monkeypatch):
    class Backwards(LocalWorker):
        def read(self, layers, tasks):
            yield from reversed(list(super().read(layers, tasks)))

    monkeypatch.setattr("stratalens.harvest.harvest.LocalWorker", Backwards)
    assert workers.LocalWorker is LocalWorker
    assert analyze(tiny_arguments, "--quiet") == 0
    assert contents(output) == contents(whole)
