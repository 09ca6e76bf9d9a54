"""A labelling model that runs here: a local directory or a Hub id, through transformers."""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.errors import LabelingError
from stratalens.files.hashing import digest_of
from stratalens.labels.llm.chat import (
    Message,
    NoReply,
    Reply,
    usable_text,
)
from stratalens.models.hub import hub_errors, local_or_hub, quiet_transformers
from stratalens.models.loading import choose_device, choose_dtype

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".jinja")
"""Files of a model directory that its answers depend on."""


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    context: int | None
    """Tokens of prompt and answer together; None where the model has no limit."""


class LocalModel:
    """A causal language model decoding greedily, one request at a time. Loaded when first asked.

    Args:
        source: a local directory or a Hub id. Code that comes with a model is never run.
        device: `auto` or as PyTorch names it; with `cuda` and no number, a large model is spread over all GPUs.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
    """

    concurrency = 1

    def __init__(self, source: str, *, device: str = "auto", dtype: str = "auto"):
        self._source = source
        self._device = device
        self._dtype = dtype
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def __repr__(self) -> str:
        return f"LocalModel({self._source!r}, device={self._device!r}, dtype={self._dtype!r})"

    @property
    def name(self) -> str:
        """The Hub id, or the directory's name and the start of a digest over its files.

        Raises:
            LabelingError: there is no such directory, and it is not a Hub id.
        """
        return self._named

    @cached_property
    def _named(self) -> str:
        location = Path(local_or_hub(self._source, LabelingError))
        if not location.is_dir():
            return self._source
        # Training runs write many checkpoints of the same name, and into the same place.
        digest = digest_of(path for path in location.iterdir() if path.suffix in IDENTITY_SUFFIXES)
        return f"{location.resolve().name} ({digest[:12]})"

    def check(self) -> None:
        """Load the model, so that a run finds out before it starts.

        Raises:
            LabelingError: it cannot be loaded; the message says what to do.
        """
        with self._lock:
            self._ensure_loaded()

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Ask once; see `ChatModel`. The schema is ignored: nothing here constrains decoding."""
        import torch

        with self._lock, quiet_transformers():  # it would warn of every long prompt, and of sampling options
            loaded = self._ensure_loaded()
            try:
                return _generate(loaded, messages, max_tokens)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise NoReply("out of GPU memory") from None

    def _ensure_loaded(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _load(local_or_hub(self._source, LabelingError), self._device, self._dtype)
        return self._loaded


def _load(location: str, device_name: str, dtype_name: str) -> _Loaded:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = choose_device(device_name)
    dtype = choose_dtype(dtype_name, device)
    placement: dict[str, object] = {}
    if device.type == "cuda":
        placement["device_map"] = "auto" if device.index is None else {"": device}
    try:
        with hub_errors(location, LabelingError), quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                location, dtype=dtype, trust_remote_code=False, **placement
            )
            model = model if placement else model.to(device)
    except torch.OutOfMemoryError:
        raise LabelingError(
            f"{location}: does not fit into the memory of {device}; use a smaller labelling model or another device"
        ) from None
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return _Loaded(model.eval().requires_grad_(False), tokenizer, context)


def _generate(loaded: _Loaded, messages: Sequence[Message], max_tokens: int) -> Reply:
    """Decode greedily, within the context, never cutting the prompt."""
    import torch

    model, tokenizer, context = loaded
    inputs = _encode(tokenizer, messages)
    prompt_tokens = inputs["input_ids"].shape[1]
    room = max_tokens if context is None else min(max_tokens, context - prompt_tokens)
    if room < 1:
        raise NoReply("prompt longer than the model's context")
    # Sampling options of the model's own configuration would only draw a warning beside do_sample=False.
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "max_new_tokens": room}
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        output = model.generate(**inputs.to(model.device), **greedy, pad_token_id=pad)
    new = output[0, prompt_tokens:].tolist()
    cut_off = len(new) >= room and new[-1] not in ends
    text = usable_text(tokenizer.decode(new, skip_special_tokens=True), cut_off)
    return Reply(text, prompt_tokens, len(new), cut_off)


def _encode(tokenizer: Any, messages: Sequence[Message]) -> Any:
    """Token ids of the chat, `[1, seq]` each: by the model's template, else the plain texts one after the other."""
    from jinja2 import TemplateError

    together = "\n\n".join(message["content"] for message in messages)
    if tokenizer.chat_template is None:
        return tokenizer(together, return_tensors="pt")
    options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except TemplateError:  # some templates know no system turn, or no two turns of the same role
        return tokenizer.apply_chat_template([Message(role="user", content=together)], **options)
