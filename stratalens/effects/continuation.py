"""What a model writes after a prompt, plain or steered, and its perplexity under the plain model."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stratalens.effects.steering import Steering
from stratalens.errors import ModelError
from stratalens.files.hashing import hash64
from stratalens.models.hooks import forward, hooked


class Sampling(NamedTuple):
    """How tokens are drawn. Plain and steered texts use the same random numbers."""

    seed: int
    temperature: float
    """What logits are divided by."""


class Writing(NamedTuple):
    """How a model writes."""

    max_new_tokens: int
    stop_ids: frozenset[int]
    """A text ends before one of these tokens."""
    sampling: Sampling | None = None
    """None takes the most probable token each time."""
    use_cache: bool = True
    """Whether keys and values of earlier tokens are kept, where the model can; else all is read again each time."""


def continue_tokens(
    model: nn.Module,
    prompt: Int[Tensor, "seq"],
    writing: Writing,
    steering: Steering | None = None,
    done: Callable[[int], None] = lambda _tokens: None,
) -> list[int]:
    """Write after a prompt, token by token.

    Args:
        model: the whole model with its head.
        prompt: token ids on the host, at least one.
        writing: how to write.
        steering: what is added meanwhile; None for the plain model.
        done: called with the number of tokens that were written since the last call.

    Returns:
        ids of what was written, without the token that ends a text.

    Raises:
        ModelError: the model gives no numbers, as after too strong a push.
    """
    written: list[int] = []
    past, read = None, 0
    with nullcontext() if steering is None else hooked(model, steering.consumers()):
        while len(written) < writing.max_new_tokens:
            ids = torch.cat([prompt, torch.tensor(written, dtype=torch.long)])
            if steering is not None:
                steering.next_tokens(ids[read:], read)
            output = _forward(model, ids[read:], past, writing.use_cache)
            past = getattr(output, "past_key_values", None) if writing.use_cache else None
            read = 0 if past is None else len(ids)
            token = _next_token(output.logits[0, -1], writing.sampling, prompt, len(written))
            if token in writing.stop_ids:
                break
            written.append(token)
            done(1)
    done(writing.max_new_tokens - len(written))
    return written


def perplexity(model: nn.Module, prompt: Int[Tensor, "seq"], written: Sequence[int]) -> float | None:
    """exp of the mean next-token loss of a continuation given its prompt, in float32.

    Args:
        model: the plain model with its head.
        prompt: token ids on the host, at least one.
        written: token ids of the continuation.

    Returns:
        the perplexity; infinite where the loss is; None for an empty continuation.
    """
    if not written:
        return None
    ids = torch.cat([prompt, torch.tensor(list(written), dtype=torch.long)])
    logits = forward(model, ids[None]).logits[0, len(prompt) - 1 : -1].float()
    loss = float(cross_entropy(logits, ids[len(prompt) :].to(logits.device)))
    return math.exp(loss) if loss < math.log(torch.finfo(torch.float32).max) else math.inf


@torch.inference_mode()
def _forward(model: nn.Module, ids: Int[Tensor, "seq"], past: object, use_cache: bool) -> Any:
    device = next(model.parameters()).device
    given = {} if past is None else {"past_key_values": past}
    return model(input_ids=ids[None].to(device), use_cache=use_cache, **given)


def _next_token(
    logits: Float[Tensor, "vocabulary"], sampling: Sampling | None, prompt: Int[Tensor, "seq"], step: int
) -> int:
    """The most probable token, or one that is drawn by a hash of seed, prompt and step."""
    own = logits.float().cpu().double()
    if bool(own.isnan().any()):
        raise ModelError("the model gives no numbers (NaN) while it writes; lower --strength, or use another --device")
    if sampling is None:
        return int(own.argmax())
    shares = torch.softmax((own - own.max()) / sampling.temperature, 0).cumsum(0)
    drawn = hash64(sampling.seed, "continuation", prompt.numpy().tobytes(), step) / 2**64
    return min(int(torch.searchsorted(shares, drawn * shares[-1], right=True)), len(shares) - 1)
