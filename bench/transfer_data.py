"""The texts of the transfer benchmark, and the latents of each of their documents."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

import stratalens
from stratalens.corpus.builtin import GENERAL, text_file
from stratalens.files.hashing import hash64
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.report.saved import Result

MAX_WORDS = 170
"""Longer passages are cut, so that nearly every document is one passage."""
BUILT_IN = "built-in"
KINDS = {"minutes": "official", "speeches": "official", "openstax": "textbook", "wikipedia": "encyclopedia"}
"""Word in the name of a corpus -> its kind; a corpus with none of them is a kind of its own."""


class Source(NamedTuple):
    """Documents of one origin and kind."""

    origin: str
    """A corpus, or `BUILT_IN`."""
    kind: str

    def __str__(self) -> str:
        return f"{self.origin}/{self.kind}"


@dataclass(frozen=True)
class Documents:
    """Values of all documents of one layer; the arrays beside them are the same for all layers."""

    matrix: DocumentMatrix
    dense: Float[np.ndarray, "document latent"]
    decoder_norms: Float[np.ndarray, "latent"]


@dataclass(frozen=True)
class Texts:
    """All documents, at every layer."""

    layers: dict[str, Documents]
    """Layer -> its documents."""
    sources: dict[Source, tuple[np.ndarray, np.ndarray]]
    """Source -> rows of its domain documents, and of its general ones."""

    def of(self, origin: str) -> list[Source]:
        """The sources of one origin."""
        return [source for source in self.sources if source.origin == origin]

    @property
    def origins(self) -> list[str]:
        """Names of all origins of domain documents."""
        return list(dict.fromkeys(source.origin for source, (domain, _) in self.sources.items() if len(domain)))


def write_texts(domain: str, corpora: Path, folder: Path, documents: int) -> tuple[Path, Path]:
    """Write one file per side: the built-in texts, and one passage of some documents of each corpus.

    Args:
        domain: a built-in one.
        corpora: folder of `DOMAIN_*.jsonl.gz` and `general_*.jsonl.gz`, whose rows have `text` and `id`; the part of
            `id` before `#` names the document.
        folder: where the files go.
        documents: taken of each corpus, those with the smallest hashes.
    """
    paths = []
    for side in (domain, GENERAL):
        rows = list(_built_in(side))
        for path in sorted(corpora.glob(f"{side}_*.jsonl.gz")):
            rows += _passages(path, path.name.removeprefix(f"{side}_").removesuffix(".jsonl.gz"), documents)
        paths.append(folder / f"{side}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths[0], paths[1]


def _built_in(name: str) -> Iterator[dict[str, str]]:
    for line in text_file(name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield {"id": row["id"], "source": str(Source(BUILT_IN, row["kind"])), "text": row["text"]}


def _passages(path: Path, corpus: str, documents: int) -> Iterator[dict[str, str]]:
    kind = next((kind for word, kind in KINDS.items() if word in corpus), corpus)
    passages: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            passages.setdefault(row["id"].split("#")[0], []).append(row["text"])
    for document in sorted(passages, key=lambda document: hash64("transfer", document))[:documents]:
        own = passages[document]
        text = own[hash64("passage", document) % len(own)]
        cut = " ".join(text.split()[:MAX_WORDS])
        yield {"id": f"{corpus}/{document}", "source": str(Source(corpus, kind)), "text": cut}


def read_texts(domain: str, corpora: Path, folder: Path, documents: int) -> Texts:
    """Run the analysis over all texts and take the values of each document from its harvest.

    Args:
        domain, corpora, documents: see `write_texts`.
        folder: where texts and result go; a result that is there is used again if nothing changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_texts(domain, corpora, folder, documents)
    result = stratalens.analyze(
        domain=domain,
        domain_data=str(paths[0]),
        general_data=str(paths[1]),
        source_column="source",
        keep_near_duplicates=True,
        top_n=1,
        output_dir=str(folder / "result"),
    )
    layers = {}
    for hookpoint, file in result.harvest.items():
        norms = result.findings.latents[hookpoint]["decoder_norm"].to_numpy()
        matrix = file.state(len(norms)).documents.matrix(len(norms))
        layers[str(hookpoint)] = Documents(matrix, matrix.values.toarray(), norms)
    return Texts(layers, _sources(result, next(iter(layers.values())).matrix))


def _sources(result: Result, matrix: DocumentMatrix) -> dict[Source, tuple[np.ndarray, np.ndarray]]:
    sides = result.record.populations.sides[matrix.population]
    number = result.sources.of(matrix.document)
    found: dict[Source, list[np.ndarray]] = {}
    for side, names in enumerate(result.sources.names):
        for at, name in enumerate(names):
            rows = np.flatnonzero((sides == side) & (number == at))
            origin, kind = name.rsplit("/", 1)
            found.setdefault(Source(origin, kind), [np.zeros(0, np.int64)] * 2)[side] = rows
    return {source: (domain, general) for source, (domain, general) in found.items()}
