"""The options of an analysis, with their defaults and their help."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from stratalens.config.domain_file import with_domain
from stratalens.config.layer_numbers import parse_layers
from stratalens.config.result_options import LabelConfig, RankBy, as_words, require_device, require_no_zero_byte
from stratalens.config.sae_activation import parse_activation
from stratalens.config.sae_pick import wanted_l0
from stratalens.config.text_config import MAX_COUNT, TextConfig
from stratalens.hookpoint import SITE_NAMES

RECORDED_WITH_SIDES = ("digest", "split", "files", "lengths", "kinds", "form_auroc")
"""What `run.json` says of the text beside the two sides, under their names."""

HOST_BATCH_TOKENS = 2048
"""On the CPU, where larger batches are slower."""
BATCH_TOKENS = TypeAdapter(Annotated[int, Field(ge=16, le=MAX_COUNT)])
"""What a number of `batch_tokens` must be."""


class RunConfig(TextConfig, LabelConfig):
    """Find the features of a language model that belong to a domain, layer by layer.

    Contrasts the latents of sparse autoencoders (SAEs) on domain and general text.
    One half of the documents selects; the other half gives estimates and intervals.
    """

    base_model: str | None = None
    """Model to analyse: a local directory or a Hub id. Default: the embedded SmolLM2-135M-Instruct."""
    revision: str | None = None
    """Revision (branch, tag or commit) of a base model on the Hub."""
    sae_model: str | None = None
    """SAEs, in a format that docs/formats.md lists: a local directory, a Hub id, a folder in either (`ID:FOLDER`), or a
    pattern such as `google/gemma-scope-2b-pt-res:layer_{layer}/width_16k`. Default: those shipped for the embedded
    model."""
    sae_pick: tuple[str, ...] = ()
    """Which SAEs, where several fit a layer: globs over their paths, such as `width_16k`, and `l0=70` for the nearest
    L0; all must fit. Without it the message lists them."""
    sae_revision: str | None = None
    """Revision (branch, tag or commit) of SAEs on the Hub."""
    sae_format: str | None = None
    """Format of the SAEs, such as saelens; docs/formats.md lists them. Default: what their files look like."""
    sae_activation: str | None = None
    """Activation of SAEs whose files do not say it: relu, topk:32, groupmax:32, jumprelu or jumprelu:0.05."""
    layers: tuple[str, ...] = ()
    """Layers to analyse, such as `4 10-12 16`, or `all`. Default: 4 10 16 22 28 with the embedded model, else every
    layer that the SAE folder has."""
    sites: tuple[str, ...] = ()
    """Sites of the layers to analyse, such as `resid mlp`: resid (the block's output), resid_in, attn, mlp, attn_heads,
    attn_norm, mlp_norm and others that docs/method.md explains. Default: resid, or the only site of the SAE folder."""
    domain: str = "financial"
    """The domain: financial, medical or legal, which have built-in texts; any other name, with --domain_data; or the
    path of a folder or YAML file that describes a domain, see docs/own-domain.md."""
    senses: tuple[str, ...] = ()
    """JSON lines files of sentence pairs in which a word of the domain has another sense, for --token_test; used
    instead of the built-in ones of the domain."""
    max_length: int = Field(256, ge=16, le=131_072)
    """Longest passage in tokens; longer documents are cut into several."""
    min_length: int = Field(8, ge=2, le=MAX_COUNT)
    """Skip documents of fewer tokens."""
    top_n: int = Field(30, ge=1, le=MAX_COUNT)
    """Number of features to report per layer."""
    min_specialization: float = Field(0.1, ge=0)
    """Minimum specialization, in raw units, of features in the file of the best features across layers."""
    top_features_n: int = Field(50, ge=1, le=MAX_COUNT)
    """Maximum number of features in the file of the best features across layers."""
    rank_by: RankBy = "specialization"
    """Statistic by which the features of a layer are ordered."""
    compare_layers_by: Literal["normalised", "raw"] = "normalised"
    """How features of different layers, and layers, are compared: by specialization as a share of the norm of the
    residual stream, or by raw specialization."""
    token_test: bool = False
    """Paste the tokens on which each reported feature fires into unrelated text, to see whether they alone switch it
    on. The model reads about 2,700 tokens more for each feature. `stratalens token_test` does it later."""
    effect: bool = False
    """Measure afterwards what the model loses without features, which takes many times as long as the run.
    `stratalens effect` does it later, and says before how long."""
    output_dir: str = "multi_layer_results"
    """Directory for the results."""
    overwrite: bool = False
    """Replace files in --output_dir that have the name of a file of the result, although no earlier run wrote them.
    Otherwise such files are refused before the work begins. No file turns this on."""
    batch_tokens: int | Literal["auto"] = "auto"
    """Tokens per batch, padding included. `auto`: 16384 on a GPU of 24 GB or more, 4096 on another, 2048 on the CPU,
    and at least --max_length. The last digits of results depend on this number; run.json records it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base model. `auto`: bfloat16 where the hardware multiplies it natively."""
    load_in: Literal["8bit", "4bit"] | None = None
    """Quantise the blocks of the base model as they are loaded, by bitsandbytes, to fit a smaller GPU: activations are
    then those of the quantised model."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model, SAEs and statistics may take: of the GPU if there is one, otherwise of the
    machine. Layers that do not fit together are read in several passes over the text. Default: 90% of what is free."""
    keep_gb: float = Field(2.0, ge=0)
    """Gigabytes of the result for the activations of all latents on each token, so that evidence of any latent needs
    neither the model nor the text again: of sampled documents first, then of the strongest passages."""
    device: str = "auto"
    """Where the model runs: `auto` takes the first available of cuda, mps and cpu."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the split into halves and of all samples."""
    harvest: Literal["reuse", "refresh"] = "reuse"
    """`reuse`: continue with what an earlier run in --output_dir has read of the same text with the same model, SAEs
    and settings. `refresh`: read everything again."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of the model. Default: PyTorch's own choice. The last digits of results depend on this number."""
    workers: Literal["local", "ray"] = "local"
    """What reads the text: this process, or workers on a running Ray cluster, one per GPU or one per --threads CPUs.
    Results are the same."""
    allow_poor_fit: bool = False
    """Continue even if an SAE does not seem to fit its layer."""
    controls: Literal["standard", "full"] = "standard"
    """`full` reads the text a second time with SAEs of the same shape whose latents are random directions, to show what
    the same selection and tests find with those."""
    dry_run: bool = False
    """Print what would run, with an estimate of memory and time, and stop."""

    @property
    def keep_bytes(self) -> int:
        """Bytes that token-level codes may take; none where nothing of the text is to be written."""
        return 0 if self.no_examples else int(self.keep_gb * 1e9)

    @model_validator(mode="before")
    @classmethod
    def _described_domain(cls, options: object) -> object:
        """Replace the path of a domain by its name and what its description says."""
        if not isinstance(options, dict):
            return options
        return with_domain(options, {name: field.default for name, field in cls.model_fields.items()})

    @field_validator("layers", "sites", mode="before")
    @classmethod
    def _layer_words(cls, value: object) -> object:
        """Split `16`, `[4, 10]`, `4 10-12` or `all`, as Python callers and YAML files write them, into words."""
        return tuple(part for word in as_words(value) for part in (word.split() if isinstance(word, str) else [word]))

    @field_validator("senses", "sae_pick", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(as_words(value))

    @field_validator("base_model", "sae_model", "output_dir", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @field_validator("batch_tokens", mode="plain")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        try:
            return value if value == "auto" else BATCH_TOKENS.validate_python(value)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from None

    @property
    def tokens_per_batch(self) -> int:
        """`batch_tokens` as a number. A run replaces `auto` by that for its device first (`harvest.batch_size`)."""
        return max(HOST_BATCH_TOKENS, self.max_length) if self.batch_tokens == "auto" else self.batch_tokens

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.domain) or self.domain.lower() == "general":
            raise ValueError(
                f"domain: `{self.domain}` cannot name files; use letters, digits, _ and -, and not `general`"
            )
        if self.domain in RECORDED_WITH_SIDES:
            raise ValueError(f"domain: run.json has an entry `{self.domain}` of its own; choose another name")
        names = [self.base_model, self.sae_model, self.output_dir, *self.senses]
        if "" in names:
            raise ValueError("a path is empty; name a file or a directory (`.` is this one)")
        require_no_zero_byte([*names, self.revision, self.sae_revision, *self.sae_pick])
        parse_activation(self.sae_activation)
        for pick in self.sae_pick:
            wanted_l0(pick)
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} exceeds max_length {self.max_length}")
        if self.batch_tokens != "auto" and self.batch_tokens < self.max_length:
            raise ValueError(f"batch_tokens {self.batch_tokens} is less than max_length {self.max_length}")
        if (self.base_model is None) != (self.sae_model is None):
            given, missing = ("sae_model", "base_model") if self.base_model is None else ("base_model", "sae_model")
            raise ValueError(f"{given} was given without {missing}; give both, or neither to use the embedded pair")
        require_device(self.device)
        if self.workers == "ray" and ":" in self.device:
            raise ValueError(
                f"device: with --workers ray every worker would use {self.device}; give --device cuda, by which each "
                "worker gets a GPU of its own"
            )
        parse_layers(self.layers)
        for site in self.sites:
            if site not in SITE_NAMES:
                raise ValueError(f"sites: `{site}` is unknown; expected {', '.join(SITE_NAMES)}")
        if len(set(self.sites)) < len(self.sites):
            raise ValueError("sites: one is named more than once")
        return self
