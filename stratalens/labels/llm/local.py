"""A labelling model that runs on this machine: a local directory or a Hub id, through transformers."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.errors import LabelingError
from stratalens.files.hashing import digest_of
from stratalens.labels.llm.chat import (
    SHORTER_PROMPT,
    Message,
    NoReply,
    Reply,
    usable_text,
)
from stratalens.labels.llm.chat_template import MAX_TEMPLATE_SECONDS, ChatTemplate
from stratalens.labels.llm.deadline import within
from stratalens.labels.llm.reasoning import is_mark, opening_of
from stratalens.models.hub import hub_errors, local_or_hub, quiet_transformers
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.models.model_config import load_config
from stratalens.models.model_files import require_sound_files
from stratalens.models.panics import panics_silenced
from stratalens.models.tokenizer_parts import require_bounded_tokenizer

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".jinja")
"""Suffixes of the files of a model directory that its answers depend on."""

CHECK_MESSAGES = [Message(role="system", content="Be brief."), Message(role="user", content="Say yes.")]


class _Loaded(NamedTuple):
    source: str
    model: Any
    tokenizer: Any
    template: ChatTemplate | None
    end_ids: list[int]
    """Tokens that end an answer."""
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
        """Load the model and make it answer with one token, so that a failure is reported before the run starts.

        Raises:
            LabelingError: it cannot be loaded or run; the message says what to do.
        """
        with suppress(NoReply):  # one token may well be an empty answer
            self.reply(CHECK_MESSAGES, max_tokens=1)

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        """Answer one request; see `ChatModel`. The schema is ignored, as decoding is not constrained."""
        import torch

        with self._lock, quiet_transformers():  # it would warn of every long prompt, and of sampling options
            loaded = self._ensure_loaded()
            with hub_errors(loaded.source, LabelingError):
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
    config = load_config(location, LabelingError)
    try:
        with hub_errors(location, LabelingError), quiet_transformers():
            with panics_silenced():
                tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
                require_bounded_tokenizer(location, tokenizer, LabelingError)
                tokenizer("a")  # some damage shows only in use
            model: Any = AutoModelForCausalLM.from_pretrained(
                location, config=config, dtype=dtype, trust_remote_code=False, **placement
            )
            model = model if placement else model.to(device)
    except torch.OutOfMemoryError:
        raise LabelingError(
            f"{location}: does not fit into the memory of {device}; use a smaller labelling model or another device"
        ) from None
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return _Loaded(
        location,
        model.eval().requires_grad_(False),
        tokenizer,
        _chat_template(location, tokenizer),
        _keep_only_ends(location, model, tokenizer),
        context if type(context) is int else None,
    )


def _chat_template(location: str, tokenizer: Any) -> ChatTemplate | None:
    if tokenizer.chat_template is None:
        return None
    with hub_errors(location, LabelingError):
        template, tokens = tokenizer.get_chat_template(), tokenizer.special_tokens_map
    if not isinstance(template, str):
        raise LabelingError(f"{location}: its chat template is no text; choose another model with --labeling_model")
    return ChatTemplate(location, template, {name: str(token) for name, token in tokens.items()})


def _keep_only_ends(location: str, model: Any, tokenizer: Any) -> list[int]:
    """Replace the model's own settings for generation, which may ask for any work, by the tokens that end an answer.

    Raises:
        LabelingError: one of them is no token of the model.
    """
    from transformers import GenerationConfig

    own, tokenizer_end = model.generation_config.eos_token_id, tokenizer.eos_token_id
    end_ids = own if isinstance(own, list) else [token_id for token_id in (own, tokenizer_end) if token_id is not None]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer_end
    size = model.get_input_embeddings().weight.shape[0]
    for token_id in (*end_ids, *([] if pad_id is None else [pad_id])):
        if type(token_id) is not int or not 0 <= token_id < size:
            raise LabelingError(
                f"{location}: {str(token_id)[:40]!a} is no token of this model, but named as one that ends an answer; "
                "correct its generation_config.json and tokenizer_config.json"
            )
    model.generation_config = GenerationConfig(eos_token_id=None if own == [] else own, pad_token_id=pad_id)
    return end_ids


def _generate(loaded: _Loaded, messages: Sequence[Message], max_tokens: int) -> Reply:
    """Decode greedily within the context; a prompt that is too long is refused, not cut."""
    import torch

    model, tokenizer, context = loaded.model, loaded.tokenizer, loaded.context
    prompt, options = _prompt(loaded, messages)
    inputs = _encode(loaded, prompt, options)
    prompt_tokens = inputs["input_ids"].shape[1]
    max_new_tokens = max_tokens if context is None else min(max_tokens, context - prompt_tokens)
    if max_new_tokens < 1:
        raise NoReply("prompt longer than the model's context", SHORTER_PROMPT)
    with torch.inference_mode():
        output = model.generate(**inputs.to(model.device), do_sample=False, max_new_tokens=max_new_tokens)
    answer_ids = output[0, prompt_tokens:].tolist()
    cut_off = len(answer_ids) >= max_new_tokens and answer_ids[-1] not in loaded.end_ids
    text = usable_text(opening_of(prompt) + _decode(tokenizer, answer_ids), cut_off)
    return Reply(text, prompt_tokens, len(answer_ids), cut_off)


def _decode(tokenizer: Any, answer_ids: list[int]) -> str:
    """Return the text of an answer, with those special tokens alone that stand around reasoning."""
    special = set(tokenizer.all_special_ids).intersection(answer_ids)
    left_out = {token_id for token_id in special if not is_mark(tokenizer.decode([token_id]).strip())}
    return tokenizer.decode([one for one in answer_ids if one not in left_out], skip_special_tokens=left_out == special)


def _prompt(loaded: _Loaded, messages: Sequence[Message]) -> tuple[str, dict[str, bool]]:
    """Return the prompt by the model's template, else the plain texts in order; and how it becomes tokens."""
    if loaded.template is None:
        return "\n\n".join(message["content"] for message in messages), {}
    return loaded.template.prompt(messages), {"add_special_tokens": False}


def _encode(loaded: _Loaded, prompt: str, options: Mapping[str, bool]) -> Any:
    """Return the token ids of a prompt, `[1, seq]`."""
    try:
        return within(MAX_TEMPLATE_SECONDS, lambda: loaded.tokenizer(prompt, return_tensors="pt", **options))
    except TimeoutError:
        raise LabelingError(
            f"{loaded.source}: its tokenizer did not end within {MAX_TEMPLATE_SECONDS:g} s; "
            "choose another model with --labeling_model"
        ) from None
