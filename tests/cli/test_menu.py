"""The menu runs its four analyses, and any other answer runs nothing."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from stratalens.cli import menu

ROOT = Path(__file__).parents[2]


def answered(answers: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The real program with these lines on its standard input, started in an empty folder."""
    program = [sys.executable, str(ROOT / "run_financial_analysis.py")]
    return subprocess.run(program, input=answers, capture_output=True, text=True, cwd=folder, timeout=60)


@pytest.mark.parametrize("answers", ["q\n", "Q\n", "quit\n", "exit\n", " q \n", "", "4\n\n", "4\n"])
def test_quitting_and_the_end_of_input_exit_with_0_and_run_nothing(tmp_path, answers):
    done = answered(answers, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_menu_shows_each_choice_with_its_layers_and_output_directory():
    done = subprocess.run(
        [sys.executable, "run_financial_analysis.py"], input="q\n", capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert list(lines) == ["1", "2", "3", "4"]
    for key, words in {
        "1": ("Complete analysis", "layers 4 10 16 22 28", "complete_financial_analysis"),
        "2": ("Fast analysis", "layers 16 22", "fast_financial_analysis"),
        "3": ("Single layer analysis", "layers 16", "single_layer_analysis"),
        "4": ("Custom analysis", "of your choice", "custom_financial_analysis"),
    }.items():
        assert all(word in lines[key] for word in words)


@pytest.mark.parametrize("wrong", ["7", "0", "complete", "1 2", "", "-1"])
def test_a_wrong_choice_is_answered_with_the_choices_and_asked_again(tmp_path, wrong):
    done = answered(f"{wrong}\n", tmp_path)
    before, _, after = done.stdout.partition(f"`{wrong}` is not on the menu; the choices are:")
    assert done.returncode == 0
    for title in ("Complete analysis", "Fast analysis", "Single layer analysis", "Custom analysis"):
        assert title in before
        assert title in after
    assert after.rstrip().endswith("Choice [1-4, q to quit]:")


def test_layers_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    done = answered("4\nsixteen\n", tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "stratalens: layers: `sixteen` is not a layer; write numbers and ranges such as 4 10-12, or all\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The arguments of the analyses that the menu starts; the analysis itself, minutes long, is the only stub."""
    calls: list[list[str]] = []

    def run(words: list[str]) -> int:
        calls.append(words)
        return 0

    monkeypatch.setattr(menu, "run", run)
    return calls


EXPECTED = {
    "1": (["4", "10", "16", "22", "28"], "complete_financial_analysis"),
    "2": (["16", "22"], "fast_financial_analysis"),
    "3": (["16"], "single_layer_analysis"),
    "4": (["4", "10-12", "16"], "custom_financial_analysis"),
}


@pytest.mark.parametrize("choice", EXPECTED)
def test_each_choice_starts_its_analysis(monkeypatch, started, choice):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{choice}\n4 10-12, 16\n"))
    assert menu.main() == 0
    layers, output_dir = EXPECTED[choice]
    numbers = ["--top_n", "30", "--top_features_n", "50"]
    assert started == [["analyze", "--layers", *layers, *numbers, "--output_dir", output_dir]]


def test_a_right_choice_after_wrong_ones_is_run_once(monkeypatch, started):
    monkeypatch.setattr("sys.stdin", io.StringIO("5\n\n2\n1\n"))
    assert menu.main() == 0
    assert [words[words.index("--output_dir") + 1] for words in started] == ["fast_financial_analysis"]


def test_the_exit_code_of_the_menu_is_that_of_its_analysis(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("3\n"))
    monkeypatch.setattr(menu, "run", lambda _words: 130)
    assert menu.main() == 130
