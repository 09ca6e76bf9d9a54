"""What the parts of `device.py` share: a model with SAEs and text, opened as a run opens it, on a device."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.open_model import OpenModel, open_model
from stratalens.harvest.shards import Shard, ShardTask, cut_shards, shard_characters
from stratalens.harvest.workers import FinishedShard, HarvestCallbacks, LocalWorker
from stratalens.hookpoint import Hookpoint
from stratalens.progress import NoProgress

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from tiny import (  # pyright: ignore[reportMissingImports]
    tiny_run_arguments,
    write_sae,
    write_small_texts,
    write_tiny_model,
    write_tiny_saes,
)

Numbers = dict[str, object]
"""What a part measured, by name."""


def nothing(_number: int) -> None:
    """What is called as text is read."""


@dataclass(frozen=True)
class Setting:
    """Where the parts run, and how large they are."""

    device: torch.device
    small: bool
    """Whether everything is tiny: to see that every line runs, on any machine."""
    folder: Path
    """For models, texts and results."""

    @property
    def documents(self) -> int:
        """Documents of each side that are read."""
        return 24 if self.small else 60

    @cached_property
    def tiny_arguments(self) -> list[str]:
        """Arguments of a run of the tiny model, whose files are written once."""
        if not (self.folder / "texts").exists():
            write_tiny_model(self.folder / "tiny")
            write_tiny_saes(self.folder / "tiny_saes")
            (self.folder / "texts").mkdir()
            write_small_texts(self.folder / "texts")
        texts = self.folder / "texts" / "domain.jsonl", self.folder / "texts" / "general.jsonl"
        return tiny_run_arguments(self.folder / "tiny", self.folder / "tiny_saes", texts, self.folder / "out")

    def options(self, **changed: object) -> dict[str, object]:
        """Options of a run: of the embedded model, or of the tiny one if all is small."""
        own: dict[str, object] = {"max_documents": self.documents}
        if self.small:
            words = [word for word in self.tiny_arguments if word != "--allow_poor_fit"]
            own |= {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        own |= {"device": str(self.device), "allow_poor_fit": True, "output_dir": str(self.folder / "out")}
        return own | changed

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that the SAEs are at, the shallowest first."""
        return ("0", "2") if self.small else ("4", "10", "16", "22", "28")

    @property
    def wide_latents(self) -> int:
        """Width of a wide SAE."""
        return 2048 if self.small else 131_072

    def wide_saes(self, layers: Iterable[str], d_model: int) -> Path:
        """Write random wide SAEs of 32 latents a token at some layers."""
        root = self.folder / "wide_saes"
        latents = self.wide_latents
        for number, layer in enumerate(layers):
            generator = torch.Generator().manual_seed(number)
            rows = torch.nn.functional.normalize(torch.randn(latents, d_model, generator=generator), dim=1)
            tensors = {"encoder.weight": rows, "W_dec": rows.clone(), "encoder.bias": torch.zeros(latents)}
            config = {"num_latents": latents, "k": 32}
            write_sae(root / f"layers.{layer}", width=d_model, config=config, b_dec=torch.zeros(d_model), **tensors)
        (root / "config.json").write_text("{}")
        return root


@dataclass(frozen=True)
class Opened:
    """A run up to the point where its text is read."""

    config: RunConfig
    inputs: RunInputs
    model: OpenModel

    @classmethod
    def of(cls, options: dict[str, object]) -> "Opened":
        """Find everything and load it, as `analyze` does."""
        config = with_batch_tokens(make_config(**options))
        inputs = find_inputs(config, NoProgress())
        return cls(config, inputs, open_model(config, inputs, NoProgress()))

    @property
    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """All that have an SAE."""
        return tuple(self.inputs.saes)

    def shards(self) -> list[Shard]:
        """The text of the run."""
        characters, survey = shard_characters(self.inputs.survey.characters), self.inputs.survey
        return list(cut_shards(survey.select(self.inputs.corpus), characters, len(survey.populations)))

    def read(self, shards: Iterable[Shard], batch_tokens: int | None = None) -> Iterator[FinishedShard]:
        """Read shards as a run does."""
        size = batch_tokens or self.config.tokens_per_batch
        worker = LocalWorker(self.model, self.inputs.cutter, size, HarvestCallbacks(nothing, nothing))
        return worker.read(self.hookpoints, [ShardTask(shard, self.hookpoints) for shard in shards])


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """Seconds that some work takes, the best of some rounds after one that warms up."""
    work()
    best = float("inf")
    for _ in range(rounds):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        best = min(best, time.perf_counter() - started)
    return best


def allocated(device: torch.device) -> int:
    """Bytes of tensors on the device; 0 on the CPU, which does not count them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def record_of(output: Path) -> dict:
    """The record of a run."""
    return json.loads((output / "run.json").read_text())
