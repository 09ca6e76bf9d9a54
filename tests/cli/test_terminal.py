"""Output on a terminal: the command to run next, how long each stage took, firing tokens in colour."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from stratalens.cli.main import main

STAGES = ["start", "load", "scan", "fit check", "harvest", "ranking", "controls", "evidence", "labels", "report"]


def output_on_a_terminal(command: list[str]) -> str:
    """What a program writes when its standard output is a terminal of 100 columns."""
    own_end, program_end = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=program_end, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(program_end)
        written = b""
        while True:
            try:
                part = os.read(own_end, 65536)
            except OSError:  # on Linux: the program has closed its end
                break
            if not part:
                break
            written += part
        assert process.wait(60) == 0
    os.close(own_end)
    return written.decode()


def test_a_run_ends_with_the_next_command_and_how_long_each_stage_took(tiny_arguments, tmp_path, capsys):
    assert main(["analyze", *tiny_arguments]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3] == f"Results: {(tmp_path / 'out').resolve()}"
    program, *words = shlex.split(printed[-2].removeprefix("Next: "))
    assert program == "stratalens"
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["seconds"]) == STAGES
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert 0 < record["seconds"]["harvest"] < sum(record["seconds"].values())
    took = re.fullmatch(r"Took ([\d.]+) s \((.*)\); peak memory ([\d.]+) GB", printed[-1])
    assert took
    assert [stage.rsplit(" ", 1)[0] for stage in took[2].split(", ")] == STAGES
    assert abs(float(took[1]) - sum(record["seconds"].values())) <= 0.06
    assert abs(float(took[3]) - record["peak_memory_bytes"] / 1e9) <= 0.006


@pytest.mark.real
def test_firing_tokens_have_a_colour_on_a_terminal_and_brackets_elsewhere(finished: Path):
    feature = str(pd.read_parquet(finished / "features.parquet").iloc[0]["feature_number"])
    command = [sys.executable, "-m", "stratalens", "show", str(finished), "0", feature]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "[[" in plain
    assert "\x1b" not in plain
    coloured = output_on_a_terminal(command)
    assert "[[" not in coloured
    marked = re.findall(r"\x1b\[1;(?:30;42|32)m([^\x1b]+)\x1b\[0m", coloured)
    bracketed = re.findall(r"\[\[(.*?)\]\]", plain)
    assert {token.strip() for token in marked} >= {token for token in bracketed if len(token) > 2}
