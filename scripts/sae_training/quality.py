"""Measure exported weights on held-out text."""

import torch
from torch import Tensor

from sae_training.activations import Activations
from sae_training.recipe import Recipe
from sae_training.texts import held_out_batches
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter


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


def measure(
    recipe: Recipe, cutter: PassageCutter, activations: Activations, weights: dict[Hookpoint, dict[str, Tensor]]
):
    """Measure on held-out text: hookpoint -> subject, or `all` for all together -> the numbers of `quality`."""
    results: dict[Hookpoint, dict[str, dict[str, float]]] = {place: {} for place in weights}
    everything: dict[Hookpoint, list[Tensor]] = {place: [] for place in weights}
    for subject in recipe.shares:
        read = [activations.read(batch) for batch in held_out_batches(recipe, cutter, subject)]
        for place in weights:
            x = torch.cat([vectors[place] for vectors in read])
            everything[place].append(x)
            results[place][subject] = quality(weights[place], x, recipe.k)
    for place in weights:
        results[place]["all"] = quality(weights[place], torch.cat(everything[place]), recipe.k)
        print(place, {k: round(v, 4) for k, v in results[place]["all"].items()}, flush=True)
    return results
