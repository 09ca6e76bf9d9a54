"""Trial: one small batch through everything that a run needs of its model, before the text is read.

It is of fixed sentences, so it does not depend on the text. What it refuses would otherwise end a run late, or give
numbers that mean nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.errors import CheckpointError, MismatchError, ModelError, StratalensError
from stratalens.harvest.inputs import LoadedModel, ModelInputs
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import passage_too_large
from stratalens.models.families import locate
from stratalens.models.hooks import forward, hooked
from stratalens.models.hub import in_own_words, is_raised_by_library
from stratalens.models.memory import out_of_memory
from stratalens.models.tokens import PassageCutter, TokenSpan
from stratalens.saes.sae import SaeFile

SENTENCES = (
    "The bank raised its rate to 4.25% in March, and the price of the bond fell by $12.",
    "A river runs past the old town; in 1987 it froze, and children walked over it to school.",
)
CAUSALITY_TOKENS = 12
"""Tokens of the row whose last token is changed."""
ENCODED_TOKENS = 256
"""At most this many tokens are encoded by the SAEs."""
MAX_ROUNDINGS = 16.0
"""Earlier positions may change by so many times the change that rounding makes."""
MIN_CHANGE = 2e-6
"""A smaller relative change of a vector, or one below the precision of its type, is taken for rounding."""
LAST_TOKENS = 3
"""So many other last tokens are tried; where each changes the vector just before it, the model looks a token ahead."""
MAX_PRECISIONS = 4.0
"""A change of that one vector up to so many units of its precision is taken for rounding."""


class Activations(NamedTuple):
    """The vectors at a hookpoint in one batch."""

    vectors: Float[Tensor, "batch seq d_model"]
    """Of the first `ENCODED_TOKENS` tokens."""
    shape: tuple[int, ...]
    """Of the vectors of all tokens."""
    finite: bool
    """Whether the numbers are finite, for all tokens."""


def try_model(inputs: ModelInputs, loaded: LoadedModel, max_length: int) -> None:
    """Run one row of as many tokens as a passage may have, and short rows that differ in their last token.

    Args:
        inputs: model source, SAEs and tokenizer.
        loaded: the model with the blocks that the run needs.
        max_length: most tokens of a passage, special tokens included.

    Raises:
        ModelError: the model fails, takes fewer tokens, gives values that are not finite or vectors of another shape
            than the SAEs read, or the vectors of a token depend on later tokens.
        CheckpointError: an SAE gives values that are not finite.
        CapacityError: a single passage does not fit into memory.
    """
    name, model = inputs.source.name, loaded.model
    saes = inputs.saes.values()
    ids = torch.as_tensor(trial_ids(inputs.cutter, max_length))[None]
    own = [place for sae in saes for place in (sae.hookpoint, sae.target)]
    with _failures(name, ids):
        stream = _readable(model, ids[:, :CAUSALITY_TOKENS], list(map(Hookpoint, range(max(inputs.saes).block + 1))))
        read = _read_longest(name, model, ids, {*stream, *own})
    _require_finite(name, loaded, read)
    for sae in saes:
        _require_shapes(model, sae, read, ids)
    if ids.shape[1] > 2:
        with _failures(name, ids):
            _require_causal(name, model, ids[:, :CAUSALITY_TOKENS], sorted({*stream, *own}))
    for sae in saes:
        _require_encodable(sae, loaded.device, read)


def trial_ids(cutter: PassageCutter, tokens: int) -> list[int]:
    """Token ids of a passage of the sentences, again and again, of the greatest length."""
    ids = [token_id for text in SENTENCES for span in cutter.spans(text) for token_id in span.token_ids]
    own = [token_id for token_id in range(cutter.known_ids or 1) if token_id not in cutter.special_ids]
    repeated = list(islice(cycle(ids or own or [0]), max(0, tokens - len(cutter.prefix) - len(cutter.suffix))))
    return cutter.sequence(TokenSpan(repeated, 0, 0, [])).tolist()


@contextmanager
def _failures(name: str, ids: Int[Tensor, "batch seq"]) -> Iterator[None]:
    """Turn another library's error, as a model runs, into one line with its own words."""
    try:
        yield
    except Exception as error:
        if isinstance(error, StratalensError):
            raise
        if out_of_memory(error):
            raise passage_too_large(ids.shape[1]) from None
        if not is_raised_by_library(error):
            raise
        raise ModelError(
            f"{name}: cannot be run ({in_own_words(error)}); try another --dtype, another version of transformers, or "
            "another model"
        ) from None


def _capture(
    model: nn.Module, ids: Int[Tensor, "batch seq"], places: Iterable[Hookpoint]
) -> dict[Hookpoint, Activations]:
    """Run one batch; hookpoints that it does not pass are left out."""
    read: dict[Hookpoint, Activations] = {}

    def keeper(place: Hookpoint):
        def consumer(vectors: Tensor) -> None:
            kept = vectors[:, :ENCODED_TOKENS].clone()
            read[place] = Activations(kept, tuple(vectors.shape), bool(torch.isfinite(vectors).all()))

        return consumer

    with hooked(model, {place: keeper(place) for place in places}):
        forward(model, ids)
    return read


def _read_longest(
    name: str, model: nn.Module, ids: Int[Tensor, "1 seq"], places: Iterable[Hookpoint]
) -> dict[Hookpoint, Activations]:
    """Read the longest row.

    Raises:
        ModelError: the model takes shorter ones only.
    """
    try:
        return _capture(model, ids, places)
    except Exception as error:
        if isinstance(error, StratalensError) or out_of_memory(error) or not is_raised_by_library(error):
            raise
        longest = _longest_that_works(model, ids)
        if longest < 2:
            raise
        raise ModelError(
            f"{name}: fails on more than {longest:,} tokens ({in_own_words(error)}), and passages may have "
            f"--max_length {ids.shape[1]:,}; give --max_length {longest}"
        ) from None


def _longest_that_works(model: nn.Module, ids: Int[Tensor, "1 seq"]) -> int:
    """Number of tokens of the longest row that a model takes, which fails on all of them; 0 if it takes none."""
    works, fails = 0, ids.shape[1]
    while fails - works > 1:
        middle = (works + fails) // 2
        try:
            forward(model, ids[:, :middle])
        except Exception:
            fails = middle
        else:
            works = middle
    return works


def _require_finite(name: str, loaded: LoadedModel, read: Mapping[Hookpoint, Activations]) -> None:
    place = min((place for place, activations in read.items() if not activations.finite), default=None)
    if place is not None:
        raise _not_finite(name, place, loaded)


def _not_finite(name: str, place: Hookpoint, loaded: LoadedModel) -> ModelError:
    """The error for activations at a hookpoint that are NaN or infinite, with the remedy."""
    dtype = str(loaded.dtype).removeprefix("torch.")
    damaged = next((name for name, weight in loaded.model.named_parameters() if bool(weight.isnan().any())), None)
    if damaged is not None:
        remedy = f"its weights hold NaN (`{damaged}`), so they are damaged: copy or download them again"
    elif loaded.load_in == "8bit":
        remedy = (
            "bitsandbytes makes 8-bit products in float16, which may overflow; give --load_in 4bit, or leave it out"
        )
    elif dtype == "float32":
        remedy = "its weights are damaged, or of another kind of model"
    else:
        remedy = "give --dtype bfloat16 or float32" if dtype == "float16" else "give --dtype float32"
    return ModelError(f"{name}: activations at layer {place} are not finite in {dtype}; {remedy}")


def _require_shapes(
    model: nn.Module, sae: SaeFile, read: Mapping[Hookpoint, Activations], ids: Int[Tensor, "1 seq"]
) -> None:
    for place in (sae.hookpoint, sae.target):
        module = locate(model, place).module
        if place not in read:
            raise ModelError(f"`{module}` is not run when the model reads a text, so nothing can be read there")
        shape, width = read[place].shape, sae.d_model if place == sae.hookpoint else read[place].shape[-1]
        if shape != (*ids.shape, width):
            raise ModelError(
                f"`{module}` has vectors of shape {list(shape)} for a text of {ids.shape[1]} tokens, where "
                f"{[*ids.shape, width]} is expected; this family of models is not supported"
            )


def _readable(model: nn.Module, ids: Int[Tensor, "1 seq"], places: list[Hookpoint]) -> list[Hookpoint]:
    """The hookpoints, or none in a family that has other vectors there: it may be analysed at other sites."""
    with suppress(ModelError):
        _capture(model, ids, places)
        return places
    return []


def _require_causal(name: str, model: nn.Module, ids: Int[Tensor, "1 seq"], places: list[Hookpoint]) -> None:
    """Compare a row with some that end in other tokens. How much rounding does is seen when another row changes."""
    others = list(dict.fromkeys(token_id for token_id in ids[0].tolist() if token_id != ids[0, -1]))[:LAST_TOKENS]
    rows = [torch.cat([ids[0, :-1], ids.new_tensor([other])])[None] for other in others or [0]]
    before, rounded, *after = (
        _capture(model, torch.cat(batch), places)
        for batch in ((ids, ids), (ids, ids.roll(1)), *((x, ids) for x in rows))
    )
    for place in places:
        x = before[place].vectors
        precision = max(MIN_CHANGE, torch.finfo(x.dtype).eps)
        rounding = _changes(x, rounded[place].vectors)
        changes = torch.stack([_changes(x, read[place].vectors) for read in after])
        change, nearest = float(changes[0].median()), float(changes[:, -1].min())
        if change <= max(MAX_ROUNDINGS * float(rounding.median()), precision):
            change = nearest if nearest > max(MAX_ROUNDINGS * float(rounding.max()), MAX_PRECISIONS * precision) else 0
        if change:
            raise ModelError(
                f"{name}: not a causal language model: with another last token, the vectors of the tokens before it "
                f"change by {100 * change:.2g}% at layer {place} (by rounding: {100 * float(rounding.median()):.1g}%); "
                "only models that read a text from left to right can be analysed"
            )


def _changes(x: Float[Tensor, "2 seq d_model"], y: Float[Tensor, "2 seq d_model"]) -> Float[Tensor, "token"]:
    """Length of the change of each vector relative to its length, over the first row but its last token."""
    x, y = x[0, :-1].float(), y[0, :-1].float()
    return (x - y).norm(dim=-1) / x.norm(dim=-1).clamp(min=1e-30)


def _require_encodable(file: SaeFile, device: torch.device, read: Mapping[Hookpoint, Activations]) -> None:
    sae = file.load().on(device)
    x, target = (read[place].vectors.flatten(0, 1).to(device) for place in (file.hookpoint, file.target))
    latents = sae.encode(x)
    decoded = sae.decode(latents, x)
    if decoded.shape != target.shape:
        raise MismatchError(
            f"the SAE of {file.module} gives vectors of width {decoded.shape[1]}, where the model has "
            f"{target.shape[1]}; it was made for another model"
        )
    if not bool(torch.isfinite(decoded).all() and torch.isfinite(latents.value).all()):
        raise CheckpointError(f"the SAE of {file.module} gives values that are not finite; it is damaged")
