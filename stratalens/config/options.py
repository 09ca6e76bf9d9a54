"""The options of an analysis, with their defaults and their help."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stratalens.config.domain_file import with_domain
from stratalens.config.layer_numbers import parse_layers
from stratalens.config.result_options import LabelConfig, RankBy, as_words, require_no_zero_byte
from stratalens.config.text_words import delimiter_named, known_encoding
from stratalens.hookpoint import SITE_NAMES

TextPair = tuple[str, str, str]
"""Name of a kind of text, domain texts and general texts of that kind."""
RECORDED_WITH_SIDES = ("digest", "split", "files", "lengths", "kinds", "form_auroc")
"""What `run.json` says of the text beside the two sides, under their names."""
MAX_COUNT = 2**31 - 1
"""Largest value of an option that counts something."""


class RunConfig(LabelConfig):
    """Find the features of a language model that belong to a domain, layer by layer.

    Contrasts the latents of sparse autoencoders (SAEs) on domain and general text.
    One half of the documents selects; the other half gives estimates and intervals.
    """

    base_model: str | None = None
    """Model to analyse: a local directory or a Hub id. Default: the embedded SmolLM2-135M-Instruct."""
    revision: str | None = None
    """Revision (branch, tag or commit) of a base model on the Hub."""
    sae_model: str | None = None
    """SAEs in sparsify's format: a local directory or a Hub id. Default: those shipped for the embedded model."""
    layers: tuple[str, ...] = ()
    """Layers to analyse, such as `4 10-12 16`, or `all`. Default: 4 10 16 22 28 with the embedded model, else every
    layer that the SAE folder has."""
    sites: tuple[str, ...] = ()
    """Sites of the layers to analyse, such as `resid mlp`: resid (the block's output), resid_in, attn, mlp, attn_heads,
    attn_norm, mlp_norm and others that docs/method.md explains. Default: resid, or the only site of the SAE folder."""
    domain: str = "financial"
    """The domain: financial, medical or legal, which have built-in texts; any other name, with --domain_data; or the
    path of a folder or YAML file that describes a domain, see docs/own-domain.md."""
    domain_data: tuple[str, ...] = ()
    """Domain texts: txt, jsonl, csv or parquet files, also compressed as .gz, directories or globs, local or at an
    address such as s3://bucket/news/; or hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN, a streamed dataset."""
    general_data: tuple[str, ...] = ()
    """General texts to compare with, in the same forms as --domain_data. Default: the built-in ones."""
    pair: tuple[TextPair, ...] = ()
    """Texts of one kind, such as `--pair letters bank_letters.csv other_letters.csv`: the name of the kind, the domain
    texts and the general texts. Can be given several times; texts are compared within their kind. Takes the place of
    --domain_data and --general_data."""
    text_column: tuple[str, ...] = ("text",)
    """Columns that hold the text in json, jsonl, csv and parquet files: several are joined by a blank line; `a.b` is
    the field `b` of the field `a`."""
    domain_text_column: tuple[str, ...] = ()
    """The same for the files of --domain_data alone. The built-in texts need no name."""
    general_text_column: tuple[str, ...] = ()
    """The same for the files of --general_data alone."""
    id_column: str | None = None
    """Column whose value, up to `#`, names the document of a row; `none`: each row is a document of its own. Default:
    `id`, where there is such a column."""
    kind_column: str | None = None
    """Column that names the kind of a document, such as news or letter. Where both sides have kinds, documents are
    compared within their kind. The built-in texts have kinds."""
    source_column: str | None = None
    """Column that names the source of a document. Default: its file."""
    skip_bad_rows: bool = False
    """Skip and count rows that cannot be read, such as rows without the text column. Otherwise the first ends the
    run."""
    encoding: str | None = None
    """Encoding of your text files, such as cp1252. Default: UTF-8, or what each file is recognised to be."""
    csv_delimiter: str | None = None
    """Character between the cells of CSV files: itself, or comma, semicolon, tab or pipe. Default: found in each
    file."""
    csv_quoting: Literal["auto", "standard", "backslash", "none"] = "auto"
    """What quotation marks in CSV files are. `standard`: they enclose cells, and those inside are doubled; `backslash`:
    those inside follow a backslash; `none`: ordinary characters. `auto`: found in each file."""
    unescape_html: bool = False
    """Read character references such as `&amp;` as a browser would."""
    keep_near_duplicates: bool = False
    """Let all documents count that say nearly the same, numbers apart. Otherwise one of them does."""
    text_unit: Literal["auto", "line", "file"] = "auto"
    """What counts as a document in plain-text files. `auto`: each line of a file, or each file of a
    directory."""
    max_documents: int | None = Field(None, ge=3, le=MAX_COUNT)
    """Use at most this many documents per side, chosen by hash, of each kind its share."""
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
    output_dir: str = "multi_layer_results"
    """Directory for the results."""
    overwrite: bool = False
    """Replace files in --output_dir that have the name of a file of the result, although no earlier run wrote them.
    Otherwise such files are refused before the work begins. No file turns this on."""
    batch_tokens: int = Field(4096, ge=16, le=MAX_COUNT)
    """Tokens per batch, padding included."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the base model. `auto`: bfloat16 where the hardware multiplies it natively."""
    load_in: Literal["8bit", "4bit"] | None = None
    """Quantise the blocks of the base model as they are loaded, by bitsandbytes, to fit a smaller GPU: activations are
    then those of the quantised model."""
    memory_gb: float | None = Field(None, gt=0)
    """Gigabytes of memory that model, SAEs and statistics may take: of the GPU if there is one, otherwise of the
    machine. Layers that do not fit together are read in several passes over the text. Default: 90% of what is free."""
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
    dry_run: bool = False
    """Print what would run, with an estimate of memory and time, and stop."""

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

    @field_validator(
        *("domain_data", "general_data", "text_column", "domain_text_column", "general_text_column"), mode="before"
    )
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(as_words(value))

    @field_validator("pair", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        pairs = [tuple(as_words(pair)) for pair in value] if isinstance(value, list | tuple) else [(value,)]
        if not all(len(pair) == 3 and all(isinstance(word, str) for word in pair) for pair in pairs):
            raise ValueError("each pair is three words: the name of a kind, domain texts and general texts")
        return pairs

    @field_validator("base_model", "sae_model", "output_dir", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.domain) or self.domain.lower() == "general":
            raise ValueError(
                f"domain: `{self.domain}` cannot name files; use letters, digits, _ and -, and not `general`"
            )
        if self.domain in RECORDED_WITH_SIDES:
            raise ValueError(f"domain: run.json has an entry `{self.domain}` of its own; choose another name")
        texts = [*self.domain_data, *self.general_data, *(text for _, *pair in self.pair for text in pair)]
        names = [self.base_model, self.sae_model, self.output_dir, *texts]
        if "" in names:
            raise ValueError("a path is empty; name a file or a directory (`.` is this one)")
        require_no_zero_byte([*names, self.revision])
        self._check_text_options()
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} exceeds max_length {self.max_length}")
        if self.batch_tokens < self.max_length:
            raise ValueError(f"batch_tokens {self.batch_tokens} is less than max_length {self.max_length}")
        if (self.base_model is None) != (self.sae_model is None):
            given, missing = ("sae_model", "base_model") if self.base_model is None else ("base_model", "sae_model")
            raise ValueError(f"{given} was given without {missing}; give both, or neither to use the embedded pair")
        if re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", self.device) is None:  # torch takes 256 for 0
            raise ValueError(f"device: `{self.device}` is unknown; expected auto, cpu, mps, cuda or cuda:N")
        parse_layers(self.layers)
        for site in self.sites:
            if site not in SITE_NAMES:
                raise ValueError(f"sites: `{site}` is unknown; expected {', '.join(SITE_NAMES)}")
        if len(set(self.sites)) < len(self.sites):
            raise ValueError("sites: one is named more than once")
        return self

    def _check_text_options(self) -> None:
        if not self.text_column:
            raise ValueError("text_column: name at least one column")
        own_columns = [*self.domain_text_column, *self.general_text_column]
        columns = [*self.text_column, *own_columns, self.id_column, self.kind_column, self.source_column]
        if "" in columns:
            raise ValueError("the name of a column is empty; leave the option out instead")
        self._check_kinds()
        for name in ("domain", "general"):
            if getattr(self, f"{name}_text_column") and not (getattr(self, f"{name}_data") or self.pair):
                raise ValueError(f"{name}_text_column was given without {name}_data; the built-in texts need no name")
        if self.encoding is not None and known_encoding(self.encoding) is None:
            raise ValueError(f"encoding: `{self.encoding[:40]}` is unknown; expected a name such as utf-8 or cp1252")
        if self.csv_delimiter is not None and delimiter_named(self.csv_delimiter) is None:
            raise ValueError(
                f"csv_delimiter: `{self.csv_delimiter[:40]}` is no single character; expected one, or comma, "
                "semicolon, tab or pipe"
            )

    def _check_kinds(self) -> None:
        if self.pair and (self.domain_data or self.general_data):
            raise ValueError("pair was given with domain_data or general_data; a pair names the texts of both sides")
        if self.pair and self.kind_column is not None:
            raise ValueError("pair was given with kind_column; a pair names the kind of its texts itself")
        for kind, *_ in self.pair:
            if not kind.strip():
                raise ValueError("pair: the name of a kind is empty")
        if (self.kind_column or self.source_column) and not (self.domain_data or self.general_data or self.pair):
            raise ValueError("kind_column or source_column was given without domain_data and general_data")
