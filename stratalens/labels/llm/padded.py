"""Answers of a local model to prompts of different lengths at the same time, padded on the left."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

MAX_CHANGE = 0.1
"""Padding may change the logits by rounding, up to so much of their spread; a model that reads it changes them more."""


class TokenPrompt(NamedTuple):
    """A prompt as tokens, and the room for its answer."""

    token_ids: list[int]
    max_new_tokens: int


class LeftPadded(NamedTuple):
    """Prompts that end at the same position."""

    input_ids: Int[Tensor, "prompt seq"]
    attention_mask: Int[Tensor, "prompt seq"]
    """0 at the padding."""

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], pad_id: int) -> "LeftPadded":
        """Pad prompts up to the longest."""
        width = max(map(len, prompts))
        rows = [[pad_id] * (width - len(ids)) + list(ids) for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        return cls(torch.tensor(rows), torch.tensor(mask))


def fit_context(prompts: Sequence[TokenPrompt], context: int | None) -> bool:
    """Whether the longest prompt and the longest answer fit together, as every row grows to the end of the longest."""
    room = max(one.max_new_tokens for one in prompts)
    return context is None or max(len(one.token_ids) for one in prompts) + room <= context


@torch.inference_mode()
def greedy_answers(model: Any, prompts: Sequence[TokenPrompt], end_ids: Sequence[int]) -> list[list[int]]:
    """Decode greedily.

    Args:
        model: a causal language model whose generation settings name no sampling.
        prompts: with the room for each answer; together they fit the context, see `fit_context`.
        end_ids: tokens that end an answer.

    Returns:
        The tokens of each answer, the one that ends it included.
    """
    padded = LeftPadded.of([one.token_ids for one in prompts], _pad_id(model))
    output = model.generate(
        input_ids=padded.input_ids.to(model.device),
        attention_mask=padded.attention_mask.to(model.device),
        do_sample=False,
        max_new_tokens=max(one.max_new_tokens for one in prompts),
    )
    rows = output[:, padded.input_ids.shape[1] :].tolist()
    return [_up_to_end(row[: one.max_new_tokens], end_ids) for row, one in zip(rows, prompts, strict=True)]


def _up_to_end(answer_ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """An answer without the padding after its end."""
    ends = [at for at, token_id in enumerate(answer_ids) if token_id in end_ids]
    return answer_ids[: ends[0] + 1] if ends else answer_ids


def _pad_id(model: Any) -> int:
    """What stands before shorter prompts; any token would do, as nothing attends to it."""
    pad_id = model.generation_config.pad_token_id
    return 0 if pad_id is None else pad_id


@torch.inference_mode()
def takes_padding(model: Any, token_ids: Sequence[int]) -> bool:
    """Whether what stands before a prompt changes nothing where it is masked: some models read it all the same.

    Args:
        model: a causal language model.
        token_ids: of a prompt; its last token, many times, is what is masked.
    """
    room = {"do_sample": False, "max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}

    def logits(ids: list[int], masked: int) -> Tensor:
        mask = torch.tensor([[0] * masked + [1] * (len(ids) - masked)], device=model.device)
        inputs = {"input_ids": torch.tensor([ids], device=model.device), "attention_mask": mask}
        return model.generate(**inputs, **room).logits[0][0].float()

    alone = logits(list(token_ids), 0)
    padded = logits([token_ids[-1]] * len(token_ids) + list(token_ids), len(token_ids))
    return bool((padded - alone).norm() <= MAX_CHANGE * (alone - alone.mean()).norm())
