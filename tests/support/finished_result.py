"""A finished result of the tiny model, made once by the command line, and what tests do with copies of it."""

import json
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
from stratalens.labels.llm.client import KEY_VARIABLES

TEXTS = ("domain.jsonl", "general.jsonl")


@pytest.fixture
def own_environment(monkeypatch, tmp_path) -> Iterator[None]:
    """One thread, no key and no stored answers but a test's own."""
    for name in KEY_VARIABLES:
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


def analysed(arguments: list[str], place: Path, *more: str) -> Path:
    with one_thread():
        assert main(["analyze", "--quiet", *with_options(arguments, {"output_dir": str(place)}), *more]) == 0
    return place


@pytest.fixture(scope="session")
def finished(arguments, tmp_path_factory) -> Path:
    """With figures; not to be changed."""
    made = made_once(tmp_path_factory, "finished", lambda place: analysed(arguments, place / "out") and None)
    return made / "out"


@pytest.fixture(scope="session")
def finished_without_examples(arguments, tmp_path_factory) -> Path:
    """Not to be changed."""

    def make(place: Path) -> None:
        analysed(arguments, place / "out", "--no_examples")

    return made_once(tmp_path_factory, "bare", make) / "out"


@pytest.fixture
def result(finished, tmp_path) -> Path:
    """A copy of the finished result."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def sources(tiny_model, small_texts, tmp_path) -> Path:
    """Copies of model and texts that a test may move away or change; see `resting_on`."""
    root = tmp_path / "sources"
    shutil.copytree(tiny_model, root / "model")
    for path in small_texts:
        shutil.copy(path, root)
    return root


def resting_on(result: Path, sources: Path, arguments: list[str]) -> Path:
    """The result as if it had been made from these sources: every path in its files is changed."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    moved = {given["--base_model"]: sources / "model"}
    moved |= {given[f"--{Path(name).stem}_data"]: sources / name for name in TEXTS}
    for path in (path for path in result.rglob("*") if path.suffix in (".json", ".html")):
        text = path.read_text(encoding="utf-8")
        for before, now in moved.items():
            text = text.replace(before, str(now))
        path.write_text(text, encoding="utf-8")
    return result


def label(place: Path, *options: str) -> int:
    return main(["label", str(place), "--quiet", *options])


def refused(capsys, *words: str) -> str:
    """The line that a command is refused with."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert (said.out, len(lines)) == ("", 1), said
    assert lines[0].startswith("stratalens: ")
    return lines[0]


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def features(place: Path) -> pd.DataFrame:
    return pd.read_parquet(place / "features.parquet")


def labels(place: Path, layer: int) -> dict[int, str]:
    own = features(place).query("layer == @layer")
    return dict(zip(own["feature_number"], own["label"], strict=True))


def feature_file(folder: Path, *pairs: tuple[int, int]) -> str:
    path = folder / "list.txt"
    path.write_text("".join(f"{layer} {feature}\n" for layer, feature in pairs))
    return str(path)


def sentences(sources: Path) -> set[str]:
    """Runs of three words of the corpus."""
    runs = set()
    for name in ("domain", "general"):
        for line in (sources / f"{name}.jsonl").read_text().splitlines():
            words = json.loads(line)["text"].split()
            runs |= {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}
    return runs


def all_text(place: Path) -> str:
    """Everything that the files of a result say, those of binary tables included."""
    parts = []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        parts.append(path.read_bytes().decode("utf-8", "replace"))
        if path.suffix == ".parquet":
            parts.append(pd.read_parquet(path).to_csv())
        elif path.suffix == ".npz":
            with np.load(path) as archive:
                parts += [str(archive[name].tolist()) for name in archive.files]
    return "\n".join(parts)
