"""docs/errors.md: the error messages that tests provoke, checked row by row, written by `make errors`.

A test passes each message to the fixture `documented`. Run as a program after both tiers of tests, this file reports
rows that no test provokes.
"""

import json
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from shared import call_directory

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
ROWS = ROOT / ".pytest_cache" / "d" / "error_rows"
"""Rows that the processes of a call of pytest store for `main`."""
INTRODUCTION = """# What stratalens says when something is wrong

After a mistake, a command prints one line on standard error, `stratalens: ` and what is wrong, and exits with code 2.
The files of an earlier result stay as they were. The other exit codes: 0, the command succeeded (or the program that
reads its output, such as `head`, closed it); 130, it was interrupted with Ctrl-C; 1, `stratalens check` found an SAE
that does not fit, or with a traceback: a bug, please report it.

The tests provoke every line below and check this page; `make errors` writes it. `DIR` stands for
any directory, `MODEL` and `SAES` for those of a model and its SAEs, `…` for the message of another library.
"""
KINDS = {
    "Commands and options": "Options on the command line, or arguments of `stratalens.analyze`.",
    "Configuration files": "The YAML file, or the `run.json` of an earlier run, given with `--config`.",
    "Texts": "Files given with `--domain_data` and `--general_data`.",
    "Texts elsewhere": "Addresses and streamed datasets given with `--domain_data` and `--general_data`.",
    "SAE checkpoints": "The folder given with `--sae_model`: `cfg.json` and `sae.safetensors` of every layer.",
    "Base models": "The directory given with `--base_model`.",
    "The Hub": "Models and SAEs named by a Hub id.",
    "Feature lists, lexicons and prompts": (
        "Files given with `--features`, `--lexicon`, `--prompts`, `--senses` and `--task`."
    ),
    "Labelling models": "Models and servers given with `--labeling_model` and `--labeling_endpoint`.",
    "Memory and workers": "What the machine, its GPU or the cluster cannot hold or do.",
    "Finished results": "The directory that `stratalens rank`, `label`, `report` and `show` read.",
    "Output, disk and cache": "Where results go, and what is kept between runs.",
    "Interruptions": "Commands that are stopped from outside.",
}
HEADER = "| what is wrong | what stratalens says |\n|---|---|\n"
LIBRARY_WORDS = (
    "no usable Hugging Face model here",
    "truncated or corrupt",
    "cannot be read as JSON",
    r"not a readable \w+ file",
    "not valid JSON",
    r"not valid YAML(?: or JSON)?",
    "cannot be loaded",
    "cannot be used",
    "cannot be run",
    r"fails on more than [\d,]+ tokens",
    "of another version",
    "no connection",
    "is damaged",
    "cannot be read",
    "no Ray cluster was found",
    "cannot be parsed",
)
"""Patterns of messages that quote another library in brackets."""
Rows = dict[tuple[str, str], str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-errors", action="store_true", help="collect lines for docs/errors.md, unchecked")


class ErrorBook:
    """The rows that the tests of this process provoke, and those of the page."""

    def __init__(self, page: Rows, writing: bool):
        self.page = page
        self.writing = writing
        self.provoked: Rows = {}
        self.impossible: set[tuple[str, str]] = set()
        """Kinds and cases that this machine cannot provoke; their tests are skipped with the reason."""

    def add(self, kind: str, case: str, message: str) -> None:
        row = f"| {case} | {code(message)} |"
        assert kind in KINDS, kind
        assert "|" not in case, case
        assert self.provoked.setdefault((kind, case), row) == row, f"two lines for `{case}`"
        if not self.writing:
            assert self.page.get((kind, case)) == row, "docs/errors.md is out of date: run make errors"


BOOK = pytest.StashKey[ErrorBook]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BOOK] = ErrorBook(read_page(), config.getoption("--write-errors"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the rows of this process for `main`, which combines those of all calls and workers."""
    book = session.config.stash[BOOK]
    if book.provoked or book.impossible:
        ROWS.mkdir(parents=True, exist_ok=True)
        rows = [[kind, case, row] for (kind, case), row in book.provoked.items()]
        rows += [[kind, case, None] for kind, case in book.impossible]
        (ROWS / f"{uuid.uuid4().hex}.json").write_text(json.dumps(rows), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """After both tiers of tests: check that each row of the page was provoked; with `--write`, write the page."""
    page, provoked = read_page(), {}
    for path in sorted(ROWS.glob("*.json"), key=lambda path: path.stat().st_mtime):  # a later call knows better
        for kind, case, row in json.loads(path.read_text(encoding="utf-8")):
            provoked[kind, case] = row or provoked.get((kind, case)) or page.get((kind, case))
    if arguments == ["--write"]:
        PAGE.write_text(page_text({key: row for key, row in provoked.items() if row}), encoding="utf-8")
        return 0
    missing = [case for kind, case in page if (kind, case) not in provoked]
    if missing:
        print(f"docs/errors.md: no test provokes {missing}; run make errors", file=sys.stderr)
    return bool(missing)


Documented = Callable[[str, str, str], None]


@pytest.fixture
def error_book(request: pytest.FixtureRequest) -> ErrorBook:
    return request.config.stash[BOOK]


@pytest.fixture
def documented(error_book: ErrorBook, tmp_path_factory: pytest.TempPathFactory) -> Documented:
    """A function of kind, case and error line that checks that docs/errors.md has that row."""

    def take(kind: str, case: str, line: str) -> None:
        error_book.add(kind, case, stable_message(line, call_directory(tmp_path_factory)))

    return take


def stable_message(line: str, temporary: Path) -> str:
    """The error line without the parts that change from run to run or from version to version."""
    base = re.escape(str(temporary))
    replacements = {
        rf"{base}/tiny_model": "MODEL",
        rf"{base}/tiny saes": "SAES",
        rf"{base}/(popen-\w+/)?[^/\s:;)`]+": "DIR",
        r"127\.0\.0\.1:\d+": "localhost:8000",
        rf"({'|'.join(LIBRARY_WORDS)}) \(.*\)": r"\1 (…)",
    }
    text = line.strip().removeprefix("stratalens: ")
    for pattern, short in replacements.items():
        text = re.sub(pattern, short, text)
    return text


def code(text: str) -> str:
    """Markdown of a text as code in a cell of a table."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def read_page() -> Rows:
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows: Rows = {}
    for section in page.split("\n## ")[1:]:
        kind, _, content = section.partition("\n")
        for line in content.splitlines():
            if line.startswith("| ") and line != HEADER.splitlines()[0]:
                rows[kind, line[2:].split(" | ")[0]] = line
    return rows


def page_text(rows: Mapping[tuple[str, str], str]) -> str:
    sections = [INTRODUCTION, *(_section(kind, _of_kind(rows, kind)) for kind in KINDS)]
    return "\n".join(section for section in sections if section)


def _of_kind(rows: Mapping[tuple[str, str], str], kind: str) -> list[str]:
    return [rows[key] for key in sorted(rows, key=lambda key: key[1].casefold()) if key[0] == kind]


def _section(kind: str, rows: Iterable[str]) -> str:
    lines = "".join(f"{row}\n" for row in rows)
    return f"## {kind}\n\n{KINDS[kind]}\n\n{HEADER}{lines}" if lines else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
