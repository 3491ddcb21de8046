"""The settings of a meta step, checked once."""

from dataclasses import dataclass
from typing import Literal, get_args

from lra.meta.inner import InnerRule

EngineName = Literal["lean", "higher"]
Order = Literal[1, 2]
BatchNormPolicy = Literal["acquisition", "both", "none"]
AheadStatistics = Literal["batch", "acquisition", "running"]


@dataclass(frozen=True)
class Settings:
    """How a step is taken; see `lra.meta.lookahead` for the meaning of each.

    Raises:
        ValueError: a setting that is not one of its values.
    """

    inner: InnerRule
    engine: EngineName = "lean"
    order: Order = 2
    batchnorm: BatchNormPolicy = "acquisition"
    ahead_statistics: AheadStatistics = "batch"
    rules: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        choices = (
            ("engine", EngineName),
            ("order", Order),
            ("batchnorm", BatchNormPolicy),
            ("ahead_statistics", AheadStatistics),
        )
        for name, kind in choices:
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(str, get_args(kind)))}")
        if self.batchnorm == "both" and self.ahead_statistics == "acquisition":
            raise ValueError(
                "batchnorm='both' moves statistics at θ', where ahead_statistics='acquisition' takes none; change one"
            )
        if not isinstance(self.inner, InnerRule):
            raise ValueError(f"inner is {type(self.inner).__name__}; give an inner rule, InnerSGD say")
