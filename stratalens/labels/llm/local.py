"""A labelling model that runs on this machine: a local directory or a Hub id, through transformers."""

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
from stratalens.labels.llm.deadline import within
from stratalens.models.hub import hub_errors, local_or_hub, quiet_transformers
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.models.model_files import require_sound_files
from stratalens.models.panics import panics_silenced

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".jinja")
"""Suffixes of the files of a model directory that its answers depend on."""

MAX_TEMPLATE_SECONDS = 60.0
"""For a model's chat template, a small program that comes with the model, and for the tokens of what it makes."""


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    context: int | None
    """Limit on the tokens of prompt and answer together; None if the model has none."""


class LocalModel:
    """A causal language model that decodes greedily, one request at a time. It is loaded at the first request.

    Args:
        source: a local directory or a Hub id. Code that comes with a model is never run.
        device: `auto` or a PyTorch device; `cuda` without a number may spread a large model over all GPUs.
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
        """The Hub id, or the name of the directory and the start of a digest of its files.

        Raises:
            LabelingError: the source is neither a directory nor a Hub id.
        """
        return self._named

    @cached_property
    def _named(self) -> str:
        location = Path(local_or_hub(self._source, LabelingError))
        if not location.is_dir():
            return self._source
        # Training runs write many checkpoints with the same name, or to the same path.
        files = (path for path in location.iterdir() if path.suffix in IDENTITY_SUFFIXES)
        digest = digest_of(path for path in files if path.is_file())
        return f"{location.resolve().name} ({digest[:12]})"

    def check(self) -> None:
        """Load the model, so that a failure is reported before the run starts.

        Raises:
            LabelingError: it cannot be loaded; the message says what to do.
        """
        with self._lock:
            self._ensure_loaded()

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Answer one request; see `ChatModel`. The schema is ignored, as decoding is not constrained."""
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
    require_sound_files(location, LabelingError)
    try:
        with hub_errors(location, LabelingError), quiet_transformers():
            with panics_silenced():
                tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
                tokenizer("a")  # some damage shows only in use
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
    """Decode greedily within the context; a prompt that is too long is refused, not cut."""
    import torch

    model, tokenizer, context = loaded
    inputs = _encode(tokenizer, messages)
    prompt_tokens = inputs["input_ids"].shape[1]
    max_new_tokens = max_tokens if context is None else min(max_tokens, context - prompt_tokens)
    if max_new_tokens < 1:
        raise NoReply("prompt longer than the model's context")
    # With do_sample=False, sampling options of the model's configuration have no effect but cause a warning.
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "max_new_tokens": max_new_tokens}
    end_ids = model.generation_config.eos_token_id
    end_ids = set(end_ids if isinstance(end_ids, list) else [end_ids, tokenizer.eos_token_id])
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with torch.inference_mode():
        output = model.generate(**inputs.to(model.device), **greedy, pad_token_id=pad_id)
    answer_ids = output[0, prompt_tokens:].tolist()
    cut_off = len(answer_ids) >= max_new_tokens and answer_ids[-1] not in end_ids
    text = usable_text(tokenizer.decode(answer_ids, skip_special_tokens=True), cut_off)
    return Reply(text, prompt_tokens, len(answer_ids), cut_off)


def _encode(tokenizer: Any, messages: Sequence[Message]) -> Any:
    """Return the token ids of the chat, `[1, seq]`: by the model's template, else of the plain texts in order."""
    from jinja2 import TemplateError

    plain_text = "\n\n".join(message["content"] for message in messages)
    if tokenizer.chat_template is None:
        return tokenizer(plain_text, return_tensors="pt")
    options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}

    def apply(turns: list[Message]) -> Any:
        return within(MAX_TEMPLATE_SECONDS, lambda: tokenizer.apply_chat_template(turns, **options))

    try:
        try:
            return apply(list(messages))
        except TemplateError:  # some templates reject a system turn, or two turns of the same role
            return apply([Message(role="user", content=plain_text)])
    except TimeoutError:
        raise LabelingError(
            f"{tokenizer.name_or_path}: its chat template did not end within {MAX_TEMPLATE_SECONDS:g} s; "
            "choose another model with --labeling_model"
        ) from None
