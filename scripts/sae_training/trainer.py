"""Train one TopK SAE on batches of vectors."""

import torch
from torch import Tensor

from sae_training.recipe import Recipe


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
            loss = loss + self.auxiliary_loss(x, error.detach(), dead.nonzero().squeeze(1)) * loss.detach()
        self.step(loss)
        return float(error.detach().pow(2).sum() / (x - x.mean(0)).pow(2).sum()), dead_count

    def auxiliary_loss(self, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        """How badly the strongest dead latents reconstruct what is left over, weighted."""
        latents = self.recipe.aux_latents
        raw = (x - self.b_dec.detach()) @ self.W_enc[dead].T + self.b_enc[dead]
        values, indices = raw.topk(min(latents, len(dead)), sorted=False)
        aux = torch.zeros_like(raw).scatter(1, indices, torch.relu(values)) @ self.W_dec[dead]
        weight = self.recipe.aux_weight * min(1.0, len(dead) / latents)
        return weight * (residual - aux).pow(2).mean() / residual.pow(2).mean()

    def step(self, loss: Tensor) -> None:
        """Change the parameters; decoder rows keep length 1."""
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

    @torch.no_grad()
    def exported(self) -> dict[str, Tensor]:
        """Return the weights in sparsify's layout, for activations in the units of the model.

        Weights are float16, and so are the biases of the embedded model; those of another may be too large for that.
        Encoder weights are rounded to values that bfloat16 can represent, so that a product in bfloat16 is exact in
        them; the encoder bias compensates the mean shift that the rounding of b_dec and of the weights causes.
        """
        bias_type = torch.float16 if self.recipe.base_model is None else torch.float32
        centre = self.mean + self.scale * self.b_dec
        b_dec = centre.to(bias_type)
        weight = self.W_enc.bfloat16().half()
        shift = self.W_enc @ (self.mean - centre) - weight.float() @ (self.mean - b_dec.float())
        return {
            "encoder.weight": weight.contiguous(),
            "encoder.bias": (self.scale * self.b_enc + shift).to(bias_type),
            "W_dec": self.W_dec.half().contiguous(),
            "b_dec": b_dec,
        }
