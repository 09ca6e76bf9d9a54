"""The token test as `run.json` holds it."""

from typing import Annotated

from pydantic import Field

from stratalens.hookpoint import NAME_PATTERN, Hookpoint
from stratalens.report.record_part import RecordPart
from stratalens.validation.injection import values_path
from stratalens.validation.token_verdicts import VERDICTS, Verdict

TOKEN_TEST_FILE = "token_test.csv"
Count = Annotated[int, Field(ge=0)]
MAX_HOOKPOINTS = 10_000


class TokenTestRecord(RecordPart):
    """A token test of the features that were reported when it was made."""

    features: Count
    """Features that were tested together."""
    verdicts: dict[Verdict, Count]
    snippets: Count
    """Different general snippets."""
    masked_passages: Count
    pairs: Count
    """Pairs of sentences with another sense of a word."""
    tokens: Count
    """Tokens of all that was read, now or before."""
    seed: int
    digest: str
    """Of everything that determines the values."""
    notes: list[str]
    hookpoints: Annotated[list[Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]], Field(max_length=MAX_HOOKPOINTS)]

    def describe(self) -> str:
        """One line: how many features have each verdict."""
        counts = ", ".join(f"{self.verdicts.get(verdict, 0):,} {verdict}" for verdict in VERDICTS)
        return f"{counts} (of {self.features:,} reported features)"

    @property
    def file_names(self) -> list[str]:
        """Names of its files, relative to the result directory."""
        return [TOKEN_TEST_FILE, *(str(values_path(Hookpoint.parse(place))) for place in self.hookpoints)]
