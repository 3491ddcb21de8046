"""The base of every group of options: typed, bounded, immutable, and strict about unknown names."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Options(BaseModel):
    """A frozen group of options; a wrong name, type or bound raises ``pydantic.ValidationError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
