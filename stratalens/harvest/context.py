"""What the state of a layer after a shard depends on, besides the text: the reason why no two runs are ever mixed."""

from collections.abc import Mapping
from dataclasses import dataclass

from stratalens.config import RunConfig
from stratalens.harvest.inputs import Prepared
from stratalens.harvest.shard_reader import CHUNK_TOKENS
from stratalens.harvest.store import key_of
from stratalens.harvest.workers import WorkerKind

Facts = Mapping[str, object]


@dataclass(frozen=True)
class ReadingContext:
    """Everything besides the text itself that the state of a layer after a shard depends on, as JSON can hold it."""

    shared: Facts
    """Of all layers: model, settings, libraries, kind of device."""
    layers: Mapping[int, Facts]
    """Layer -> its SAE, hookpoint and norm limit."""
    text: str
    """Digest of the text. Keys go by what each shard holds; this tells a person what changed."""

    def key(self, layer: int, shard_digest: str) -> str:
        """Name of the state of one layer after one shard."""
        return key_of(self.shared, self.layers[layer], shard_digest)

    def facts(self) -> dict[str, object]:
        """What can change between two runs, by names that a person knows."""
        saes = {f"SAE of layer {layer}": key_of(own) for layer, own in self.layers.items()}
        return {**self.shared, **saes, "text": self.text}


def changed(before: Facts, now: Facts) -> list[str]:
    """Names of what differs; what only one of them has, such as a further layer, is no difference."""
    return [name for name, value in now.items() if name in before and before[name] != value]


def reading_context(
    config: RunConfig, ready: Prepared, norm_limits: Mapping[int, float], kind: WorkerKind
) -> ReadingContext:
    """The context of a run whose shards are read by workers of one kind."""
    return ReadingContext(
        shared={
            "model": ready.source.digest,
            "--dtype": kind.dtype,
            "--load_in": config.load_in,
            "--max_length": config.max_length,
            "--min_length": config.min_length,
            "--batch_tokens": config.batch_tokens,
            "chunk size": CHUNK_TOKENS,
            "device": kind.device,
            **{f"version of {name}": number for name, number in kind.libraries},
        },
        layers={
            layer: {
                "sae": sae.digest,
                "hookpoint": sae.hookpoint,
                "encoder": [sae.activation, sae.k, sae.num_latents, sae.reads_input],
                "norm_limit": norm_limits[layer].hex(),
            }
            for layer, sae in ready.saes.items()
        },
        text=f"{ready.survey.digest:016x}",
    )
