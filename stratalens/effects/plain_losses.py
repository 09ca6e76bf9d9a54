"""The next-token losses of the model as it is."""

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from stratalens.effects.text import NOT_COUNTED, EffectText
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward


def plain_losses(
    model: nn.Module, text: EffectText, runner: BatchRunner, special_ids: frozenset[int], batch_tokens: int
) -> Float[np.ndarray, "passage"]:
    """Sum of the losses of the tokens that count in each passage, in nats, float64.

    Args:
        model: the whole model with its head.
        text: the passages.
        runner: halves batches that do not fit into memory.
        special_ids: of the tokenizer.
        batch_tokens: most tokens of a batch, padding included.
    """
    device = next(model.parameters()).device
    losses = np.zeros(len(text.passages))

    def work(batch: TokenBatch) -> None:
        logits = forward(model, batch.input_ids).logits
        for at, row in enumerate(batch.rows.tolist()):
            counted = torch.from_numpy(np.flatnonzero(text.token_class[row] != NOT_COUNTED)).to(logits.device)
            log_p = logits[at, counted - 1].float().log_softmax(-1)
            target = batch.input_ids[at].to(logits.device)[counted]
            losses[row] = -float(log_p.gather(1, target[:, None]).double().sum())

    for batch in pack_batches([passage.token_ids for passage in text.passages], batch_tokens, special_ids):
        for _ in runner.run(batch.to(device), work):
            pass
    return losses


def noise_floor(
    model: nn.Module, text: EffectText, runner: BatchRunner, special_ids: frozenset[int], batch_tokens: int
) -> float:
    """Mean absolute difference of the loss of a document, in nats a token, between two ways to batch its passages.

    One way packs them into batches, the other reads one passage at a time. Ablations are compared to plain passages of
    the same batch, so this is what a difference of losses would be worth without that.
    """
    packed, alone = (plain_losses(model, text, runner, special_ids, tokens) for tokens in (batch_tokens, 1))
    by_document = np.zeros(len(text.documents.hashes))
    np.add.at(by_document, text.document, packed - alone)
    read = np.unique(text.document)
    return float(np.abs(by_document[read] / text.documents.total[read]).mean())
