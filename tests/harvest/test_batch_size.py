"""`--batch_tokens auto`: a number for the device, fixed before anything depends on it."""

import json
from pathlib import Path

import pytest
import torch
from pretend_gpus import pretend_gpus
from refusal import with_options
from threads import one_thread

from stratalens.cli.arguments import parse
from stratalens.cli.main import main
from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.harvest.batch_size import default_batch_tokens, with_batch_tokens
from stratalens.harvest.chunks import chunk_tokens

GB = 10**9


def test_the_number_is_that_of_the_device(monkeypatch):
    assert default_batch_tokens(torch.device("cpu")) == 2048
    assert default_batch_tokens(torch.device("mps")) == 4096
    for total, expected in ((12 * GB, 4096), (23 * GB, 4096), (24 * GB, 16_384), (80 * GB, 16_384)):
        pretend_gpus(monkeypatch, [GB], total_bytes=total)
        assert default_batch_tokens(torch.device("cuda")) == expected
    pretend_gpus(monkeypatch, [80 * GB, 8 * GB])
    assert [default_batch_tokens(torch.device("cuda", number)) for number in (0, 1)] == [16_384, 4096]


def test_a_number_that_was_given_stays_and_a_longest_passage_always_fits(monkeypatch):
    pretend_gpus(monkeypatch, [80 * GB])
    assert with_batch_tokens(make_config(batch_tokens=512, device="cuda")).batch_tokens == 512
    assert with_batch_tokens(make_config(device="cuda")).batch_tokens == 16_384
    assert with_batch_tokens(make_config(max_length=32_768, device="cuda")).batch_tokens == 32_768
    assert with_batch_tokens(make_config(max_length=8192, device="cpu")).batch_tokens == 8192
    assert make_config().tokens_per_batch == 2048


def test_a_chunk_holds_the_largest_batches_of_its_device():
    assert (chunk_tokens("cpu"), chunk_tokens("mps"), chunk_tokens("cuda")) == (16_384, 16_384, 65_536)
    assert default_batch_tokens(torch.device("cpu")) <= chunk_tokens("cpu")


@pytest.mark.parametrize("value", ["15", "many", "2.5", "AUTO", ""])
def test_another_word_or_a_number_out_of_range_is_refused_in_one_line(value):
    with pytest.raises(ConfigError, match=r"batch_tokens|batch-tokens") as error:
        parse(["--batch_tokens", value], "stratalens analyze", RunConfig)
    assert len(str(error.value).splitlines()) == 1
    assert parse(["--batch_tokens", "auto"], "stratalens analyze", RunConfig) == make_config()
    assert parse(["--batch_tokens", "512"], "stratalens analyze", RunConfig) == make_config(batch_tokens=512)


def test_the_record_holds_the_number_and_a_run_with_it_has_the_same_bytes(tiny_arguments, tmp_path):
    def harvest(output: Path) -> dict[str, object]:
        return json.loads((output / "run.json").read_text())["harvest"]["facts"]

    with one_thread():
        assert main(["analyze", "--quiet", *tiny_arguments]) == 0
        given = with_options(tiny_arguments, {"batch_tokens": "2048", "output_dir": str(tmp_path / "given")})
        assert main(["analyze", "--quiet", *given]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["batch_tokens"] == 2048
    assert harvest(tmp_path / "out")["--batch_tokens"] == 2048
    assert harvest(tmp_path / "out") == harvest(tmp_path / "given")
