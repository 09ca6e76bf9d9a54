"""A finished result of the tiny model, made once by the command line, and helpers for tests that use copies of it."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusal import with_options
from shared import made_once
from threads import one_thread

from stratalens.cli.main import main
from stratalens.labels.llm.address import KEY_VARIABLE
from stratalens.labels.llm.keys import OPENAI_KEY_VARIABLE

TEXTS = ("domain.jsonl", "general.jsonl")


@pytest.fixture
def own_environment(monkeypatch, tmp_path) -> Iterator[None]:
    """One thread, no API keys, and an empty cache of answers for each test."""
    for name in (KEY_VARIABLE, OPENAI_KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path / "cache"))
    with one_thread():
        yield


@pytest.fixture(scope="session")
def arguments(tiny_model, tiny_saes, small_texts) -> list[str]:
    domain, general = map(str, small_texts)
    return [
        *("--base_model", str(tiny_model), "--sae_model", str(tiny_saes), "--domain_data", domain),
        *("--general_data", general, "--dtype", "float32", "--allow_poor_fit", "--top_n", "5"),
        *("--output_dir", ""),
    ]


def analysed(arguments: list[str], directory: Path, *more: str) -> Path:
    with one_thread():
        assert main(["analyze", "--quiet", *with_options(arguments, {"output_dir": str(directory)}), *more]) == 0
    return directory


@pytest.fixture(scope="session")
def finished(arguments, tmp_path_factory) -> Path:
    """A finished result; tests must not change it."""
    made = made_once(tmp_path_factory, "finished", lambda directory: analysed(arguments, directory / "out") and None)
    return made / "out"


@pytest.fixture(scope="session")
def finished_without_examples(arguments, tmp_path_factory) -> Path:
    """A finished result made with `--no_examples`; tests must not change it."""

    def make(directory: Path) -> None:
        analysed(arguments, directory / "out", "--no_examples")

    return made_once(tmp_path_factory, "bare", make) / "out"


@pytest.fixture
def result(finished, tmp_path) -> Path:
    """A copy of the finished result."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def sources(tiny_model, small_texts, tmp_path) -> Path:
    """Copies of model and texts that a test may move or change; see `with_sources`."""
    root = tmp_path / "sources"
    shutil.copytree(tiny_model, root / "model")
    for path in small_texts:
        shutil.copy(path, root)
    return root


def with_sources(result: Path, sources: Path, arguments: list[str]) -> Path:
    """Change every path in the files of a result, as if it had been made from these sources."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    moved = {options["--base_model"]: sources / "model"}
    moved |= {options[f"--{Path(name).stem}_data"]: sources / name for name in TEXTS}
    for path in (path for path in result.rglob("*") if path.suffix in (".json", ".html")):
        text = path.read_text(encoding="utf-8")
        for before, after in moved.items():
            text = text.replace(before, str(after))
        path.write_text(text, encoding="utf-8")
    return result


def label(directory: Path, *options: str) -> int:
    return main(["label", str(directory), "--quiet", *options])


def refused(capsys, *words: str) -> str:
    """The error line of a command that must be refused."""
    capsys.readouterr()
    assert main(list(words)) == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert (output.out, len(lines)) == ("", 1), output
    assert lines[0].startswith("stratalens: ")
    return lines[0]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def features(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "features.parquet")


def labels(directory: Path, layer: int) -> dict[int, str]:
    own = features(directory).query("layer == @layer")
    return dict(zip(own["feature_number"], own["label"], strict=True))


def feature_file(folder: Path, *pairs: tuple[int, int]) -> str:
    path = folder / "list.txt"
    path.write_text("".join(f"{layer} {feature}\n" for layer, feature in pairs))
    return str(path)


def other_texts(folder: Path) -> list[str]:
    """Options of a validation: texts like those of the result that are not in it."""
    options = []
    for side, words in (("domain", "loan bank rate bond price"), ("general", "river stone bird cloud song")):
        rng = random.Random(side)
        rows = [
            {"id": f"{side}-{i}", "text": f"Nr {i}: " + " ".join(rng.sample(words.split() * 2, 9))} for i in range(24)
        ]
        path = folder / f"other-{side}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options += [f"--{side}_data", str(path)]
    return [*options, "--keep_near_duplicates"]


def sentences(sources: Path) -> set[str]:
    """All sequences of three words in the corpus."""
    runs = set()
    for name in ("domain", "general"):
        for line in (sources / f"{name}.jsonl").read_text().splitlines():
            words = json.loads(line)["text"].split()
            runs |= {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
    return runs


def all_text(directory: Path) -> str:
    """The text of all files of a result, including that in binary tables."""
    parts = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        parts.append(path.read_bytes().decode("utf-8", "replace"))
        if path.suffix == ".parquet":
            parts.append(pd.read_parquet(path).to_csv())
        elif path.suffix == ".npz":
            with np.load(path) as archive:
                parts += [str(archive[name].tolist()) for name in archive.files]
    return "\n".join(parts)
