"""Latents that fire by a rule on token ids, and texts of token ids: what a token test must tell apart."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import sparse

from stratalens.corpus import Half, Side
from stratalens.corpus.populations import Population
from stratalens.evidence.evidence import Evidence, LayerEvidence
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.progress import Advance
from stratalens.validation.injection import Piece

PLACE = Hookpoint(3)
VOCABULARY = 2000
COMMON = 400
"""General text has the ids 1 to this one."""
OWN_TOKENS = np.arange(500, 508)
CUE, ORDINARY = 510, np.arange(10, 18)
HALF_TOKENS = np.arange(520, 528)
LENGTH = 80

Rule = Callable[[np.ndarray], np.ndarray]
"""Token ids of a sequence -> activation on each."""


def token_latent(ids: np.ndarray) -> np.ndarray:
    """Fires on some ids wherever they stand."""
    return np.where(np.isin(ids, OWN_TOKENS), 2.0, 0.0)


def context_latent(ids: np.ndarray) -> np.ndarray:
    """Fires on ordinary ids, but only 8 to 24 tokens after another one."""
    cued = np.zeros(len(ids), bool)
    for at in np.flatnonzero(ids == CUE):
        cued[at + 8 : at + 25] = True
    return np.where(cued & np.isin(ids, ORDINARY), 2.0, 0.0)


def half_latent(ids: np.ndarray) -> np.ndarray:
    """Fires weakly on some ids, and weakly or strongly on others by what stands ten tokens before them."""
    before = np.concatenate([np.zeros(10, np.int64), ids])[: len(ids)]
    mixed = (ids * 7919 + before * 104_729) % 10_007 / 10_007
    by_context = np.where((mixed < 0.05) & (before > 0), mixed / 0.05, 0.0)
    return np.where(np.isin(ids, HALF_TOKENS), 0.6, by_context)


def silent_latent(ids: np.ndarray) -> np.ndarray:
    """Never fires."""
    return np.zeros(len(ids))


LATENTS: Mapping[int, Rule] = {0: token_latent, 1: context_latent, 2: half_latent, 3: silent_latent}


def activations(ids: np.ndarray) -> np.ndarray:
    """Activation of every latent on every token, `[seq, latent]`; 0 at position 0, which never counts."""
    values = np.stack([rule(ids) for rule in LATENTS.values()], axis=1).astype(np.float32)
    values[0] = 0
    return values


class PlantedReader:
    """Reads sequences by the rules, and counts those that it reads."""

    def __init__(self):
        self.sequences_read = 0

    def read(self, piece: Piece, advance: Advance) -> dict[Hookpoint, np.ndarray]:
        self.sequences_read += len(piece.sequences)
        where = piece.where or [np.ones(len(ids), bool) for ids in piece.sequences]
        values = [activations(ids) * counted[:, None] for ids, counted in zip(piece.sequences, where, strict=True)]
        maxima = np.stack([own.max(axis=0) for own in values])
        advance(len(piece.sequences), piece.tokens)
        return {place: maxima[:, list(own)] for place, own in piece.features.items()}


def general_text(rng: np.random.Generator, length: int = LENGTH) -> np.ndarray:
    """Common ids, of which some are frequent and some are rare."""
    return 1 + np.floor(COMMON * rng.random(length) ** 2).astype(np.int64)


def domain_text(rng: np.random.Generator) -> np.ndarray:
    """General text with ids on which latents fire."""
    ids = general_text(rng)
    ids[rng.choice(np.arange(1, 30), 2, replace=False)] = rng.choice(OWN_TOKENS, 2)
    ids[rng.choice(np.arange(30, 40), 2, replace=False)] = rng.choice(HALF_TOKENS, 2)
    ids[42] = CUE
    ids[rng.choice(np.arange(52, 66), 2, replace=False)] = rng.choice(ORDINARY, 2)
    return ids


def planted_evidence(rng: np.random.Generator, passages: int = 80) -> Evidence:
    """So many passages of each half of each side, with what the latents do on them."""
    made = []
    for side, text in ((Side.DOMAIN, domain_text), (Side.GENERAL, general_text)):
        for half in Half:
            for number in range(passages):
                ids = text(rng)
                place = PassageLocation(hash64(int(side), int(half), number), 0, LENGTH)
                offsets = np.stack([np.arange(LENGTH), np.arange(1, LENGTH + 1)], axis=1)
                made.append(Passage(place, place.content, Population(side, half), "x" * LENGTH, ids, offsets))
    matrix = sparse.csc_array(np.concatenate([activations(passage.token_ids) for passage in made]))
    return Evidence(made, {PLACE: LayerEvidence(np.array(list(LATENTS)), matrix)})
