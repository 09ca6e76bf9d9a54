"""How the files of one side are read."""

from dataclasses import dataclass
from typing import Literal

from stratalens.config.options import RunConfig
from stratalens.corpus.populations import Side

NO_ID = "none"
"""As `--id_column`: every row is a document of its own."""


@dataclass(frozen=True)
class TextOptions:
    """How files of text are read; the options of a run with these names say more."""

    text_column: tuple[str, ...] = ("text",)
    """Columns that hold the text, joined by a blank line; `a.b` is the field `b` of the field `a`."""
    id_column: str | None = None
    """Column that names the document of a row, which every table must have; None takes `id` where there is one."""
    kind_column: str | None = None
    """Column that names the kind of a document, which every table must have; None where documents have no kind."""
    source_column: str | None = None
    """Column that names the source of a document, which every table must have; None takes the file."""
    kind: str | None = None
    """Kind of all documents, in place of a column."""
    text_unit: Literal["auto", "line", "file"] = "auto"
    """What one document of a plain-text file is."""
    encoding: str | None = None
    """Encoding of all files; None decides for each file."""
    csv_delimiter: str | None = None
    """The character between the cells of a CSV file; None decides for each file."""
    csv_quoting: Literal["auto", "standard", "backslash", "none"] = "auto"
    """How a quotation mark in a CSV file is meant."""
    skip_bad_rows: bool = False
    """Whether rows that cannot be read are skipped and counted."""
    unescape_html: bool = False
    """Whether character references such as `&amp;` are read as a browser would."""

    @classmethod
    def of_side(cls, config: RunConfig, side: Side) -> "TextOptions":
        """Options of the user's own files of one side."""
        own = config.domain_text_column if side == Side.DOMAIN else config.general_text_column
        return cls(
            text_column=own or config.text_column,
            id_column=config.id_column,
            kind_column=config.kind_column,
            source_column=config.source_column,
            text_unit=config.text_unit,
            encoding=config.encoding,
            csv_delimiter=config.csv_delimiter,
            csv_quoting=config.csv_quoting,
            skip_bad_rows=config.skip_bad_rows,
            unescape_html=config.unescape_html,
        )


DEFAULTS = TextOptions()
BUILT_IN_TEXTS = TextOptions(kind_column="kind")
"""How the built-in texts are read."""
