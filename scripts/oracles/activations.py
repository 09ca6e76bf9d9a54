"""Write real activations of the embedded model: many to train oracles on, and a few that the tests read.

    .venv/bin/python scripts/oracles/activations.py FOR_TRAINING FOR_TESTS

Both are safetensors files with what block 16 gives out (`resid`), what its MLP reads (`mlp_norm`) and what its MLP adds
to the residual stream (`mlp`), one row a token.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from stratalens.corpus.builtin import text_file
from stratalens.hookpoint import Hookpoint, Site
from stratalens.models.batches import pack_batches
from stratalens.models.embedded import dense_copy
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_model
from stratalens.models.tokens import PassageCutter

BLOCK = 16
SITES: tuple[Site, ...] = ("resid", "mlp_norm", "mlp")
EVERY = 40
"""Of so many built-in texts of each side, one is read."""
MAX_TOKENS = 128
TEST_TOKENS = 24


def read() -> dict[str, Tensor]:
    """Site -> activations of every token but the first of a text, in bfloat16."""
    model_files = dense_copy().directory
    cutter = PassageCutter(AutoTokenizer.from_pretrained(model_files), MAX_TOKENS)
    lines = [
        line
        for side in ("financial", "general")
        for line in text_file(side).read_text(encoding="utf-8").splitlines()[::EVERY]
    ]
    texts = [json.loads(line)["text"] for line in lines]
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    model = load_model(model_files, blocks=BLOCK + 1, placement=Placement(torch.device("cpu"), torch.bfloat16))
    taken: dict[str, list[Tensor]] = {site: [] for site in SITES}
    for batch in pack_batches(sequences, 2048, ()):
        positions = torch.arange(batch.input_ids.shape[1])
        countable = (positions < torch.from_numpy(batch.lengths)[:, None]) & (positions > 0)
        consumers = {
            Hookpoint(BLOCK, site): lambda out, site=site, countable=countable: taken[site].append(out[countable])
            for site in SITES
        }
        with hooked(model, consumers):
            forward(model, batch.input_ids)
    return {site: torch.cat(parts).contiguous() for site, parts in taken.items()}


def main(for_training: Path, for_tests: Path) -> None:
    with torch.inference_mode():
        activations = read()
    tokens = len(activations["resid"])
    tested = torch.arange(TEST_TOKENS) * (tokens // TEST_TOKENS)
    about = {"read from": f"block {BLOCK} of smollm2-135m-instruct"}
    for path in (for_training, for_tests):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_file(activations, for_training, about)
    save_file({site: rows[tested].clone() for site, rows in activations.items()}, for_tests, about)
    print(f"{for_training}: {tokens} tokens; {for_tests}: {TEST_TOKENS} of them")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
