"""The disk space that a dry run tells is at least what a run of the tiny model takes."""

from pathlib import Path

import pytest

from stratalens.cli.arguments import parse
from stratalens.cli.main import main
from stratalens.commands.dry_run import count_tokens
from stratalens.config.options import RunConfig
from stratalens.harvest import shards
from stratalens.harvest.disk_plan import estimate_disk
from stratalens.harvest.inputs import find_inputs
from stratalens.progress import NoProgress


class Stopped(BaseException):
    """Raised in place of a process that is killed."""


def bytes_of_states(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.state"))


@pytest.mark.parametrize("characters", [600, 2**16])
def test_a_run_takes_no_more_than_the_estimate_and_not_far_less(tiny_arguments, tmp_path, monkeypatch, characters):
    def stop(*_arguments, **_options):
        raise Stopped

    monkeypatch.setattr(shards, "MIN_SHARD_CHARACTERS", characters)
    config = parse(tiny_arguments, "stratalens analyze", RunConfig, "")
    inputs = find_inputs(config, NoProgress())
    estimate = estimate_disk(inputs, count_tokens(inputs), config.keep_bytes)
    assert (estimate.shards > 3) == (characters == 600)
    with monkeypatch.context() as patch:
        patch.setattr("stratalens.commands.analyze.collect_evidence", stop)
        with pytest.raises(Stopped):
            main(["analyze", *tiny_arguments, "--quiet"])
    assert (
        estimate.unfinished / 10 < bytes_of_states(tmp_path / "out" / ".unfinished" / "shards") <= estimate.unfinished
    )
    assert main(["analyze", *tiny_arguments, "--quiet"]) == 0
    assert estimate.harvest / 10 < bytes_of_states(tmp_path / "out" / "harvest") <= estimate.harvest
    codes = sum(path.stat().st_size for path in (tmp_path / "out" / "evidence").glob("codes_*"))
    assert estimate.codes / 10 < codes <= estimate.codes


def test_a_dry_run_tells_disk_space(tiny_arguments, capsys):
    assert main(["analyze", *tiny_arguments, "--dry_run"]) == 0
    assert "Disk: about 0.00 GB during the run (shards: 1), 0.00 GB of it stays; " in capsys.readouterr().out
