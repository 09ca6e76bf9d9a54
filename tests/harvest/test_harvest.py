"""States of an earlier run are reused exactly where nothing changed, and never mixed with those of another run."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures_off import draw_no_figures
from refusal import with_options
from threads import one_thread
from tiny import tiny_run_arguments, write_small_texts

from stratalens.cli.main import main
from stratalens.files.result_names import WORK_FOLDER
from stratalens.harvest import shards as shards_module
from stratalens.harvest import workers
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.workers import LocalWorker

LAYERS = (0, 2)
MIN_SHARD_CHARACTERS = 600
"""Small, so that small texts are cut into several shards."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(shards_module, "MIN_SHARD_CHARACTERS", MIN_SHARD_CHARACTERS)
    with one_thread():
        yield


class ReadCounter:
    """Counts the shards that are read, and stops the run after some of them."""

    class Stopped(BaseException):
        """Raised in place of a process that is killed."""

    def __init__(self, monkeypatch, shards: int | None = None):
        self.read: list[tuple[int, int]] = []
        read_all = ShardReader.read

        def counted(tasks):
            for task in tasks:
                if len(self.read) == shards:
                    raise ReadCounter.Stopped
                self.read.append((task.shard.number, len(task.layers)))
                yield task

        monkeypatch.setattr(ShardReader, "read", lambda reader, tasks: read_all(reader, counted(tasks)))


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
    """Result of a run that was not stopped."""
    directory = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(shards_module, "MIN_SHARD_CHARACTERS", MIN_SHARD_CHARACTERS)
        draw_no_figures(patch)
        assert analyze(tiny_run_arguments(tiny_model, tiny_saes, small_texts, directory), "--quiet") == 0
    return directory


@pytest.fixture
def finished(whole, output) -> Path:
    """A copy of that result in the output directory of a test, to run again."""
    return Path(shutil.copytree(whole, output))


def files_of_a_run(arguments: list[str], directory: Path, *more: str) -> dict[str, bytes]:
    assert analyze(with_options(arguments, {"output_dir": str(directory)}), "--quiet", *more) == 0
    return contents(directory)


def stopped_after(shards: int, arguments: list[str], monkeypatch, *more: str) -> None:
    with monkeypatch.context() as patch:
        ReadCounter(patch, shards)
        with pytest.raises(ReadCounter.Stopped):
            analyze(arguments, "--quiet", *more)


def test_a_stopped_run_continues_with_what_is_missing_and_gives_the_same_bytes(
    tiny_arguments, output, whole, monkeypatch, capsys
):
    stopped_after(2, tiny_arguments, monkeypatch)
    assert len(list((output / WORK_FOLDER / "shards").rglob("*.state"))) == 2 * 2 * len(LAYERS)  # states and codes
    counter = ReadCounter(monkeypatch)
    assert analyze(tiny_arguments) == 0
    assert counter.read == [(number, 2) for number in range(2, len(counter.read) + 2)]
    total = len(counter.read) + 2
    assert total > 3
    assert f"Reusing 2 of {total} shards from an earlier run that was stopped" in capsys.readouterr().out
    assert contents(output) == contents(whole)


def test_a_run_stopped_after_the_harvest_reads_nothing_again(tiny_arguments, output, whole, monkeypatch):
    def stop(*_arguments, **_options):
        raise ReadCounter.Stopped

    with monkeypatch.context() as patch:
        patch.setattr("stratalens.commands.analyze.collect_evidence", stop)
        with pytest.raises(ReadCounter.Stopped):
            analyze(tiny_arguments, "--quiet")
    with monkeypatch.context() as patch:
        counter = ReadCounter(patch)
        assert analyze(tiny_arguments, "--quiet") == 0
        assert counter.read == []
    assert contents(output) == contents(whole)


def test_a_finished_result_is_not_read_again_and_other_thresholds_change_the_tables_alone(
    tiny_arguments, finished, tmp_path, monkeypatch, capsys
):
    before = contents(finished)
    with monkeypatch.context() as patch:
        counter = ReadCounter(patch)
        assert analyze(tiny_arguments) == 0
        assert "reusing the harvest of layers 0 2" in capsys.readouterr().out
        assert contents(finished) == before
        assert analyze(tiny_arguments, "--rank_by", "auroc") == 0
        assert counter.read == []
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
    counter = ReadCounter(monkeypatch)
    assert analyze(tiny_arguments) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert "of layer 2 was damaged on disk, reading it again" in printed
    assert states[0].name in printed
    assert sorted(layers for _, layers in counter.read)[0] == 1, "of that shard, the other layer was sound"
    assert contents(output) == contents(whole)


def test_a_damaged_harvest_is_named_and_read_again(tiny_arguments, finished, monkeypatch, capsys):
    before = contents(finished)
    path = finished / "harvest" / "layer_2.state"
    path.write_bytes(path.read_bytes()[:-1])
    counter = ReadCounter(monkeypatch)
    assert analyze(tiny_arguments) == 0
    assert "The harvest of layers 2 in this directory is damaged; reading it again" in capsys.readouterr().out
    assert {hookpoints for _, hookpoints in counter.read} == {1}
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
def test_a_change_is_reported_by_name_and_nothing_read_before_it_is_reused(
    tiny_arguments, tmp_path, output, whole, monkeypatch, capsys, change, name
):
    changed = change(tiny_arguments, tmp_path)
    fresh = files_of_a_run(changed, tmp_path / "fresh")
    shutil.copytree(whole, output)
    assert analyze(changed) == 0
    assert f"another {name}" in reported_differences(capsys, r"in this directory was read with (.*?); reading")
    assert contents(output) == fresh
    shutil.rmtree(output)
    stopped_after(3, tiny_arguments, monkeypatch)
    assert analyze(changed) == 0
    assert f"another {name}" in reported_differences(capsys, r"stopped in this directory had (.*?); only its shards")
    assert contents(output) == fresh


def reported_differences(capsys, pattern: str) -> list[str]:
    """The differences that a run reports in the line of this pattern."""
    printed = capsys.readouterr().out.replace("\n", " ")
    match = re.search(pattern, printed)
    assert match is not None, printed
    return match[1].split(", ")


def test_of_a_changed_text_only_the_changed_shard_is_read(tiny_arguments, tmp_path, output, monkeypatch):
    """The changed document does not calibrate: otherwise the norm limit would change, on which every shard depends."""
    write_small_texts(tmp_path, documents=80)
    domain, general = tmp_path / "domain.jsonl", tmp_path / "general.jsonl"
    arguments = with_options(tiny_arguments, {"domain_data": str(domain), "general_data": str(general)})
    stopped_after(6, arguments, monkeypatch)
    domain.write_text(domain.read_text().replace("No. 4:", "No 4a:"))
    counter = ReadCounter(monkeypatch)
    assert analyze(arguments, "--quiet") == 0
    numbers = [number for number, _ in counter.read]
    assert numbers == [0, *range(6, numbers[-1] + 1)]
    assert len(numbers) > 4


def test_refresh_reads_everything_again(tiny_arguments, output, monkeypatch):
    stopped_after(2, tiny_arguments, monkeypatch)
    counter = ReadCounter(monkeypatch)
    assert analyze(tiny_arguments, "--quiet", "--harvest", "refresh") == 0
    everything = list(counter.read)
    assert [number for number, _ in everything] == list(range(len(everything)))
    assert analyze(tiny_arguments, "--quiet", "--harvest", "refresh") == 0
    assert counter.read == everything * 2


def test_only_an_additional_layer_is_read(tiny_arguments, output, whole, monkeypatch):
    assert analyze(tiny_arguments, "--quiet", "--layers", "2") == 0
    counter = ReadCounter(monkeypatch)
    assert analyze(tiny_arguments, "--quiet") == 0
    assert {hookpoints for _, hookpoints in counter.read} == {1}
    assert contents(output) == contents(whole)


def test_workers_may_return_shards_in_any_order(tiny_arguments, output, whole, monkeypatch):
    class Backwards(LocalWorker):
        def read(self, hookpoints, tasks):
            yield from reversed(list(super().read(hookpoints, tasks)))

    monkeypatch.setattr("stratalens.harvest.harvest.LocalWorker", Backwards)
    assert workers.LocalWorker is LocalWorker
    assert analyze(tiny_arguments, "--quiet") == 0
    assert contents(output) == contents(whole)
