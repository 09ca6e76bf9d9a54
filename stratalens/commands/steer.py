"""Steer a model by features of a finished result, or write what would be added as a control vector."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stratalens.commands.check_model import NOT_REPLACEABLE
from stratalens.commands.export_vector import export_vector
from stratalens.commands.finished import require_same_models
from stratalens.commands.sources import MODEL_SOURCES, require_allowed_sources
from stratalens.commands.tried_model import TriedModel
from stratalens.config.options import RunConfig
from stratalens.config.steer_options import DEFAULT_TEMPERATURE, SteerConfig, WeightedFeature
from stratalens.effects.continuation import Sampling, Writing, continue_tokens, perplexity
from stratalens.effects.control_vector import require_writable
from stratalens.effects.steering import Addition, Steering, additions_of, mean_when_active
from stratalens.errors import ConfigError, ModelError, counted
from stratalens.files.locations import user_path
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.inputs import ModelInputs, find_model_inputs
from stratalens.models.families import can_replace
from stratalens.models.limits import context_length
from stratalens.models.source import skeleton
from stratalens.progress import NoProgress, Progress
from stratalens.report import load_result
from stratalens.report.saved import Result, require_feature


class SteeringFeature(NamedTuple):
    """A feature that steers, as the result knows it."""

    own: WeightedFeature
    label: str
    """Empty for a feature that is not reported."""
    mean_activation: float
    """Over the positions of domain text at which it fires."""


class Continuation(NamedTuple):
    """What a model writes after a prompt."""

    text: str
    """Empty if it ends at once."""
    perplexity: float | None
    """Under the plain model, given the prompt; None for an empty text."""


class SteeredText(NamedTuple):
    """What a model writes after a prompt, plain and steered."""

    prompt: str
    plain: Continuation
    steered: Continuation


class Steered(NamedTuple):
    """What came of steering."""

    features: list[SteeringFeature]
    pushes: list[str]
    """What is added at each place, in words."""
    texts: list[SteeredText]
    exported: Path | None


def steer(
    directory: Path, features: Sequence[WeightedFeature], options: SteerConfig, progress: Progress | None = None
) -> Steered:
    """Steer the model of a finished result, which stays as it is.

    Args:
        directory: the `output_dir` of a run.
        features: different ones, with their weights.
        options: prompts, strength, and where to write a control vector.
        progress: receives messages, warnings and counts of tokens.

    Raises:
        StratalensError: there is no such result or feature, model or SAEs have changed or must be fetched without
            permission, the model has no head, or a prompt or a file cannot be used.
    """
    progress = progress or NoProgress()
    result = load_result(directory)
    chosen = [_steering_feature(result, own) for own in features]
    path = None if options.export is None else user_path(options.export)
    if path is not None:
        require_writable(path, overwrite=options.overwrite)
    config = with_batch_tokens(_config(result, options))
    with torch.inference_mode():
        inputs = _find_inputs(result, config, features, progress)
        prompts = [_prompt_ids(inputs, text, options.max_new_tokens) for text in options.prompt]
        means = {own.own: own.mean_activation for own in chosen}
        additions = additions_of(features, means, inputs.saes, options.strength)
        if path is not None:
            export_vector(path, result, (features, options.strength, additions), inputs.source, progress)
        texts = _write(config, inputs, additions, (options, prompts), progress) if prompts else []
    return Steered(chosen, [_push(result, own) for own in additions], texts, path)


def _steering_feature(result: Result, own: WeightedFeature) -> SteeringFeature:
    """What the result knows of a feature.

    Raises:
        ConfigError: there is no such feature, or it never fires on domain text.
    """
    require_feature(result, own.hookpoint, own.feature)
    stats = result.harvest[own.hookpoint].state(len(result.findings.latents[own.hookpoint])).stats
    mean = mean_when_active(stats, result.record.populations, own.feature)
    if mean is None:
        fires = own.feature in stats.latents
        where = f"fires on no {result.config.domain} text of the run" if fires else "is dead: it fires on no text"
        raise ConfigError(f"feature {own} {where}, so that it has no mean activation to multiply; choose another")
    top = result.findings.top[own.hookpoint]
    labels = top.loc[top["feature_number"] == own.feature, "label"].tolist()
    return SteeringFeature(own, str(labels[0]) if labels else "", mean)


def _config(result: Result, options: SteerConfig) -> RunConfig:
    given: dict[str, object] = {
        name: getattr(options, name) for name in ("memory_gb", "trust_remote_code", "allow_fetch")
    }
    given |= {"device": options.device} if options.device else {}
    return result.config.model_copy(update=given | {"output_dir": str(result.output_dir)})


def _find_inputs(
    result: Result, config: RunConfig, features: Iterable[WeightedFeature], progress: Progress
) -> ModelInputs:
    """Find model and SAEs, and check that they are those of the run and that steering can change what is there.

    Raises:
        ConfigError: one has changed, or must be fetched without permission.
        ModelError: vectors cannot be replaced where an SAE reconstructs them.
    """
    require_allowed_sources(result.output_dir / RECORD_FILE, config, MODEL_SOURCES, is_record=True)
    inputs = find_model_inputs(config, progress, {own.hookpoint for own in features})
    require_same_models(result, inputs)
    for sae in inputs.saes.values():
        if not can_replace(skeleton(inputs.source), sae.target):
            raise ModelError(f"layer {sae.hookpoint} cannot steer: {NOT_REPLACEABLE}; choose features of another site")
    return inputs


def _prompt_ids(inputs: ModelInputs, text: str, max_new_tokens: int) -> torch.Tensor:
    """Token ids of a prompt.

    Raises:
        ConfigError: it has no tokens, or leaves too little of the model's context.
    """
    ids, longest = inputs.cutter.prompt(text), context_length(inputs.source)
    if not len(ids):
        raise ConfigError("a prompt has no tokens; give at least one word to continue")
    if longest is not None and len(ids) + max_new_tokens > longest:
        raise ConfigError(
            f"a prompt has {counted(len(ids), 'token')}, which with --max_new_tokens {max_new_tokens:,} may come to "
            f"more than the {longest:,} that {inputs.source.name} takes; shorten it, or lower --max_new_tokens"
        )
    return torch.from_numpy(np.asarray(ids, dtype=np.int64))


def _write(
    config: RunConfig,
    inputs: ModelInputs,
    additions: Sequence[Addition],
    wanted: tuple[SteerConfig, Sequence[torch.Tensor]],
    progress: Progress,
) -> list[SteeredText]:
    """Load the model and continue each prompt, plain and steered."""
    options, prompts = wanted
    loaded = TriedModel.load(config, inputs, progress, head=True)
    if loaded.no_head:
        raise ModelError(f"{inputs.source.name}: it cannot write: {loaded.no_head}")
    seed, temperature = options.seed, options.temperature or DEFAULT_TEMPERATURE
    sampling = None if seed is None else Sampling(seed, temperature)
    writing = Writing(options.max_new_tokens, _stop_ids(loaded, inputs), sampling)
    texts = []
    with progress.track("Writing", 2 * len(prompts) * options.max_new_tokens) as advance:
        for text, ids in zip(options.prompt, prompts, strict=True):
            steering = Steering(additions, inputs.cutter.special_ids)
            both = []
            for own in (None, steering):
                written = continue_tokens(loaded.model, ids, writing, own, lambda tokens: advance(tokens, tokens))
                told = perplexity(loaded.model, ids, written)
                both.append(Continuation(_text_of(inputs, ids.tolist(), written), told))
            texts.append(SteeredText(text, *both))
    return texts


def _stop_ids(loaded: TriedModel, inputs: ModelInputs) -> frozenset[int]:
    """Ids of the tokens that end a text: the model's, and the tokenizer's."""
    generation = getattr(loaded.model, "generation_config", None)
    declared = getattr(generation, "eos_token_id", None)
    of_model = declared if isinstance(declared, list | tuple) else [declared]
    own = [*of_model, getattr(inputs.cutter.tokenizer, "eos_token_id", None)]
    return frozenset(number for number in own if isinstance(number, int))


def _text_of(inputs: ModelInputs, prompt: list[int], written: list[int]) -> str:
    """Text of what was written, with the space before it that a tokenizer leaves out at the start of a text."""
    decode = inputs.cutter.token_text
    whole, before = decode([*prompt, *written]), decode(prompt)
    return whole[len(before) :] if whole.startswith(before) else decode(written)


def _push(result: Result, addition: Addition) -> str:
    """What is added at a place, in words; its norm beside that of the vectors there, where both are known."""
    own = f"SAE of layer {addition.hookpoint}: added at {addition.target}"
    if not addition.is_constant:
        return f"{own}, scaled to each vector"
    norm = float(addition.constant().norm())
    if addition.target != addition.hookpoint:
        return f"{own}, norm {norm:.3g}"
    median = result.record.self_check[str(addition.hookpoint)].median_norm
    return f"{own}, norm {norm:.3g}, {100 * norm / median:.0f}% of the median norm there"
