"""A glob finds what Python's glob finds, in little time, however many names links and `..` give to one folder."""

import glob
import time
from pathlib import Path

import pytest
from refusal import refusal, with_options

from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in ("a/x.txt", "a/y.txt", "b/x.txt", "b/c/x.txt", "[b]/x.txt", ".hidden/x.txt", "a/.x.txt", "z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def found(pattern: str) -> set[Path]:
    return {file.path.resolve() for file in find_files([pattern]) if isinstance(file.path, Path)}


PATTERNS = [
    *("*.txt", "*/x.txt", "*/*.txt", "[ab]/x.txt", "?/x.txt", "*/c/*.txt", "a/../*.txt", ".*/x.txt", "a/.*", "[[]b]/*"),
    *("*/./x.txt", "a/[!x].txt", "*/?.txt"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("relative", [False, True])
def test_a_glob_finds_what_pythons_glob_finds(tree, monkeypatch, pattern, relative):
    monkeypatch.chdir(tree)
    given = pattern if relative else f"{tree}/{pattern}"
    assert found(given) == {Path(path).resolve() for path in glob.glob(given) if Path(path).is_file()} != set()


@pytest.mark.parametrize(
    "pattern", ["*/../*/../z.txt", "**/..", "**/../z.txt", "a/*/../x.txt", "?/..", "[b]*/../z.txt"]
)
def test_a_glob_that_goes_up_again_is_refused(tree, pattern):
    with pytest.raises(CorpusError, match=r"`\.\.` stands after a wildcard; write the pattern without it"):
        find_files([f"{tree}/{pattern}"])


def test_the_line_of_it_is_documented(tiny_arguments, capsys, documented):
    line = refusal(with_options(tiny_arguments, {"domain_data": "/usr/*/../*/../*/x.txt"}), capsys)
    documented("Texts", "a glob that goes up again", line)


def test_a_glob_through_links_that_lead_round_in_circles_ends_at_once(tree):
    for number in range(10):
        (tree / f"round{number}").symlink_to(".")
    began = time.perf_counter()
    assert found(f"{tree}/{'*/' * 12}z.txt") == {tree / "z.txt"}
    assert time.perf_counter() - began < 5
