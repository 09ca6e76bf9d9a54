"""The tables of a run: their columns and their order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.effects.effect_scores import FeatureTextEffect, effects_of
from stratalens.hookpoint import Hookpoint
from stratalens.labels.feature_report import LexiconShares
from stratalens.ranking.by_part import TextParts, text_parts
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.ranking.opposed import OPPOSED_COLUMNS, opposed_tables
from stratalens.ranking.rank import TOP_N_PROBABILITY
from stratalens.report.label_tables import LABEL_COLUMNS
from stratalens.report.layer_rows import layer_row
from stratalens.validation.claims import ClaimCount, claim_counts, claim_verdicts, claims_text
from stratalens.validation.token_verdicts import TokenTestScore, token_tests_of
from stratalens.validation.transfer import TransferScore, validations_of

MEASURES = (
    "specialization_low",
    "specialization_high",
    "p_value",
    "q_value",
    "confirmed",
    "transfers",
    "token_test",
    "effect",
    "attribution",
    "causal",
    "claims",
    "auroc",
    "auroc_low",
    "auroc_high",
    "pooled_auroc",
    "transfer",
    "transfer_rank",
    "normalised_specialization",
    "normalised_low",
    "normalised_high",
    "hedges_g",
    "domain_share",
    "domain_score",
    "log_ratio",
    "firing_rate_difference",
    "domain_firing_rate",
    "general_firing_rate",
    "domain_density",
    "general_density",
    "domain_max_activation",
    "general_max_activation",
    "decoder_norm",
    "seed_match",
    "discovery_specialization",
    "discovery_auroc",
    TOP_N_PROBABILITY,
    *LexiconShares._fields,
    "flags",
)
"""Columns of measures, in this order after the columns that identify a feature."""
PLACE_COLUMNS = ("layer", "site")
"""Columns that name a hookpoint: the number of its block and one of `SITE_NAMES`."""
DOMAIN_COLUMNS = ("domain_activation", "domain_firing_rate", "domain_density", "domain_max_activation")
"""Columns whose names in the files begin with the name of the domain."""


@dataclass(frozen=True)
class Tables:
    """All tables of a run, in the names and order of their files."""

    domain: str
    features: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> reported features."""
    latents: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> every latent."""
    opposed: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> features that fire less on the domain, best first; empty in results of earlier versions."""
    consolidated: pd.DataFrame
    """Reported features of all layers, best first."""
    layers: pd.DataFrame
    """One row per layer, best first."""
    best: pd.DataFrame
    """The first rows of `consolidated` that reach `min_specialization`."""
    below_threshold: int
    """Number of reported features whose specialization is below `min_specialization`."""
    csv_bom: bool
    """Whether CSV files begin with a byte order mark."""
    parts: dict[Hookpoint, dict[int, TextParts]]
    """Hookpoint -> reported feature -> its AUROCs by kind and by source; empty in results of earlier versions."""
    validations: dict[Hookpoint, dict[int, list[TransferScore]]]
    """Hookpoint -> reported feature -> its scores on other texts."""
    verdicts: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> which tests its reported features passed, see `claim_verdicts`; rows as in `features`."""
    token_tests: dict[Hookpoint, dict[int, TokenTestScore]]
    """Hookpoint -> reported feature that was tested -> its score in the token test."""
    effects: dict[Hookpoint, dict[int, list[FeatureTextEffect]]]
    """Hookpoint -> reported feature -> what removing it does, on each text on which it was removed."""

    @property
    def claims(self) -> list[ClaimCount]:
        """How many of the reported features passed each test."""
        return claim_counts(self.verdicts.values())


def build_tables(
    config: RunConfig,
    top: Mapping[Hookpoint, pd.DataFrame],
    latents: Mapping[Hookpoint, pd.DataFrame],
    facts: Mapping[Hookpoint, LayerFacts],
) -> Tables:
    """Arrange ranked features into the tables of the result.

    Args:
        config: the name of the domain, how layers are compared, the limits of the table of best features, and how CSV
            files begin.
        top: hookpoint -> reported features, in the columns of the ranking.
        latents: hookpoint -> every latent, in the same columns.
        facts: hookpoint -> what the layer comparison shows besides the features.
    """
    domain = config.domain
    validations = {hookpoint: validations_of(table) for hookpoint, table in top.items()}
    verdicts = _verdicts(top, validations)
    features = _reported_tables({place: _with_claims(own, verdicts[place]) for place, own in top.items()}, domain)
    all_latents = {
        hookpoint: with_place(_published_table(table, domain, ["live", "selected"], OPPOSED_COLUMNS), hookpoint)
        for hookpoint, table in latents.items()
    }
    sort_column = "normalised_specialization" if config.compare_layers_by == "normalised" else "specialization"
    consolidated = _consolidated(features, domain, sort_column)
    above_threshold = consolidated[consolidated["specialization"] >= config.min_specialization]
    rows = [layer_row(place, own, verdicts[place], all_latents[place], facts[place]) for place, own in features.items()]
    order = [f"avg_{sort_column}", *PLACE_COLUMNS]
    layers = pd.DataFrame(rows).sort_values(order, ascending=[False, True, True], ignore_index=True)
    return Tables(
        domain=domain,
        features=features,
        latents=all_latents,
        opposed=_reported_tables(opposed_tables(latents), domain),
        consolidated=consolidated,
        layers=layers,
        best=above_threshold.head(config.top_features_n).reset_index(drop=True),
        below_threshold=len(consolidated) - len(above_threshold),
        csv_bom=config.csv_bom,
        parts={hookpoint: text_parts(table) for hookpoint, table in top.items()},
        validations=validations,
        verdicts=verdicts,
        token_tests={hookpoint: token_tests_of(table) for hookpoint, table in top.items()},
        effects={hookpoint: effects_of(table) for hookpoint, table in top.items()},
    )


def _verdicts(
    top: Mapping[Hookpoint, pd.DataFrame], validations: Mapping[Hookpoint, Mapping[int, Sequence[TransferScore]]]
) -> dict[Hookpoint, pd.DataFrame]:
    """Hookpoint -> which tests its reported features passed, in the validations of features of all hookpoints."""
    names = {score.name for own in validations.values() for scores in own.values() for score in scores}
    return {hookpoint: claim_verdicts(table, names) for hookpoint, table in top.items()}


def _with_claims(table: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Reported features with the tests that they passed, and the columns of tests not made."""
    return table.assign(causal=verdicts["causal"], claims=claims_text(verdicts))


def _reported_tables(top: Mapping[Hookpoint, pd.DataFrame], domain: str) -> dict[Hookpoint, pd.DataFrame]:
    """The published tables of features that have ranks."""
    return {
        hookpoint: _published_table(table.assign(site=hookpoint.site_name), domain, ["rank", "site"])
        for hookpoint, table in top.items()
    }


def _consolidated(features: Mapping[Hookpoint, pd.DataFrame], domain: str, sort_column: str) -> pd.DataFrame:
    """The reported features of all layers, best first by a measure that can be compared between layers."""
    rows = pd.concat([with_place(table, hookpoint) for hookpoint, table in features.items()], ignore_index=True)
    lead = ["feature_number", f"{domain}_activation", "general_activation", "specialization", "rank", *PLACE_COLUMNS]
    rows = rows[[*lead, *(name for name in rows if name not in lead)]]
    order = [sort_column, "layer", "feature_number", "site"]
    return rows.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def with_place(table: pd.DataFrame, hookpoint: Hookpoint) -> pd.DataFrame:
    """A table with the columns that name the hookpoint of all its rows."""
    return table.assign(layer=hookpoint.block, site=hookpoint.site_name)


def places(table: pd.DataFrame) -> list[str]:
    """Name of the hookpoint of each row, such as `28` or `28_mlp`; results of older versions have no column `site`.

    Raises:
        ValueError: a row has no hookpoint.
    """
    sites = table["site"] if "site" in table else ["resid"] * len(table)
    return [str(Hookpoint.at(int(layer), site)) for layer, site in zip(table["layer"], sites, strict=True)]


def norm_owner(hookpoints: Iterable[Hookpoint]) -> str:
    """What shares of a norm are of: the `residual stream`, or the `hookpoint` where one is at another site."""
    return "residual stream" if all(hookpoint.site == "resid" for hookpoint in hookpoints) else "hookpoint"


def _published_table(table: pd.DataFrame, domain: str, extra: list[str], last: Iterable[str] = ()) -> pd.DataFrame:
    """The columns of a ranking that are published, in their order and under their names in the files."""
    lead = ["feature_number", "domain_activation", "general_activation", "specialization"]
    optional = [name for name in (*MEASURES, *LABEL_COLUMNS, *last) if name in table]
    chosen = table[[*lead, *extra, *optional]]
    return chosen.rename(columns={name: published_name(name, domain) for name in chosen})


def published_name(column: str, domain: str) -> str:
    """The name in the files of a column of the ranking: measures of the domain side carry the domain's name."""
    return column.replace("domain_", f"{domain}_") if column in DOMAIN_COLUMNS else column
