"""Do selected features carry over? Select on some sources of text, judge on one that had no part in anything.

    python bench/transfer.py --corpora DIR [--domain financial] [--documents 160] [--folder DIR]

The shipped SAEs were trained on these corpora, though not on which text is of the domain: all numbers on them are
flattered alike, so orders compare. Share of the selected features with AUROC above 0.6, mean over layers; the intervals
are from samples of documents and of sources, with replacement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import tyro
from transfer_contrasts import (
    Contrast,
    built_in_outside,
    corpus_to_corpus,
    leave_one_kind_out,
    leave_one_origin_out,
)
from transfer_data import Texts, read_texts
from transfer_orders import ORDERS, orders_of

from stratalens.ranking.separation import separation

GOOD_AUROC = 0.6
ITSELF = "selected on itself"
ORACLE = "best possible"
RANDOM = "random live"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    corpora: Path
    """Folder of `DOMAIN_*.jsonl.gz` and `general_*.jsonl.gz`."""
    domain: str = "financial"
    """A built-in domain."""
    documents: int = 160
    """Documents of each corpus."""
    folder: Path | None = None
    """Where texts and harvest go, to be used again. Default: a temporary folder."""
    top_n: int = 30
    """Features selected of each layer."""
    samples: int = 100
    """Samples of documents and sources from which intervals are made."""


Shares = dict[str, list[float]]
"""Name of an order -> share of good features, and under `NAME AUROC` their mean AUROC, of each layer."""


def judge(texts: Texts, contrast: Contrast, options: Options) -> pd.DataFrame:
    """How good the features of each order are: one row for all documents, then one for each sample of them."""
    rows = [Shares() for _ in range(options.samples + 1)]
    for layer, documents in texts.layers.items():
        orders = orders_of(texts, layer, contrast.selected_on)
        chosen = {name: top(order, options.top_n) for name, order in orders.items()}
        area = aurocs(documents.dense, contrast.judged_on)
        _add(rows[0], area, chosen)
        live = area[(documents.dense > 0).any(0)]
        _add(rows[0], live, {ORACLE: top(live, options.top_n), RANDOM: np.arange(len(live))})
        rows[0].setdefault(ITSELF, []).append(_itself(documents.dense, contrast.judged_on, options.top_n))
        latents = np.unique(np.concatenate(list(chosen.values())))
        chosen = {name: np.searchsorted(latents, own) for name, own in chosen.items()}
        rng = np.random.default_rng(0)
        for row in rows[1:]:
            drawn = [tuple(rng.choice(side, len(side)) for side in pair) for pair in contrast.judged_on]
            _add(row, aurocs(documents.dense[:, latents], drawn), chosen)
    return pd.DataFrame([{name: float(np.mean(own)) for name, own in row.items()} for row in rows])


def aurocs(dense: np.ndarray, pairs: Iterable[tuple[np.ndarray, ...]]) -> np.ndarray:
    """AUROC of each column on the documents of some rows."""
    return separation([(dense[domain], dense[general]) for domain, general in pairs]).auroc


def _add(shares: Shares, area: np.ndarray, chosen: Mapping[str, np.ndarray]) -> None:
    for name, features in chosen.items():
        shares.setdefault(name, []).append(float((area[features] > GOOD_AUROC).mean()))
        shares.setdefault(f"{name} AUROC", []).append(float(area[features].mean()))


def top(order: np.ndarray, count: int) -> np.ndarray:
    """The latents that come first in an order."""
    return np.argsort(-order, kind="stable")[:count]


def _itself(dense: np.ndarray, judged_on: Iterable[tuple[np.ndarray, np.ndarray]], count: int) -> float:
    """Share for features selected by AUROC on one half of the source and judged on the other; mean of both ways."""
    halves = [[tuple(rows[half::2] for rows in pair) for pair in judged_on] for half in (0, 1)]
    areas = [aurocs(dense, half) for half in halves]
    return float(np.mean([(areas[1 - at][top(areas[at], count)] > GOOD_AUROC).mean() for at in (0, 1)]))


def table(judged: dict[str, pd.DataFrame], options: Options) -> pd.DataFrame:
    """One row per source and one for their mean, whose intervals are from samples of sources and documents."""
    rng = np.random.default_rng(1)
    rows = {name: samples.iloc[0] for name, samples in judged.items()}
    found = pd.DataFrame(rows).T
    mean = found.mean()
    names = list(judged)
    draws = []
    for sample in range(1, options.samples + 1):
        picked = rng.choice(names, len(names))
        draws.append(pd.DataFrame([judged[name].iloc[sample] for name in picked]).mean())
    low, high = (pd.DataFrame(draws).quantile(share) for share in (0.025, 0.975))
    found.loc["mean"] = mean
    found.loc["mean, low"] = low.reindex(found.columns)
    found.loc["mean, high"] = high.reindex(found.columns)
    return found


def differences(judged: dict[str, pd.DataFrame], options: Options, than: str) -> pd.DataFrame:
    """How much better each order is than one of them, with the interval over samples of sources and documents."""
    rng = np.random.default_rng(1)
    names, draws = list(judged), []
    for sample in range(options.samples + 1):
        picked = names if sample == 0 else rng.choice(names, len(names))
        mean = pd.DataFrame([judged[name].iloc[sample] for name in picked]).mean()
        draws.append(mean[list(ORDERS)] - mean[than])
    samples = pd.DataFrame(draws)
    ends = samples.iloc[1:].quantile([0.025, 0.975])
    return pd.DataFrame({"difference": samples.iloc[0], "low": ends.iloc[0], "high": ends.iloc[1]})


def main(options: Options) -> None:
    """Judge all orders on all sources and print the tables."""
    with TemporaryDirectory() as temporary:
        texts = read_texts(options.domain, options.corpora, options.folder or Path(temporary), options.documents)
    sections = {
        "From the built-in texts to the corpora": built_in_outside(texts),
        "From one corpus of each side to others": corpus_to_corpus(texts),
        "One source left out, with its kind": leave_one_origin_out(texts),
        "Built-in texts, one kind left out": leave_one_kind_out(texts),
    }
    pd.set_option("display.width", 220, "display.max_columns", 40, "display.float_format", "{:.3f}".format)
    for title, contrasts in ((title, own) for title, own in sections.items() if own):
        judged = {contrast.name: judge(texts, contrast, options) for contrast in contrasts}
        found = table(judged, options)
        ends = [RANDOM, ORACLE, ITSELF]
        print(f"\n{title}: share of the top {options.top_n} with AUROC above {GOOD_AUROC}")
        print(found[[*ORDERS, *ends]].to_string())
        print("\nMean AUROC of the same features")
        print(found[[f"{name} AUROC" for name in ORDERS]].set_axis(list(ORDERS), axis=1).to_string())
        print("\nShare compared with that by AUROC")
        print(differences(judged, options, "auroc").to_string())


if __name__ == "__main__":
    main(tyro.cli(Options))
