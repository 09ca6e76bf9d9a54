"""Measure the effects of removing features of a finished result on one text."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from stratalens.commands.effect_plan import Work, describe_work, estimate_work, plan_layers, read_text
from stratalens.commands.finished import recorded_norm_limits, recorded_speed
from stratalens.commands.tried_model import TriedModel
from stratalens.config.effect_options import BUILT_IN_TASKS, EffectConfig
from stratalens.config.options import RunConfig
from stratalens.effects.attributions import Attributions, AttributionSums
from stratalens.effects.changes import FeatureChanges, LayerChanges
from stratalens.effects.feature_effects import feature_effects
from stratalens.effects.layer_effects import layer_effects
from stratalens.effects.layer_run import LayerPlan, layer_ablations, measure_layer
from stratalens.effects.plain_losses import noise_floor
from stratalens.effects.reading import EffectReader
from stratalens.effects.task_effects import AblatedMargins, task_effects
from stratalens.effects.task_items import TaskItem, load_task_items
from stratalens.effects.task_run import TaskRun, TaskTokens, measure_tasks, read_tasks
from stratalens.effects.task_tokens import TokenisedItem, tokenised_items
from stratalens.effects.text import EffectText
from stratalens.effects.value_files import EffectValueFiles, text_digest
from stratalens.errors import ConfigError, ModelError
from stratalens.files.output_dir import WorkDirectories
from stratalens.harvest.context import harvest_context
from stratalens.harvest.inputs import RunInputs, passage_cutter
from stratalens.harvest.store import key_of
from stratalens.harvest.workers import kind_of
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.progress import Advance, Progress
from stratalens.report.publish_effects import EffectFacts, MeasuredEffects
from stratalens.report.saved import Result
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae


class EffectRun(NamedTuple):
    """A finished result, and the text on which the effects of its features are measured."""

    result: Result
    config: RunConfig
    """Options of the run, with those that the command replaces."""
    options: EffectConfig
    inputs: RunInputs
    items: list[TaskItem]
    """Task items; none where no tasks were asked for."""
    warnings: tuple[str, ...]
    """What limits the results and is known from the text."""

    @property
    def text_digest(self) -> str:
        """Of all documents that count."""
        return f"{self.inputs.survey.digest:016x}"


class _Found(NamedTuple):
    """What was measured at all layers."""

    layers: dict[Hookpoint, LayerChanges]
    features: dict[Hookpoint, list[FeatureChanges]]
    attributions: dict[Hookpoint, Attributions]
    margins: dict[Hookpoint, AblatedMargins]
    """On task items."""


class _Reading(NamedTuple):
    """What is read, and what is told of it."""

    text: EffectText
    plans: Mapping[Hookpoint, LayerPlan]
    tasks: TaskRun | None
    cost: Work
    advance: Advance


def make_effect(run: EffectRun, work: WorkDirectories, progress: Progress) -> MeasuredEffects:
    """Measure effects; what was measured before a stop is not measured again.

    Args:
        run: the result and the text.
        work: directories of the result.
        progress: receives messages and counts of tokens.

    Raises:
        StratalensError: the text is too little or cannot be read, or the model cannot be used.
    """
    progress.stage("effects")
    text = read_text(run.config, run.options, run.inputs)
    plans = plan_layers(run.result, run.options, run.inputs)
    number, seed = run.options.control_documents, run.config.seed
    tokens = _tokens_of(run) if run.items else []
    task_tokens = TaskTokens.of(run.items, tokens, number, seed)
    cost = estimate_work(run.result, run.options, run.inputs, text, plans, task_tokens)
    progress.say(describe_work(text, cost, run.result.record.tokens, recorded_speed(run.result.record)))
    opened = TriedModel.load(run.config, run.inputs, progress, head=True)
    if opened.no_head:
        raise ModelError(f"effects need the next-token loss: {opened.no_head}")
    reader = _reader(run, opened, work)
    with torch.inference_mode():
        noise = noise_floor(opened.model, text.control, reader.runner, reader.special_ids, reader.batch_tokens)
        tasks = read_tasks(reader, run.items, tokens, number, seed) if run.items else None
    with progress.track("Measuring effects", cost.total) as advance:
        found = _measure(run, opened, reader, _Reading(text, plans, tasks, cost, advance))
    layers = layer_effects(text.documents, found.layers, run.config.seed)
    features = feature_effects(text.documents, found.features)
    tables = {place: _attribution_table(own, text, plans[place].live) for place, own in found.attributions.items()}
    facts = _facts(run, text, plans, reader, noise)
    return MeasuredEffects(facts, layers, features, tables, _task_rows(run, tasks, found))


def load_items(domain: str, options: EffectConfig) -> list[TaskItem]:
    """The task items that were asked for, if any were.

    Raises:
        ConfigError: a file cannot be used, or the domain has no items of its own.
    """
    if not options.task:
        return []
    items = load_task_items(domain, [path for path in options.task if path != BUILT_IN_TASKS])
    if not items:
        raise ConfigError(f"task: no items ship with the domain {domain}; give a file of your own")
    return items


def _tokens_of(run: EffectRun) -> list[TokenisedItem]:
    return tokenised_items(
        run.items, passage_cutter(run.config.model_copy(update={"min_length": 1}), run.inputs.source)
    )


def _task_rows(run: EffectRun, tasks: TaskRun | None, found: _Found) -> dict[Hookpoint, list[dict[str, object]]]:
    if tasks is None or not found.margins:
        return {}
    effects = task_effects(tasks.items, tasks.plain, found.margins, run.config.seed)
    return {place: [{"kind": kind, **effect.flat()} for kind, effect in own.items()] for place, own in effects.items()}


def _reader(run: EffectRun, opened: TriedModel, work: WorkDirectories) -> EffectReader:
    kind = kind_of(opened.device, choose_dtype(run.config.dtype, opened.device))
    context = harvest_context(run.config, run.inputs, recorded_norm_limits(run.result.record), kind)
    facts = {place: [context.shared, own] for place, own in context.layers.items()}
    files = EffectValueFiles(work.shards, facts)
    tokens = run.config.tokens_per_batch
    return EffectReader(opened.model, BatchRunner(tokens), run.inputs.cutter.special_ids, tokens, files)


def _measure(run: EffectRun, opened: TriedModel, reader: EffectReader, reading: _Reading) -> _Found:
    """Measure all layers, a group whose SAEs fit into memory together after the other."""
    limits, steps = recorded_norm_limits(run.result.record), run.options.ig_steps
    text, plans, found = reading.text, reading.plans, _Found({}, {}, {}, {})
    for group in opened.passes:
        places = [place for place in group if place in plans]
        probes = [replace(probe, norm_limit=limits[probe.hookpoint]) for probe in opened.probes(places)]
        if not probes:
            continue
        share = int(reading.cost.attribution * len(probes) / len(plans))
        advance = _shared(reading.advance, share, len(text.passages) * (len(probes) if steps else 1))
        found.attributions.update(reader.attributions(probes, text, steps, advance))
        for probe in probes:
            _measure_place(reader, probe, reading, found)
    return found


def _measure_place(reader: EffectReader, probe: Probe[Sae], reading: _Reading, into: _Found) -> None:
    place, text = probe.hookpoint, reading.text
    plan, attributions = reading.plans[place], into.attributions[place]
    ablations = layer_ablations(reader, probe, text, plan)
    passages = len(text.passages) + len(text.control.passages)
    advance = _shared(reading.advance, reading.cost.layers[place], passages)
    measured = measure_layer(reader, probe, text, plan, (ablations, attributions), advance)
    into.features[place] = measured.alone
    if measured.together is not None:
        into.layers[place] = measured.together
    if reading.tasks is not None:
        items = reading.tasks.text
        advance = _shared(reading.advance, reading.cost.tasks[place], len(items.passages) + len(items.control.passages))
        margins = measure_tasks(reader, probe, reading.tasks, ablations, advance)
        into.margins.update({} if margins is None else {place: margins})


def _shared(advance: Advance, work: int, passages: int) -> Advance:
    """Report a share of the work for each passage that is done."""
    done = [0]

    def report(number: int, tokens: int) -> None:
        before = work * done[0] // max(1, passages)
        done[0] += number
        advance(work * done[0] // max(1, passages) - before, tokens)

    return report


def _attribution_table(found: Attributions, text: EffectText, live: np.ndarray) -> pd.DataFrame:
    """Means over the documents of each side of the attributions of all live latents."""
    documents = text.documents
    sums = AttributionSums.of(found.by_document(text.document), documents.domain, documents.total, len(live))
    means, errors, latents = sums.means(), sums.standard_errors(), np.flatnonzero(live)
    return pd.DataFrame(
        {
            "feature_number": latents,
            "domain_attribution": means[0, latents],
            "domain_attribution_se": errors[0, latents],
            "general_attribution": means[1, latents],
            "general_attribution_se": errors[1, latents],
            "attribution_difference": means[0, latents] - means[1, latents],
            "attribution_difference_se": np.hypot(*errors[:, latents]),
        }
    )


def _facts(
    run: EffectRun, text: EffectText, plans: Mapping[Hookpoint, LayerPlan], reader: EffectReader, noise: float
) -> EffectFacts:
    documents, options = text.documents, run.options
    removed = {place: plan.together for place, plan in plans.items()}
    dense = {place: _removed_dense(plan) for place, plan in plans.items()}
    device = choose_device(run.config.device)
    return EffectFacts(
        name=options.name,
        digest=_digest(run, text, plans, reader),
        text_digest=run.text_digest,
        domain_documents=int(documents.domain.sum()),
        general_documents=int((~documents.domain).sum()),
        control_documents=options.control_documents,
        tokens=text.tokens,
        random_draws=options.control_sets,
        matched_sets=options.control_sets,
        noise_floor=noise,
        dtype=str(choose_dtype(run.config.dtype, device)).removeprefix("torch."),
        device=device.type,
        seed=run.config.seed,
        ig_steps=options.ig_steps or 0,
        removed=removed,
        dense=dense,
        notes=tuple(_notes(run, text, plans)),
        warnings=run.warnings,
    )


def _removed_dense(plan: LayerPlan) -> list[int]:
    return sorted(set(plan.means) & {*plan.together, *plan.alone})


def _digest(run: EffectRun, text: EffectText, plans: Mapping[Hookpoint, LayerPlan], reader: EffectReader) -> str:
    """Hash of everything that determines what was measured."""
    what = {
        str(place): [list(plan.together), list(plan.alone), plan.control_sets, plan.seed, reader.files.facts[place]]
        for place, plan in plans.items()
    }
    return key_of("effect", text_digest(text, range(len(text.passages))), what, run.options.ig_steps)


def _notes(run: EffectRun, text: EffectText, plans: Mapping[Hookpoint, LayerPlan]) -> Iterable[str]:
    """What a reader must know of how effects were measured."""
    if not run.options.on_other_text and not run.inputs.survey.split:
        yield "nothing was held back: effects are measured on documents that chose the features"
    if not run.result.record.split:
        yield "no feature could be confirmed, so all reported features of a layer are removed together"
    left = sorted(set(run.inputs.saes) - set(plans))
    if left:
        yield f"not measured, as vectors before the gain of a norm cannot be replaced: {' '.join(map(str, left))}"
    without = [str(place) for place, plan in plans.items() if not plan.together]
    if without:
        yield f"no feature is confirmed at {' '.join(without)}, so nothing was removed together there"
    if not text.documents.tokens[:, :2].any():
        yield "the domain has no lexicon, or no term of it is in the text: losses are not told apart by terms"
