"""A labelling model that runs on this machine: a local directory or a Hub id, through transformers."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from stratalens.errors import LabelingError
from stratalens.files.hashing import digest_of
from stratalens.labels.llm.chat import (
    Message,
    NoReply,
    Reply,
)
from stratalens.labels.llm.chat_template import ChatTemplate
from stratalens.labels.llm.local_answers import LoadedChat, TokenQuestion, answers_to, question_of
from stratalens.labels.llm.padded import takes_padding
from stratalens.labels.llm.request_batches import RequestBatches
from stratalens.models.hub import hub_errors, local_or_hub, quiet_transformers
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.models.model_config import load_config
from stratalens.models.model_files import require_sound_files
from stratalens.models.panics import panics_silenced
from stratalens.models.placement import Placement, TooLarge, placement_options, require_on_gpus
from stratalens.models.tokenizer_parts import require_bounded_tokenizer

IDENTITY_SUFFIXES = (".json", ".safetensors", ".bin", ".jinja")
"""Suffixes of the files of a model directory that its answers depend on."""

GPU_BATCH = 8
"""Requests that a GPU answers at the same time."""
ANSWER_BYTES = 4_000_000_000
"""Room on the first GPU for the prompts and answers of a batch."""
TOO_LARGE_REMEDY = "use a smaller labelling model, or serve it elsewhere and name its --labeling_endpoint"
CHECK_MESSAGES = [Message(role="system", content="Be brief."), Message(role="user", content="Say yes.")]


class LocalModel:
    """A causal language model that decodes greedily. It is loaded at the first request.

    A GPU answers several requests together. In float32 the answers are those to single requests; in bfloat16 rounding
    depends on the batch, which may now and then change a word. The CPU answers one at a time.

    Args:
        source: a local directory or a Hub id. Code that comes with a model is never run.
        device: `auto` or a PyTorch device; `cuda` without a number may spread a large model over several GPUs.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        batch: most requests that are answered together; None for 8 on a GPU and 1 on the CPU.
    """

    def __init__(self, source: str, *, device: str = "auto", dtype: str = "auto", batch: int | None = None):
        self._source = source
        self._device = device
        self._dtype = dtype
        self._batch = batch
        self.concurrency = 1
        """Number of requests that are answered together, as soon as the model is loaded."""
        self._lock = threading.Lock()
        self._loaded: LoadedChat | None = None
        self._batches: RequestBatches[TokenQuestion, Reply] | None = None

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
        with self._lock, quiet_transformers():  # it would warn of every long prompt, and of sampling options
            loaded = self._ensure_loaded()
            with hub_errors(loaded.source, LabelingError):
                question = question_of(loaded, messages, max_tokens)
        assert self._batches is not None
        return self._batches.answer(question)

    def _ensure_loaded(self) -> LoadedChat:
        if self._loaded is None:
            loaded = _load(local_or_hub(self._source, LabelingError), self._device, self._dtype)
            self.concurrency = self._size_of_batch(loaded)
            self._batches = RequestBatches(self.concurrency, partial(self._answer_together, loaded))
            self._loaded = loaded
        return self._loaded

    def _answer_together(self, loaded: LoadedChat, questions: Sequence[TokenQuestion]) -> list[Reply | Exception]:
        with self._lock, quiet_transformers():
            return answers_to(loaded, questions)

    def _size_of_batch(self, loaded: LoadedChat) -> int:
        """Requests that are answered together: one where the model would read the padding of others."""
        size = self._batch or (1 if loaded.model.device.type == "cpu" else GPU_BATCH)
        if size == 1:
            return 1
        with hub_errors(loaded.source, LabelingError):
            question = question_of(loaded, CHECK_MESSAGES, max_tokens=1)
            return size if takes_padding(loaded.model, question.tokens.token_ids) else 1


def _load(location: str, device_name: str, dtype_name: str) -> LoadedChat:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = choose_device(device_name)
    placement = Placement(device, choose_dtype(dtype_name, device), beside_bytes=ANSWER_BYTES)
    too_large = TooLarge(location, TOO_LARGE_REMEDY, LabelingError)
    require_sound_files(location, LabelingError)
    config = load_config(location, LabelingError)
    try:
        with hub_errors(location, LabelingError), quiet_transformers():
            with panics_silenced():
                tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
                require_bounded_tokenizer(location, tokenizer, LabelingError)
                tokenizer("a")  # some damage shows only in use
            placed = placement_options(
                partial(AutoModelForCausalLM.from_config, config, trust_remote_code=False), config, placement, too_large
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                location, config=config, dtype=placement.dtype, trust_remote_code=False, **placed
            )
            require_on_gpus(model, placement, too_large)
            model = model if placed else model.to(device)
    except torch.OutOfMemoryError:
        raise LabelingError(
            f"{location}: does not fit into the memory of {device}; use a smaller labelling model or another device"
        ) from None
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LoadedChat(
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
