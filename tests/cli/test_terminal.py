"""What a person at a terminal reads: what to type next, how long it took, firing tokens by colour."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

from stratalens.cli.main import main

STAGES = ["start", "scan", "load", "fit check", "harvest", "ranking", "evidence", "labels", "report"]


def words_on_a_terminal(command: list[str]) -> str:
    """What a program writes when its standard output is a terminal of 100 columns."""
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=its, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(its)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the program has closed its side
                break
            if not part:
                break
            written += part
        assert process.wait(60) == 0
    os.close(ours)
    return written.decode()


def test_a_run_ends_with_what_to_type_next_and_how_long_each_stage_took(tiny_arguments, tmp_path, capsys):
    assert main(["analyze", *tiny_arguments]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-3] == f"Results: {(tmp_path / 'out').resolve()}"
    program, *words = shlex.split(said[-2].removeprefix("Next: "))
    assert program == "stratalens"
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert list(record["seconds"]) == STAGES
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert 0 < record["seconds"]["harvest"] < sum(record["seconds"].values())
    took = re.fullmatch(r"Took ([\d.]+) s \((.*)\); peak memory ([\d.]+) GB", said[-1])
    assert took
    assert [stage.rsplit(" ", 1)[0] for stage in took[2].split(", ")] == STAGES
    assert abs(float(took[1]) - sum(record["seconds"].values())) <= 0.06
    assert abs(float(took[3]) - record["peak_memory_bytes"] / 1e9) <= 0.006


def test_firing_tokens_have_a_colour_on_a_terminal_and_brackets_elsewhere(finished: Path):
    feature = str(pd.read_parquet(finished / "features.parquet").iloc[0]["feature_number"])
    command = [sys.executable, "-m", "stratalens", "show", str(finished), "0", feature]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "[[" in plain
    assert "\x1b" not in plain
    coloured = words_on_a_terminal(command)
    assert "[[" not in coloured
    marked = re.findall(r"\x1b\[1;(?:30;42|32)m([^\x1b]+)\x1b\[0m", coloured)
    bracketed = re.findall(r"\[\[(.*?)\]\]", plain)
    assert {token.strip() for token in marked} >= {token for token in bracketed if len(token) > 2}
