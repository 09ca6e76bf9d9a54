"""Data flows one way: a module imports only modules that stand before it, and importing the package does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import stratalens

ROOT = Path(stratalens.__file__).parent
ORDER = [
    "cli",
    "commands",
    "corpus",
    "evidence",
    "files",
    "harvest",
    "harvest.state",
    "labels",
    "labels.concepts",
    "labels.llm",
    "models",
    "ranking",
    "report",
    "report.figures",
    "report.page",
    "saes",
    "saes.formats",
    "errors",
    "files.redaction",
    "files.hashing",
    "files.plain_yaml",
    "files.damaged",
    "config",
    "progress",
    "models.memory",
    "models.loading",
    "models.embedded",
    "corpus.builtin",
    "corpus.remote",
    "corpus.rows",
    "corpus.hub_datasets",
    "corpus.readers",
    "ranking.feature_list",
    "corpus.words",
    "corpus.corpus",
    "corpus.survey",
    "models.token_classes",
    "models.tokens",
    "saes.sae",
    "saes.formats.sparsify",
    "models.source",
    "harvest.inputs",
    "harvest.state.statistics",
    "harvest.state.top_examples",
    "harvest.state.document_sample",
    "harvest.state.layer_state",
    "files.atomic",
    "harvest.store",
    "harvest.shards",
    "models.batches",
    "saes.fit_check",
    "harvest.shard_reader",
    "ranking.contrast",
    "ranking.rank",
    "evidence.passages",
    "evidence.similarity",
    "evidence.evidence",
    "evidence.examples",
    "labels.concepts.lexicon",
    "labels.concepts.annotation",
    "labels.concepts.associations",
    "evidence.logit_lens",
    "labels.llm.chat",
    "labels.llm.dialect",
    "labels.llm.endpoint",
    "labels.llm.local",
    "labels.llm.cache",
    "labels.detection",
    "labels.term_judge",
    "labels.evidence_labels",
    "labels.feature_label",
    "labels.by_evidence",
    "labels.prompts",
    "labels.answers",
    "labels.judge",
    "labels.by_model",
    "files.output_dir",
    "report.formats",
    "report.label_tables",
    "report.tables",
    "report.figures.drawing",
    "report.figures.forest",
    "report.figures.layer",
    "report.figures.overview",
    "report.figures.write",
    "report.run_record",
    "report.page.wording",
    "report.evidence_file",
    "report.run_facts",
    "report.saved",
    "ranking.layer_details",
    "report.page.data",
    "report.page.write",
    "harvest.memory_plan",
    "harvest.open_model",
    "harvest.workers",
    "harvest.ray_workers",
    "harvest.context",
    "harvest.harvest",
    "evidence.collect",
    "labels.labelling",
    "report.publish",
    "commands.analyze",
    "commands.label",
    "commands.rank",
    "commands.report",
    "commands.dry_run",
    "cli.terminal",
    "cli.show",
    "cli.main",
    "cli.menu",
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
