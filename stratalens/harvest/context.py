"""What the state of a layer after a shard depends on: it is stored under a hash of this, so that runs never mix."""

from collections.abc import Mapping
from dataclasses import dataclass

from stratalens.config.options import RunConfig
from stratalens.harvest.chunks import chunk_tokens
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.store import key_of
from stratalens.harvest.workers import WorkerKind
from stratalens.hookpoint import Hookpoint

Facts = Mapping[str, object]
"""What a harvest depends on, under names shown to the user; values that JSON can represent."""


@dataclass(frozen=True)
class HarvestContext:
    """Everything besides the text that the state of a layer after a shard depends on, as values for JSON."""

    shared: Facts
    """Shared by all layers: model, settings, library versions, kind of device."""
    layers: Mapping[Hookpoint, Facts]
    """Hookpoint -> its SAE, hookpoint and norm limit."""
    text: str
    """Digest of the whole text, only to report that it changed: keys use the digest of each shard instead."""

    def key(self, hookpoint: Hookpoint, shard_digest: str) -> str:
        """Key under which the state of one layer after one shard is stored."""
        return key_of(self.shared, self.layers[hookpoint], shard_digest)

    def facts(self) -> dict[str, object]:
        """Everything that can differ between two runs, by name."""
        saes = {f"SAE of layer {hookpoint}": key_of(own) for hookpoint, own in self.layers.items()}
        return {**self.shared, **saes, "text": self.text}


def harvest_context(
    config: RunConfig, inputs: RunInputs, norm_limits: Mapping[Hookpoint, float], kind: WorkerKind
) -> HarvestContext:
    """Build the context of a run whose workers are all of one kind."""
    return HarvestContext(
        shared={
            "model": inputs.source.digest,
            "--dtype": kind.dtype,
            "--load_in": config.load_in,
            "--max_length": config.max_length,
            "--min_length": config.min_length,
            "--batch_tokens": config.tokens_per_batch,
            "chunk size": chunk_tokens(kind.device.partition(",")[0]),
            "device": kind.device,
            **({"kinds of text": list(strata)} if len(strata := inputs.survey.populations.strata) > 1 else {}),
            **{f"version of {name}": number for name, number in kind.libraries},
        },
        layers={
            hookpoint: {
                "sae": sae.digest,
                "hookpoint": sae.module,
                "encoder": [sae.activation, sae.k, sae.num_latents, sae.hookpoint != sae.target],
                "norm_limit": norm_limits[hookpoint].hex(),
            }
            for hookpoint, sae in inputs.saes.items()
        },
        text=f"{inputs.survey.digest:016x}",
    )


def changed_facts(before: Facts, now: Facts) -> list[str]:
    """Names of the facts whose values differ; a fact that only one side has, such as a new layer, does not count."""
    return [name for name, value in now.items() if name in before and before[name] != value]
