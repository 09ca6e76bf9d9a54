"""`documents.parquet`: the documents whose values are kept one by one, with side, half, kind and source; no text."""

from pathlib import Path

import numpy as np
import pandas as pd

from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.names import NO_NAME
from stratalens.corpus.populations import Population, side_name
from stratalens.corpus.sources import DocumentSources
from stratalens.files.damaged import READ_ERRORS, damaged, read_table

DOCUMENTS_FILE = "documents.parquet"


def write_documents(sources: DocumentSources, populations: Populations, domain: str, path: Path) -> None:
    """Write the table of the sampled documents.

    Args:
        sources: the documents.
        populations: those of the run.
        domain: name of the domain.
        path: of the file.
    """
    own = [Population.numbered(number) for number in sources.population.tolist()]
    names = [[*side, None] for side in sources.names]  # the last one is that of NO_NAME
    pd.DataFrame(
        {
            "document": sources.document,
            "side": pd.Series([side_name(domain, population.side) for population in own], dtype="str"),
            "half": pd.Series([population.half.name.lower() for population in own], dtype="str"),
            "kind": pd.Series([populations.strata[population.stratum] for population in own], dtype="str"),
            "source": pd.Series(
                [names[population.side][source] for population, source in zip(own, sources.source, strict=True)],
                dtype="str",
            ),
        }
    ).to_parquet(path, index=False)


def read_documents(path: Path, populations: Populations, domain: str) -> DocumentSources:
    """Read the table of the sampled documents.

    Args:
        path: of the file.
        populations: those of the run.
        domain: name of the domain.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    table = read_table(path)
    try:
        document = table["document"].to_numpy()
        sides = table["side"].map({side_name(domain, side): int(side) for side in Side}).to_numpy()
        halves = table["half"].map({half.name.lower(): int(half) for half in Half}).to_numpy()
        strata = table["kind"].map({name: number for number, name in enumerate(populations.strata)}).to_numpy()
        numbers = [
            Population(Side(int(side)), Half(int(half)), int(stratum)).number
            for side, half, stratum in zip(sides, halves, strata, strict=True)
        ]
        names = tuple(tuple(sorted(table["source"][sides == side].dropna().unique())) for side in Side)
        number_of = [{name: number for number, name in enumerate(own)} for own in names]
        source = [number_of[int(side)].get(name, NO_NAME) for side, name in zip(sides, table["source"], strict=True)]
        found = DocumentSources(document, np.array(numbers, np.int8), np.array(source, np.int16), (names[0], names[1]))
        valid = document.dtype == np.uint64 and bool((np.diff(document) > 0).all()) and len(numbers) == len(document)
    except READ_ERRORS as error:
        raise damaged(path, error) from None
    if not (valid and all(isinstance(name, str) for own in names for name in own)):
        raise damaged(path, "its documents are not in order")
    return found
