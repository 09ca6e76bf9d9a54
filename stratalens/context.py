"""What the state of a layer after a shard depends on, besides the text: the reason why no two runs are ever mixed."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch

from stratalens.config import RunConfig
from stratalens.harvest import CHUNK_TOKENS, LayerProbe
from stratalens.prepared import Prepared
from stratalens.store import key_of

Facts = Mapping[str, object]
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


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
    config: RunConfig, ready: Prepared, probes: Mapping[int, LayerProbe], device: torch.device, dtype: torch.dtype
) -> ReadingContext:
    """The context of a run."""
    return ReadingContext(
        shared={
            "model": ready.source.digest,
            "--dtype": str(dtype),
            "--max_length": config.max_length,
            "--min_length": config.min_length,
            "--batch_tokens": config.batch_tokens,
            "chunk size": CHUNK_TOKENS,
            "device": device_kind(device),
            **{f"version of {name}": version(name) for name in LIBRARIES},
        },
        layers={
            layer: {
                "sae": probe.sae.digest,
                "hookpoint": probe.sae.hookpoint,
                "encoder": [probe.sae.activation, probe.sae.k, probe.sae.num_latents, probe.sae.reads_input],
                "norm_limit": probe.norm_limit.hex(),
            }
            for layer, probe in probes.items()
        },
        text=f"{ready.survey.digest:016x}",
    )


def device_kind(device: torch.device) -> str:
    """What of a device last bits depend on: its kind, and on a cpu the instructions and the number of threads."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device.type
