"""Sets of other live latents that remove about as much norm as a set does, on domain and on general text separately.

Latents that were chosen to fire on the domain remove more norm there, so a control must match on each side: otherwise a
difference of losses says no more than that something was removed on one side and not on the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from stratalens.effects.ablations import EncodedTokens, LatentSet
from stratalens.files.hashing import hash64
from stratalens.saes.sae import Sae

CANDIDATES = 64
"""So many random latents are compared for each place in a set, and at most an eighth of those that are left."""
ALIKE = 4
"""Of so many whose norms have the ratio of what is missing, the largest is added."""
ENOUGH = 0.02
"""A set is complete when its sums differ by at most this share from what is wanted."""
MAX_GROWTH = 40
"""A set may have so many times the latents of the one that it is matched to, or `MIN_ALLOWED` if that is more."""
MIN_ALLOWED = 50
ROUNDS = 8
"""Times that a set is drawn, each aimed where the last one missed."""


class MatchedSet(NamedTuple):
    """A control, and how its removed norm compares to that of the set."""

    latents: tuple[int, ...]
    domain_ratio: float
    """Norm that it removes on domain text over that of the set."""
    general_ratio: float


@dataclass(frozen=True)
class NormMatcher:
    """Draws sets that are matched to one on some text."""

    sae: Sae
    own: LatentSet
    text: Sequence[tuple[EncodedTokens, Bool[np.ndarray, "_"]]]
    """Tokens of each batch, and whether each token is in a domain passage."""
    live: Bool[np.ndarray, "latent"]
    """Latents that may be drawn; those of the set are left out."""
    identity: tuple[int, str]
    """Seed and hookpoint, which give other sets."""

    @cached_property
    def norms(self) -> Float[np.ndarray, "side latent"]:
        """Sum over the tokens of each side of the norm that each latent removes by itself."""
        sums = torch.zeros(2, self.sae.num_latents, dtype=torch.float64)
        for tokens, domain in self.text:
            latents, scale = tokens.latents, tokens.scale.abs()
            side = torch.from_numpy(~domain).long()[latents.token.cpu()]
            size = (latents.value * scale[latents.token]).double().cpu()
            sums.view(-1).index_add_(0, side * self.sae.num_latents + latents.latent.cpu(), size)
        return sums.numpy() * self.sae.decoder.norms().double().numpy()

    def joint_norm(self, of: LatentSet) -> Float[np.ndarray, "side"]:
        """Sum over the tokens of each side of the norm of what a set removes."""
        sums = np.zeros(2)
        for tokens, domain in self.text:
            norm = torch.linalg.vector_norm(of.removed(tokens), dim=-1).double().cpu().numpy()
            sums += [norm[domain].sum(), norm[~domain].sum()]
        return sums

    def draw(self, number: int) -> MatchedSet | None:
        """The matched set of a number; None where there is no other live latent, or a side where the set removes none.

        A set is drawn by its sum of norms. Contributions of latents add up to less than that, in another way in every
        set, so it is drawn again with another aim until its joint norm fits; the best one counts. Where other latents
        cannot reach one side without the other, later aims divide what is missed between the two.
        """
        wanted = self.joint_norm(self.own)
        able = np.flatnonzero(self._allowed & (self.norms.sum(0) > 0))
        if not len(able) or not (wanted > 0).all():
            return None
        aim, best, least = self.norms[:, list(self.own.latents)].sum(1), None, np.inf
        aim = np.where(aim > 0, aim, wanted)
        for round_ in range(ROUNDS):
            rng = np.random.default_rng(hash64(*self.identity, "matched", number, round_))
            latents = self._collect(aim, able, rng)
            ratio = self.joint_norm(LatentSet(self.sae, latents)) / wanted
            miss = float(np.abs(np.log(np.maximum(ratio, 1e-9))).max())
            if miss < least:
                best, least = MatchedSet(latents, *ratio.tolist()), miss
            if miss <= ENOUGH:
                break
            beside = np.clip(ratio, 0.25, 4.0)
            aim = aim * np.sqrt(beside.max() / beside.min()) / beside if round_ >= ROUNDS // 2 else aim / beside
        return best

    @property
    def _allowed(self) -> Bool[np.ndarray, "latent"]:
        allowed = self.live.copy()
        allowed[list(self.own.latents)] = False
        return allowed

    def _collect(
        self, aim: Float[np.ndarray, "side"], able: Int[np.ndarray, "able"], rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Add one latent after the other until their sums are near the aim.

        Of some random ones, those are preferred whose norms on both sides have the ratio of what is still missing, and
        of these the largest. No latent is added that brings the sums further away.
        """
        most = max(MIN_ALLOWED, MAX_GROWTH * len(self.own.latents))
        left, missing, chosen = able, np.ones(2), list[int]()
        while len(left) and len(chosen) < most and np.abs(missing).max() > ENOUGH:
            drawn = rng.choice(len(left), size=min(CANDIDATES, -(-len(left) // 8)), replace=False)
            adds = self.norms[:, left[drawn]] / aim[:, None]
            miss = np.abs(missing[:, None] - adds).max(0)
            nearer = miss < np.abs(missing).max()
            if not nearer.any() and chosen:
                break
            if not nearer.any():  # each removes too much by itself; the least of them is a set
                nearer = miss == miss.min()
            drawn, adds = drawn[nearer], adds[:, nearer]
            turn = np.abs(np.arctan2(*adds) - np.arctan2(*missing))
            alike = np.argsort(turn, kind="stable")[:ALIKE]
            best = alike[adds.sum(0)[alike].argmax()]
            chosen.append(int(left[drawn[best]]))
            missing = missing - adds[:, best]
            left = np.delete(left, drawn[best])
        return tuple(sorted(chosen))
