"""What is installed: no version with a known flaw, locks that agree, and an audit that says what it knows."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import stratalens

ROOT = Path(stratalens.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FIRST_SOUND = {
    "aiohttp": "3.14.4",  # CVE-2025-69223 (unpacked size), CVE-2026-111064
    "certifi": "2026.10.19",  # trusts authorities whose keys were stolen
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701: follows a link in the place of the lock
    "fsspec": "2026.6.0",  # templates of a `reference://` file are evaluated unasked
    "h11": "0.16.0",  # CVE-2025-43859: chunked bodies
    "idna": "3.7",  # CVE-2024-3651: quadratic time
    "jinja2": "3.1.6",  # CVE-2025-27516: a template leaves its sandbox
    "pillow": "12.3.0",  # CVE-2026-59197 and others: writes outside of images
    "pyarrow": "23.0.1",  # CVE-2023-47248, CVE-2026-25087: code and freed memory from files
    "pydantic": "2.4.0",  # CVE-2024-3772: quadratic time
    "pytest": "9.0.3",  # CVE-2025-71176: predictable folders in /tmp
    "pyyaml": "5.4",  # CVE-2020-14343: code from YAML
    "ray": "2.56",  # CVE-2026-41486, CVE-2026-57516: code from parquet and tar files
    "requests": "2.32.4",  # CVE-2024-47081: passwords to another host
    "scikit-learn": "1.5.0",  # CVE-2024-5206: keeps words of the text
    "setuptools": "78.1.1",  # CVE-2025-47273: writes outside of its folder
    "starlette": "0.49.1",  # CVE-2025-62727: quadratic time
    "torch": "2.11",  # CVE-2025-32434, CVE-2026-4538: code from weights
    "tqdm": "4.66.3",  # CVE-2024-34062: code from options
    "transformers": "5.10",  # CVE-2026-4372, CVE-2026-5241: code from config.json; CVE-2026-9856: writes outside
    "urllib3": "2.6.3",  # CVE-2025-66418, CVE-2025-66471, CVE-2026-21441: unpacked size
}
"""Package -> the first version without its known flaws."""


def requirements() -> list[Requirement]:
    """All that the project asks for, extras and build included."""
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in [*PROJECT["build-system"]["requires"], *project["dependencies"], *extras]]


def pinned(name: str) -> dict[str, Version]:
    """Package -> version of the lines `package==version` of a file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


def test_no_version_with_a_known_flaw_is_accepted():
    lowest: dict[str, Version] = {}
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        bounds = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==")]
        lowest[name] = max([lowest.get(name, Version("0")), *bounds])
    assert {name: str(lowest[name]) for name in lowest if lowest[name] < Version(FIRST_SOUND.get(name, "0"))} == {}


def test_no_version_with_a_known_flaw_is_pinned():
    pins = pinned("constraints.txt")
    assert {name: str(pins[name]) for name in pins if pins[name] < Version(FIRST_SOUND.get(name, "0"))} == {}


def test_what_is_pinned_is_accepted():
    pins = pinned("constraints.txt")
    known = [one for one in requirements() if canonicalize_name(one.name) in pins]
    assert len(known) > 20
    assert [str(one) for one in known if pins[canonicalize_name(one.name)] not in one.specifier] == []


def test_the_lock_has_every_dependency_in_its_pinned_version_with_hashes():
    """After a change of `pyproject.toml` or `constraints.txt`: make lock."""
    lock, pins = pinned("requirements.lock"), pinned("constraints.txt")
    asked = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    assert asked - set(lock) == set()
    assert {name: str(lock[name]) for name in set(lock) & set(pins) if lock[name] != pins[name]} == {}
    entries = re.split(r"\n(?=[a-z])", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert [entry for entry in entries[1:] if "--hash=sha256:" not in entry] == []
    assert "requirements.lock" not in "".join(re.findall(r"pip install.*", (ROOT / "Makefile").read_text()))


def test_the_rules_of_the_browser_tests_are_locked_by_their_hash():
    wanted = json.loads((ROOT / ".ci" / "package.json").read_text())["devDependencies"]
    locked = json.loads((ROOT / ".ci" / "package-lock.json").read_text())["packages"]
    packages = {name.removeprefix("node_modules/"): entry for name, entry in locked.items() if name}
    assert {name: entry["version"] for name, entry in packages.items()} == wanted
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "npm_of_node ci " in (ROOT / ".ci" / "browser").read_text()


KNOWS = 'if [[ "$*" != *constraints.txt* ]]; then echo "jinja2 3.1.5 PYSEC-1" > "${@: -1}"; exit 1; fi'
AUDITORS = {
    "no flaw": (f"{KNOWS}; exit 0", 0, "no known flaws"),
    "a flaw": (f'{KNOWS}; echo "filelock 3.18.0 GHSA-2" > "${{@: -1}}"; exit 1', 1, "filelock 3.18.0 GHSA-2"),
    "no network": ('echo "connection refused" >&2; exit 1', 75, "not audited: no data on flaws can be had here"),
    "an index without data on flaws": ("exit 0", 75, "not audited: no data on flaws can be had here"),
    "an index without the packages": (
        'echo "jinja2 Dependency not found" > "${@: -1}"; exit 0',
        75,
        "not audited: no data on flaws can be had here",
    ),
}


@pytest.mark.parametrize(("auditor", "code", "line"), AUDITORS.values(), ids=AUDITORS)
def test_the_audit_says_whether_it_knows_anything(tmp_path, auditor, code, line):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    program = tmp_path / ".venv" / "tools" / "bin" / "pip-audit"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/usr/bin/env bash\n{auditor}\n")
    program.chmod(0o755)
    done = subprocess.run([tmp_path / ".ci" / "audit"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(line)
    assert len(done.stdout.splitlines()) == 1


def test_without_the_package_index_the_audit_says_so(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    pip = tmp_path / ".venv" / "tools" / "bin" / "python"
    python = tmp_path / "python"
    python.write_text(
        f'#!/usr/bin/env bash\nmkdir -p "{pip.parent}"; printf "#!/bin/sh\\nexit 1" > "{pip}"; chmod +x "{pip}"\n'
    )
    python.chmod(0o755)
    done = subprocess.run(
        [tmp_path / ".ci" / "audit"],
        capture_output=True,
        text=True,
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (75, "")
    assert re.fullmatch(r"not audited: pip-audit==\S+ cannot be installed here; run make audit .*\n", done.stdout)
