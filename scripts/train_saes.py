"""Train TopK SAEs of a causal language model; by default those that are shipped with stratalens, with their model card.

    python scripts/train_saes.py --corpora DIR [--output stratalens/data/saes/NAME]
    python scripts/train_saes.py --base_model MODEL --layers 5 9 --sites resid mlp attn --output SAES [--corpora DIR]

DIR holds `financial_*.jsonl.gz`, `general_*.jsonl.gz`, `medical_*.jsonl.gz` and `legal_*.jsonl.gz` (columns `text`,
`source`, `id`); without it the built-in texts are read. One document in twenty, chosen by a hash of its id up to `#`,
is held out to measure quality.
Recipe: TopK with an auxiliary loss on dead latents (Gao et al. 2024, "Scaling and evaluating sparse autoencoders",
section 2.4 and appendix A), on inputs that are centred and scaled to unit mean square; the exported weights include
both.
Two additions keep a direction from being split over many latents: the first latents start at the leading principal
components, and the few strongest latents of a token must also reconstruct it alone. Without them, about twenty latents
of layer 4 shared the direction of its strong ` the` positions, and each was reported as a feature.
"""

import json
import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
import tyro
from sae_training.activations import Activations
from sae_training.export import export, modules_of
from sae_training.model_card import write_model_card
from sae_training.quality import measure
from sae_training.recipe import Recipe
from sae_training.texts import sources, training_batches
from sae_training.trainer import Trainer
from torch import Tensor, nn

from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.files.hashing import sha256_of
from stratalens.harvest.inputs import passage_cutter
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter
from stratalens.models.batches import TokenBatch
from stratalens.models.embedded import MODEL_PACKAGE, SAE_DIRECTORY
from stratalens.models.loading import Placement, load_blocks
from stratalens.models.site_check import require_true_sites
from stratalens.models.source import ModelSource, find_model

STEP_SHARE = 0.95
"""Share of the tokens that are trained on; sinks and the rest of a batch make up the difference."""
REPORT_EVERY = 25
"""Steps."""


def open_model(recipe: Recipe) -> tuple[ModelSource, PassageCutter, nn.Module]:
    """Find model and tokenizer, and load the blocks that are needed, in bfloat16.

    Raises:
        ConfigError: no folder is named, and the SAEs are not those that are shipped.
    """
    if recipe.output == SAE_DIRECTORY and not recipe.is_of_shipped_saes:
        raise ConfigError("name a folder with --output; the shipped SAEs are those of the embedded model and --corpora")
    models = {"base_model": recipe.base_model, "sae_model": str(recipe.output)} if recipe.base_model else {}
    config = make_config(**models, revision=recipe.revision, max_length=recipe.max_length, min_length=16)
    source = find_model(config, print)
    placement = Placement(torch.device("cpu"), torch.bfloat16)
    model = load_blocks(source, max(recipe.layers) + 1, placement, print)
    require_true_sites(model, recipe.hookpoints)
    return source, passage_cutter(config, source), model


def train(recipe: Recipe, activations: Activations, batches: Sequence[TokenBatch]) -> dict[Hookpoint, Trainer]:
    """Train all SAEs on the same tokens."""
    started, trainers = time.time(), dict[Hookpoint, Trainer]()
    steps = number_of_steps(recipe, batches)
    for step, vectors in enumerate(islice(activations.shuffled(batches, recipe), steps)):
        outcomes = {}
        for place, x in vectors.items():
            if place not in trainers:
                trainers[place] = Trainer(recipe, x, steps, seed=recipe.seed + place.block)
            outcomes[place] = trainers[place].train(x)
        if step % REPORT_EVERY == 0:
            line = "  ".join(f"{place}: fvu {fvu:.3f} dead {dead}" for place, (fvu, dead) in outcomes.items())
            print(f"{step}/{steps} {time.time() - started:.0f} s  {line}", flush=True)
    return trainers


def number_of_steps(recipe: Recipe, batches: Sequence[TokenBatch]) -> int:
    """Optimiser steps of the training."""
    tokens = recipe.epochs * sum(batch.tokens for batch in batches)
    return math.floor(tokens / recipe.batch_tokens * STEP_SHARE)


def main(recipe: Recipe) -> None:
    """Train, export and measure."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # pyright: ignore[reportAttributeAccessIssue]
    started = time.time()
    source, cutter, model = open_model(recipe)
    modules = modules_of(model, recipe.hookpoints)
    activations = Activations(model, recipe.hookpoints)
    batches = training_batches(recipe, cutter)
    trainers = train(recipe, activations, batches)
    weights: dict[Hookpoint, dict[str, Tensor]] = {place: trainer.exported() for place, trainer in trainers.items()}
    files = {modules[place]: export(recipe, modules[place], own) for place, own in weights.items()}
    seconds = time.time() - started
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    dropped = 1 - activations.kept / activations.seen
    results = measure(recipe, cutter, activations, weights)
    record = {
        "model": Path(source.name).name,
        **({"model_package": MODEL_PACKAGE} if recipe.base_model is None else {"model_digest": source.digest}),
        "recipe": recipe.recorded(),
        "training_tokens": number_of_steps(recipe, batches) * recipe.batch_tokens,
        "training_seconds": round(seconds),
        "dropped_share": dropped,
        "sources": {
            path.name if recipe.corpora else f"{path.parent.name}/{path.name}": sha256_of(path)
            for path in sources(recipe)
        },
        "weights": {module: sha256_of(path) for module, path in files.items()},
        "held_out": {str(place): measured for place, measured in results.items()},
    }
    (recipe.output / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    if recipe.is_of_shipped_saes:
        write_model_card(recipe.output)


if __name__ == "__main__":
    main(tyro.cli(Recipe, description=__doc__, use_underscores=True))
