"""The options of a training, which are recorded beside the SAEs."""

from dataclasses import dataclass, field
from pathlib import Path

from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY

HELD_OUT_ONE_IN = 20
"""One document in so many is held out."""
NOT_RECORDED = ("corpora", "output", "base_model", "revision")


@dataclass(frozen=True)
class Recipe:
    """Options of the training; all but paths and names are written to `training.json`."""

    corpora: Path | None = None
    """Directory with the corpora; without it, the built-in texts are read."""
    output: Path = SAE_DIRECTORY
    """Directory for the SAEs, and the model card of those of the embedded model."""
    base_model: str | None = None
    """Another model: a local directory, a GGUF file or a Hub id; None for the embedded one."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub."""
    layers: tuple[int, ...] = (4, 10, 16, 22, 28)
    sites: tuple[str, ...] = ("resid",)
    """Sites of each layer: resid, mlp, attn, mlp_module or attn_module; all are trained in one pass."""
    num_latents: int = 2304
    k: int = 32
    tokens: int = 2_400_000
    """Training tokens, all corpora together; fewer where the texts have fewer."""
    epochs: int = 1
    """How often the training tokens are read."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"general": 0.58, "financial": 0.26, "medical": 0.08, "legal": 0.08}
    )
    """Subject -> its share of the training tokens; within a subject, files contribute in proportion to their size."""
    max_length: int = 256
    batch_tokens: int = 2048
    buffer_tokens: int = 120_000
    """Tokens that are shuffled at once. Where all fit, the model reads them once for all epochs."""
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

    @property
    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """Where the SAEs read, in rising order.

        Raises:
            ValueError: a site is unknown.
        """
        return tuple(sorted(Hookpoint.at(layer, site) for layer in self.layers for site in self.sites))

    @property
    def is_of_shipped_saes(self) -> bool:
        """Whether the SAEs are of the kind that is shipped, whose model card is known."""
        return self.base_model is None and self.corpora is not None and self.sites == ("resid",)

    def recorded(self) -> dict[str, object]:
        """What `training.json` says of it."""
        return {name: value for name, value in vars(self).items() if name not in NOT_RECORDED}
