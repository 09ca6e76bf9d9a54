"""Read the text of a test of effects at one hookpoint after the other; what was read before is not read again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

from stratalens.effects.ablations import Ablation, EncodedTokens
from stratalens.effects.attribution import AttributionReader, CountedBatch
from stratalens.effects.attributions import Attributions, joined
from stratalens.effects.changes import Change
from stratalens.effects.measure import WIDTH, AblationReader, Values, fold_changes
from stratalens.effects.text import NOT_COUNTED, EffectText
from stratalens.effects.value_files import EffectValueFiles, text_digest
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch
from stratalens.models.streams import Streams
from stratalens.progress import Advance
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

BATCHES_PER_FILE = 8
"""So many batches of passages are stored together."""


@dataclass(frozen=True)
class EffectReader:
    """Reads passages with the whole model."""

    model: nn.Module
    """With its head, loaded outside inference mode."""
    runner: BatchRunner
    special_ids: frozenset[int]
    batch_tokens: int
    """Most tokens of a batch."""
    files: EffectValueFiles

    def changes(
        self, probe: Probe[Sae], text: EffectText, ablations: Mapping[str, Ablation], advance: Advance
    ) -> list[Change]:
        """Measure ablations at a hookpoint on passages.

        Args:
            probe: the SAE there.
            text: the passages.
            ablations: what is removed, under names that say all about it.
            advance: called with the number of passages of each finished file, and its tokens.

        Raises:
            CapacityError: a single passage does not fit into memory.
            ModelError: a loss is not finite.
        """
        values = np.zeros((len(ablations), len(text.passages), WIDTH))
        reader = self._reader(probe)
        for batches in _files(reader.batches(text)):
            rows = np.concatenate([batch.rows for batch in batches])
            values[:, rows] = self._of_file(reader, text, batches, ablations)
            advance(len(rows), sum(batch.tokens for batch in batches))
        return fold_changes(values, text)

    def _reader(self, probe: Probe[Sae]) -> AblationReader:
        return AblationReader(self.model, probe, self.runner, self.special_ids, self.batch_tokens)

    def _of_file(
        self, reader: AblationReader, text: EffectText, batches: Sequence[TokenBatch], ablations: Mapping[str, Ablation]
    ) -> Values:
        hookpoint = reader.probe.hookpoint
        what = (list(ablations), [text_digest(text, batch.rows) for batch in batches])
        stored = self.files.load(hookpoint, what, ["values"])
        if stored is not None:
            return stored["values"]
        with torch.inference_mode():
            own = [reader.measure(text, batch, list(ablations.values())) for batch in batches]
        values = np.concatenate(own, axis=1)
        self.files.write(hookpoint, what, {"values": values})
        return values

    def encoded(self, probe: Probe[Sae], text: EffectText) -> list[tuple[EncodedTokens, Bool[np.ndarray, "_"]]]:
        """Tokens of each batch of passages with their latents, and whether each is in a domain passage."""
        reader, found = self._reader(probe), []
        with torch.inference_mode():
            for batch in reader.batches(text):
                tokens = reader.encode(batch).tokens
                passages = batch.rows[tokens.row.cpu().numpy()]
                found.append((tokens, text.documents.domain[text.document[passages]]))
        return found

    def attributions(
        self, probes: Sequence[Probe[Sae]], text: EffectText, ig_steps: int | None, advance: Advance
    ) -> dict[Hookpoint, Attributions]:
        """Attributions of all latents of some SAEs to each passage of a text.

        Args:
            probes: the SAEs.
            text: the passages.
            ig_steps: points of the path of integrated gradients; None for gradients alone.
            advance: called with the numbers of passages and tokens of each finished batch.

        Raises:
            ModelError: a gradient is not finite.
            CapacityError: a single passage does not fit into memory.
        """
        reader = AttributionReader(
            Streams((self.model,), torch.get_num_threads(), ahead=False), probes, self.runner, ig_steps, advance
        )
        parts: dict[Hookpoint, list[Attributions]] = {probe.hookpoint: [] for probe in probes}
        for batches in _files(self._reader(probes[0]).whole_batches(text)):
            for hookpoint, own in self._attributed(reader, text, batches, ig_steps).items():
                parts[hookpoint].append(own)
        return {hookpoint: joined(own) for hookpoint, own in parts.items()}

    def _attributed(
        self, reader: AttributionReader, text: EffectText, batches: Sequence[TokenBatch], ig_steps: int | None
    ) -> dict[Hookpoint, Attributions]:
        what = ("attribution", ig_steps, [text_digest(text, batch.rows) for batch in batches])
        places = [probe.hookpoint for probe in reader.probes]
        stored = {place: self.files.load(place, what, Attributions._fields) for place in places}
        found = {place: Attributions(**own) for place, own in stored.items() if own is not None}
        if len(found) == len(places):
            reader.on_batch(sum(len(batch.rows) for batch in batches), 0)
            return found
        found = reader.read(CountedBatch(batch, _counted(text, batch)) for batch in batches)
        for place, own in found.items():
            self.files.write(place, what, own._asdict())
        return found


def _counted(text: EffectText, batch: TokenBatch) -> Bool[torch.Tensor, "batch seq"]:
    counted = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    for at, row in enumerate(batch.rows.tolist()):
        own = torch.from_numpy(text.token_class[row] != NOT_COUNTED)
        counted[at, : len(own)] = own
    return counted


def _files(batches: Sequence[TokenBatch]) -> list[Sequence[TokenBatch]]:
    """The batches that are stored together."""
    return [batches[at : at + BATCHES_PER_FILE] for at in range(0, len(batches), BATCHES_PER_FILE)]
