"""The package stays in order: small files and functions, unique class names, documented rooms, few public names."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import stratalens
from stratalens import errors

ROOT = Path(stratalens.__file__).parent
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_ARGUMENTS = 6
SUFFIXES = (".py", ".js", ".css", ".html")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes(kind: type) -> Iterator[tuple[Path, ast.AST]]:
    """All syntax tree nodes of a type in the package, each with its file."""
    for path in ROOT.rglob("*.py"):
        yield from ((path, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind))


def test_no_file_is_long():
    files = (path for path in ROOT.rglob("*") if path.suffix in SUFFIXES)
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {str(path): length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_long():
    """The docstring is not counted."""
    long = {}
    for path, node in nodes(Function):
        assert isinstance(node, Function)
        documented = node.body[0] if ast.get_docstring(node) else None
        length = node.end_lineno - node.lineno + 1  # pyright: ignore[reportOptionalOperand]
        length -= documented.end_lineno - documented.lineno + 1 if documented else 0  # pyright: ignore[reportOptionalOperand]
        if length > MAX_FUNCTION_LINES:
            long[f"{path.relative_to(ROOT)}: {node.name}"] = length
    assert long == {}


def test_no_function_has_many_arguments():
    many = {}
    for path, node in nodes(Function):
        assert isinstance(node, Function)
        own = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        number = len([name for name in own if name not in ("self", "cls")])
        if number > MAX_ARGUMENTS:
            many[f"{path.relative_to(ROOT)}: {node.name}"] = number
    assert many == {}


def test_no_two_public_classes_share_a_name():
    names = Counter(node.name for _, node in nodes(ast.ClassDef) if not node.name.startswith("_"))  # pyright: ignore[reportAttributeAccessIssue]
    assert [name for name, times in names.items() if times > 1] == []


def test_every_room_says_what_it_is():
    for folder in {path.parent for path in ROOT.rglob("*.py")}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_importing_the_package_loads_nothing_heavy_and_writes_no_files(tmp_path):
    code = "import sys, stratalens; print([m for m in ('torch', 'pandas', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
    assert not list(tmp_path.iterdir())


def test_the_public_names_are_these_and_can_be_imported():
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert sorted(stratalens.__all__) == sorted(["analyze", "rank", "label", "load_result", "Result", *kinds])
    for name in stratalens.__all__:
        assert callable(getattr(stratalens, name)), name
    assert set(stratalens.__all__) <= set(dir(stratalens))


def test_a_missing_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute `analyse`"):
        stratalens.analyse  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
