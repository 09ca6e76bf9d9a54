"""Run a model over passages, and keep the activations of some features on each token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.evidence.evidence import NO_ENTRIES, Evidence, FiredEntries, LayerEvidence, first_tokens
from stratalens.evidence.passages import Passage
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.streams import Streams, division_of
from stratalens.saes.probe import Probe


class _LayerReader:
    """Collects the activations of some latents of one layer, batch by batch."""

    def __init__(self, probe: Probe, features: Sequence[int], device: torch.device):
        self.probe = probe
        self.encoder = probe.sae.only(torch.as_tensor(features, dtype=torch.long, device=device))
        self.column = torch.full((probe.sae.num_latents,), -1, device=device)
        self.column[torch.as_tensor(features, dtype=torch.long, device=device)] = torch.arange(
            len(features), device=device
        )
        self.parts: list[FiredEntries] = []

    def pick(
        self,
        batch: TokenBatch,
        first_token: Int[Tensor, "batch"],
        vectors: Float[Tensor, "batch seq d_model"],
    ) -> FiredEntries:
        """Encode the kept positions of one batch, and keep the entries of the features.

        Args:
            batch: the batch on the device.
            first_token: index of each row's first token among the tokens of all passages.
            vectors: those at the hookpoint of the SAE.
        """
        hidden, _, keep = self.probe.read(batch, vectors)
        row, position = keep.nonzero(as_tuple=True)
        latents = self.encoder.encode(hidden[row, position])
        column = self.column[latents.latent]
        wanted = column >= 0
        token = (first_token[row] + position)[latents.token]
        entries = token[wanted].int(), column[wanted].int(), latents.value[wanted].float()
        return FiredEntries(*(tensor.cpu().numpy() for tensor in entries))


@dataclass(frozen=True)
class PassageReader:
    """Runs a model over passages and keeps the activations of some features."""

    model: nn.Module
    """The decoder, cut after the deepest probed block."""
    passages: Sequence[Passage]
    special_ids: frozenset[int]
    """Tokens that never count."""
    batch_tokens: int
    """Maximum tokens, padding included, of all batches that are read at the same time."""
    on_batch: Callable[[int, int], None] = lambda _passages, _tokens: None
    """Called with the numbers of passages and tokens of each finished batch."""

    def read(self, passes: Iterable[Sequence[Probe]], features: Mapping[Hookpoint, Sequence[int]]) -> Evidence:
        """Read the passages once for each group of probes.

        Args:
            passes: groups of probes.
            features: hookpoint -> its reported features.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        tokens = int(first_tokens(self.passages)[-1])
        found: dict[Hookpoint, LayerEvidence] = {}
        for probes in passes:
            found |= self._read_pass(probes, features, tokens)
            del probes  # the encoders of the next pass are loaded only now that these are free
        return Evidence(list(self.passages), found)

    def _read_pass(
        self, probes: Sequence[Probe], features: Mapping[Hookpoint, Sequence[int]], tokens: int
    ) -> dict[Hookpoint, LayerEvidence]:
        """Run the model over the passages once; return hookpoint -> what fires its features."""
        starts = first_tokens(self.passages)
        device = probes[0].sae.device
        readers = [_LayerReader(probe, features[probe.hookpoint], device) for probe in probes]
        streams = Streams.of(self.model, division_of(device))
        runner = BatchRunner(self.batch_tokens // streams.number)

        def read_batch(model: nn.Module, cpu_batch: TokenBatch) -> dict[Hookpoint, FiredEntries]:
            batch = cpu_batch.to(device)
            first = torch.from_numpy(starts[batch.rows]).to(device)
            entries: dict[Hookpoint, FiredEntries] = {}

            def consumer(reader: _LayerReader, vectors: Tensor) -> None:
                entries[reader.probe.hookpoint] = reader.pick(batch, first, vectors)

            with hooked(model, {reader.probe.hookpoint: partial(consumer, reader) for reader in readers}):
                forward(model, batch.input_ids)
            return entries

        def work(batch: TokenBatch, model: nn.Module) -> list[dict[Hookpoint, FiredEntries]]:
            return list(runner.run(batch, partial(read_batch, model)))

        sequences = [passage.token_ids for passage in self.passages]
        with streams.open() as start:
            batches = pack_batches(sequences, runner.batch_tokens, self.special_ids)
            for batch, wait in [(batch, start(partial(work, batch))) for batch in batches]:
                for entries in wait():
                    for reader in readers:
                        reader.parts.append(entries[reader.probe.hookpoint])
                self.on_batch(len(batch.rows), batch.tokens)
        return {
            reader.probe.hookpoint: _join_parts(reader, features[reader.probe.hookpoint], tokens) for reader in readers
        }


def _join_parts(reader: _LayerReader, features: Sequence[int], tokens: int) -> LayerEvidence:
    entries = FiredEntries(*(np.concatenate(own) for own in zip(NO_ENTRIES, *reader.parts, strict=True)))
    reader.parts.clear()  # free them before the next layer is joined
    return LayerEvidence.of(entries, features, tokens)
