"""The documentation points at what exists: its links, and the files and names of the code that it cites."""

import ast
import re
from pathlib import Path

import pytest

import stratalens
from stratalens.config.options import RunConfig
from stratalens.config.result_options import RANK_METRICS
from stratalens.config.steer_options import SteerConfig
from stratalens.config.validate_options import ValidateConfig

PACKAGE = Path(stratalens.__file__).parent
ROOT = PACKAGE.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ROOMS = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(rf"`((?:{ROOMS})/[\w/]*(?:\.py)?)`((?:,\s+`\w+`)*)")
MAX_README_LINES = 150


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defined_names(module: Path) -> set[str]:
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize(("name", "fewest"), [("architecture.md", 50), ("method.md", 50), ("security.md", 8)])
def test_cited_code_exists(name, fewest):
    cited = CODE.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(cited) >= fewest
    for path, names in cited:
        assert (PACKAGE / path).exists(), path
        for cited_name in re.findall(r"\w+", names):
            assert cited_name in defined_names(PACKAGE / path), f"{path}: {cited_name}"


def test_every_room_and_every_metric_is_in_the_documentation():
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    method = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert [room for room in ROOMS.split("|") if f"`{room}/" not in architecture] == []
    assert [metric for metric in RANK_METRICS if f"`{metric}`" not in method] == []


def test_the_readme_is_short_and_names_options_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < MAX_README_LINES
    named = {name for name in re.findall(r"--(\w+)", text) if name not in ("config", "help", "corpora")}
    assert named <= {*RunConfig.model_fields, *ValidateConfig.model_fields, *SteerConfig.model_fields}
