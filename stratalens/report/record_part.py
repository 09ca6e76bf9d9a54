"""What all parts of `run.json` share."""

from pydantic import BaseModel, ConfigDict


class RecordPart(BaseModel):
    """A part of the record, checked strictly; entries that are not named here are kept as they are."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)
