"""Data flows one way: a module imports only modules that stand before it, and importing the package does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import stratalens

ROOT = Path(stratalens.__file__).parent
ORDER = [
    "errors",
    "redaction",
    "hashing",
    "small_files",
    "stored",
    "config",
    "listener",
    "memory",
    "model",
    "embedded",
    "domains",
    "places",
    "rows",
    "streamed_datasets",
    "readers",
    "feature_list",
    "words",
    "corpora",
    "survey",
    "vocabulary",
    "tokens",
    "sae",
    "checkpoints",
    "checkpoints.sparsify",
    "sources",
    "prepared",
    "statistics",
    "examples",
    "documents",
    "state",
    "sealed",
    "store",
    "shards",
    "room",
    "selfcheck",
    "harvest",
    "contrast",
    "ranking",
    "passages",
    "likeness",
    "evidence",
    "exhibits",
    "lexicon",
    "annotation",
    "associations",
    "lens",
    "labels",
    "labels.chat",
    "labels.protocol",
    "labels.endpoint",
    "labels.local",
    "labels.cache",
    "labels.scoring",
    "labels.term_judge",
    "labels.evidence_labels",
    "labels.labelling",
    "labels.stage",
    "labels.prompts",
    "labels.answers",
    "labels.judge",
    "labels.model_stage",
    "report",
    "report.output",
    "report.formats",
    "report.label_tables",
    "report.tables",
    "report.drawing",
    "report.forest",
    "report.layer_figure",
    "report.overview",
    "report.figures",
    "report.record",
    "report.wording",
    "report.evidence_file",
    "report.run_facts",
    "report.saved",
    "report.layer_details",
    "report.page_data",
    "report.page",
    "capacity",
    "opening",
    "workers",
    "workers_ray",
    "context",
    "reading",
    "gather",
    "meaning",
    "publish",
    "run",
    "relabel",
    "rerank",
    "redraw",
    "estimate",
    "terminal",
    "show",
    "cli",
    "menu",
    "__main__",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stratalens":
            inside = node.module.removeprefix("stratalens").lstrip(".")
            names = {f"{inside}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name for name in names if name in ORDER} or {inside}
    return found


def test_every_module_has_its_place():
    modules = {module_name(path) for path in ROOT.rglob("*.py")} - {""}
    assert modules == set(ORDER)


def test_imports_point_only_upstream():
    for path in ROOT.rglob("*.py"):
        name = module_name(path)
        if name:
            later = {other for other in imports(path) if ORDER.index(other) >= ORDER.index(name)}
            assert not later, f"{name} imports {sorted(later)}"


def test_importing_the_package_loads_nothing_heavy_and_touches_nothing(tmp_path):
    code = "import sys, stratalens; print([m for m in ('torch', 'pandas', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
    assert not list(tmp_path.iterdir())


def test_the_public_surface_is_small():
    assert stratalens.__all__ == ["analyze"]
