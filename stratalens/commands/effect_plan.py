"""What `effect` removes at each layer of a result, on which text, and about how long that takes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from stratalens.config.effect_options import EffectConfig
from stratalens.config.options import RunConfig
from stratalens.corpus.builtin import BUILT_IN_DOMAINS
from stratalens.effects.layer_run import LayerPlan
from stratalens.effects.task_run import TaskTokens
from stratalens.effects.text import EffectText, effect_text, read_effect_passages
from stratalens.errors import ConfigError, CorpusError, counted
from stratalens.harvest.inputs import RunInputs
from stratalens.hookpoint import Hookpoint
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.concepts.term_tokens import tokens_of_terms
from stratalens.models.families import can_replace
from stratalens.models.limits import rows_of_embedding
from stratalens.models.source import skeleton
from stratalens.report.saved import Result

MIN_SIDE_DOCUMENTS = 3
BLOCK_WEIGHTS = 12
"""A block has about so many weights for each component squared, which says how many blocks a head is worth."""
HEAD_PASSES = 2
"""The distributions that are compared take about as long as the head that gives them."""
GRADIENT_PASSES = 3
"""A forward and a backward pass take about so many times as long as a forward pass."""


class Work(NamedTuple):
    """Tokens that are run, each counted by the share of the harvest's blocks that it passes through."""

    attribution: int
    layers: Mapping[Hookpoint, int]
    tasks: Mapping[Hookpoint, int]
    """Of task items at each hookpoint; at most, as the model may not solve all of them."""

    @property
    def total(self) -> int:
        """Of everything."""
        return self.attribution + sum(self.layers.values()) + sum(self.tasks.values())


def read_text(config: RunConfig, options: EffectConfig, inputs: RunInputs) -> EffectText:
    """Read the documents on which effects are measured.

    Raises:
        CorpusError: they are too few, or a file cannot be read any more.
        ConfigError: a lexicon cannot be used.
    """
    passages = read_effect_passages(inputs.corpus, inputs.survey, inputs.cutter, options.documents, config.seed)
    has_lexicon = config.domain in BUILT_IN_DOMAINS or bool(config.lexicon)
    of_term = tokens_of_terms(passages, load_lexicon(config.domain, config.lexicon)) if has_lexicon else None
    text = effect_text(passages, of_term, inputs.cutter.special_ids, options.control_documents, config.seed)
    for number, side in ((text.documents.domain.sum(), config.domain), ((~text.documents.domain).sum(), "general")):
        if number < MIN_SIDE_DOCUMENTS:
            raise CorpusError(
                f"{counted(int(number), 'document')} of the {side} side have tokens to predict, and at least "
                f"{MIN_SIDE_DOCUMENTS} are needed; give more or longer texts"
            )
    return text


def plan_layers(result: Result, options: EffectConfig, inputs: RunInputs) -> dict[Hookpoint, LayerPlan]:
    """What is removed at each layer.

    Raises:
        ConfigError: nothing is, or vectors cannot be replaced at any layer.
    """
    plans = {
        place: _plan(result, options, place)
        for place, sae in inputs.saes.items()
        if can_replace(skeleton(inputs.source), sae.target)
    }
    if not any(plan.together or plan.alone for plan in plans.values()):
        raise ConfigError(
            "nothing can be removed: no feature is reported, or all layers are read before the gain of a norm, where "
            "vectors cannot be replaced"
        )
    return plans


def _plan(result: Result, options: EffectConfig, place: Hookpoint) -> LayerPlan:
    top, latents = result.findings.top[place], result.findings.latents[place]
    numbers = top["feature_number"].astype(int)
    chosen = numbers[_confirmed(top)] if result.record.split else numbers
    flagged = latents.loc[[("dense" in str(flags).split("; ")) for flags in latents["flags"]]]
    dense = zip(flagged["feature_number"].astype(int).tolist(), flagged["general_activation"].tolist(), strict=True)
    return LayerPlan(
        hookpoint=place,
        together=tuple(chosen.tolist()),
        alone=tuple(numbers.tolist()[: options.ablate]),
        means={latent: float(mean) for latent, mean in dense},
        live=_live(latents),
        control_sets=options.control_sets,
        seed=result.config.seed,
    )


def _confirmed(top: pd.DataFrame) -> list[bool]:
    return [bool(verdict) if pd.notna(verdict) else False for verdict in top["confirmed"]]


def _live(latents: pd.DataFrame) -> np.ndarray:
    live = np.zeros(len(latents), bool)
    live[latents["feature_number"].to_numpy(np.int64)] = latents["live"].to_numpy(bool)
    return live


def estimate_work(
    result: Result,
    options: EffectConfig,
    inputs: RunInputs,
    text: EffectText,
    plans: Mapping[Hookpoint, LayerPlan],
    tasks: TaskTokens,
) -> Work:
    """About how much is run, counted in tokens of the harvest's forward pass."""
    source = inputs.source
    deepest = max(inputs.saes).block + 1
    head = HEAD_PASSES * rows_of_embedding(source) / (BLOCK_WEIGHTS * source.d_model)
    whole = (source.num_layers + head) / deepest
    passes = options.ig_steps * len(plans) if options.ig_steps else 1
    layers, of_tasks = {}, {}
    for place, plan in plans.items():
        latents = result.findings.latents[place]
        rates = latents[["domain_firing_rate", "general_firing_rate"]].to_numpy(np.float64).mean(1)
        by_latent = dict(zip(latents["feature_number"].tolist(), rates.tolist(), strict=True))
        firing = {latent: 1.0 if latent in plan.means else by_latent[latent] for latent in plan.alone}
        share = (source.num_layers - inputs.saes[place].target.block + head) / deepest
        layers[place] = plan.work(firing, text, share)
        of_tasks[place] = int((tasks.every + 2 * plan.control_sets * tasks.controls) * share) if plan.together else 0
    return Work(int(text.tokens * GRADIENT_PASSES * whole * passes), layers, of_tasks)


def describe_work(text: EffectText, work: Work, tokens: int, speed: float | None) -> str:
    """Say on how many documents what is run, and how long that takes at the speed of the harvest.

    Args:
        text: the documents.
        work: what is run.
        tokens: of the harvest.
        speed: of the harvest, tokens per second, if it is known.
    """
    domain, control = text.documents.domain, text.documents.control
    minutes = "" if not speed else f", about {max(1, round(work.total / speed / 60)):,} min at its speed"
    return (
        f"Effects: {domain.sum():,} domain and {(~domain).sum():,} general documents, controls on "
        f"{(domain & control).sum():,} and {(~domain & control).sum():,} of them; as much work as reading "
        f"{work.total:,} tokens, {work.total / max(1, tokens):.1f} times the harvest{minutes}"
    )
