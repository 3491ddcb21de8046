"""The base of every group of options: typed, bounded, immutable, and strict about unknown names."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1
"""What all that is counted with can hold."""


def _counted(number: int) -> int:
    if number > LARGEST:
        raise ValueError(f"{number} is more than can be counted: {LARGEST:,} at most")
    return number


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1), AfterValidator(_counted)]
Whole = Annotated[int, Field(ge=0), AfterValidator(_counted)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Options(BaseModel):
    """A frozen group of options; a wrong name, type or bound raises ``pydantic.ValidationError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
