"""How many task items a model solves, and by what margin: of the domain and of general text, kind by kind.

python bench/task_items.py [--base_model DIR] [--tasks FILE...] [--dtype float32]
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from stratalens.effects.task_items import kinds_of, load_task_items
from stratalens.effects.task_tokens import MarkedTokens, tokenised_items
from stratalens.models.batches import pack_batches
from stratalens.models.embedded import dense_copy
from stratalens.models.tokens import PassageCutter

MAX_LENGTH = 256
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Options:
    """Which model answers which items."""

    base_model: Path | None = None
    """Directory of a causal language model. Default: the embedded one."""
    tasks: tuple[str, ...] = ()
    """Files of items. Default: the financial and the general ones that ship."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model; log-probabilities are in float32."""


def log_probabilities(model: torch.nn.Module, sequences: Sequence[MarkedTokens]) -> Float[np.ndarray, "sequence"]:
    """Sum over the marked tokens of each sequence, in nats."""
    sums = np.zeros(len(sequences))
    for batch in pack_batches([one.token_ids for one in sequences], BATCH_TOKENS, ()):
        with torch.no_grad():
            logits = model(batch.input_ids).logits[:, :-1].float()
        next_ids = batch.input_ids[:, 1:, None]
        found = logits.log_softmax(-1).gather(2, next_ids)[..., 0].double().numpy()
        for row, index in enumerate(batch.rows):
            marked = sequences[index].marked[1:]
            sums[index] = found[row, : len(marked)][marked].sum()
    return sums


def main(options: Options) -> None:
    started = time.monotonic()
    directory = options.base_model or dense_copy().directory
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, options.dtype)).eval()
    cutter = PassageCutter(AutoTokenizer.from_pretrained(directory), MAX_LENGTH, min_length=1)
    items = load_task_items("financial", options.tasks)
    sequences = [sequence for pair in tokenised_items(items, cutter) for sequence in pair]
    values = log_probabilities(model, sequences)
    margin = values[::2] - values[1::2]
    print(
        "kind, side: solved of all items (one-sided p of so many by chance), mean margin, of the solved ones, in nats"
    )
    for kind in kinds_of(items):
        for side, domain in (("domain", True), ("general", False)):
            own = margin[[item.kind == kind and item.domain == domain for item in items]]
            if len(own) == 0:
                continue
            solved = own[own > 0]
            p_value = stats.binomtest(len(solved), len(own), alternative="greater").pvalue
            means = f"{own.mean():.2f}, {solved.mean() if len(solved) else float('nan'):.2f}"
            print(f"{kind}, {side}: {len(solved)} of {len(own)} ({p_value:.1g}), {means}")
    print(f"{(margin > 0).sum()} of {len(items)} items, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options))
