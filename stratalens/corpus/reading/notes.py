"""What was unusual in the files of one side, counted while they are read, and told in one line each."""

from dataclasses import dataclass, field

MANY_LINES = 20
"""A cell of a table that spans more lines is told: it may be several rows that a stray quotation mark joined."""


@dataclass
class _Noted:
    """How often something was found, and where first."""

    count: int = 0
    first: str = ""

    def add(self, where: str, count: int = 1) -> None:
        self.count += count
        self.first = self.first or where


@dataclass
class ReadingNotes:
    """What was unusual in the files of one side."""

    control_characters: _Noted = field(default_factory=_Noted)
    """Control characters, byte order marks and halves of characters that were removed."""
    bad_rows: _Noted = field(default_factory=_Noted)
    """Rows that could not be read and were skipped; `first` is the whole message."""
    short_rows: _Noted = field(default_factory=_Noted)
    """Rows of a table that lack cells at their end."""
    long_cells: _Noted = field(default_factory=_Noted)
    """Cells of more than `MANY_LINES` lines."""
    longest_cell_lines: int = 0
    encodings: dict[str, _Noted] = field(default_factory=dict)
    """Encodings other than UTF-8 that were recognised, not given -> files."""
    quotings: dict[str, _Noted] = field(default_factory=dict)
    """The same of the values of `--csv_quoting` but `standard`."""

    def note_encoding(self, encoding: str, path: object) -> None:
        """A file was found to have another encoding than UTF-8."""
        self.encodings.setdefault(encoding, _Noted()).add(str(path))

    def note_quoting(self, quoting: str, path: object) -> None:
        """Quotation marks of a file were found to be meant in another way than usual."""
        self.quotings.setdefault(quoting, _Noted()).add(str(path))

    def note_cell(self, where: str, lines: int) -> None:
        """A row of a table spans several lines."""
        if lines > MANY_LINES:
            self.long_cells.add(where)
            self.longest_cell_lines = max(self.longest_cell_lines, lines)

    def warnings(self) -> list[str]:
        """One line for each kind of thing that was found."""
        told = [
            f"read as {encoding}, as UTF-8 does not hold: {_files(found)}; give --encoding if that is wrong"
            for encoding, found in sorted(self.encodings.items())
        ]
        told += [
            f"read with --csv_quoting {quoting}, which fits better: {_files(found)}"
            for quoting, found in sorted(self.quotings.items())
        ]
        if self.bad_rows.count:
            first = self.bad_rows.first.split("; ")[0]
            told.append(f"skipped rows that cannot be read: {self.bad_rows.count:,}; the first: {first}")
        if self.short_rows.count:
            told.append(
                f"rows with fewer cells than columns: {self.short_rows.count:,}, the first at {self.short_rows.first}"
            )
        if self.long_cells.count:
            told.append(
                f"cells of more than {MANY_LINES} lines: {self.long_cells.count:,}, the longest of "
                f"{self.longest_cell_lines:,}, the first at {self.long_cells.first}; if quotation marks there are "
                "ordinary characters, give --csv_quoting none"
            )
        if self.control_characters.count:
            told.append(
                f"removed control characters: {self.control_characters.count:,}, "
                f"the first at {self.control_characters.first}"
            )
        return told


def _files(found: _Noted) -> str:
    return found.first if found.count == 1 else f"{found.count:,} files, such as {found.first}"
