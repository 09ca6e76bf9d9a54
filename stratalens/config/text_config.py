"""The options that say which texts are read, and how: the same for a run and for a validation of its result."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stratalens.config.result_options import as_words, require_no_zero_byte
from stratalens.config.text_words import delimiter_named, known_encoding

TextPair = tuple[str, str, str]
"""Name of a kind of text, domain texts and general texts of that kind."""
MAX_COUNT = 2**31 - 1
"""Largest value of an option that counts something."""


class TextConfig(BaseModel):
    """Texts of both sides, and how they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

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

    @model_validator(mode="after")
    def _check_text_options(self) -> "TextConfig":
        texts = [*self.domain_data, *self.general_data, *(text for _, *pair in self.pair for text in pair)]
        if "" in texts:
            raise ValueError("a path is empty; name a file or a directory (`.` is this one)")
        require_no_zero_byte(texts)
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
        return self

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
