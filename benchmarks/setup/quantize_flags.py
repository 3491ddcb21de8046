"""From the flags of ``lra-bench quantize`` to a configuration."""

from typing import Any

from lra.benchmarks.setup.assemble import configuration
from lra.benchmarks.setup.config import RunConfig

RGAL = 0.1
"""Weight of each of its triplet terms, as published."""


def quantizing(given: dict[str, Any], bits: dict[str, int | None], rgal: bool | None) -> RunConfig:
    """The configuration of a run whose student is a quantised copy of its teacher.

    Args:
        given: as `configuration` takes it; by default the method is GDFQ.
        bits: of `QuantizationOptions`, by name; ``None`` for what was not given.
        rgal: its terms on, off, or as the configuration has them.

    Raises:
        UsageError: as `configuration`.
        MissingInput: likewise.
    """
    said: dict[str, float] = {f"quantization.{name}": number for name, number in bits.items() if number is not None}
    if rgal is not None:
        said |= dict.fromkeys(("synthesis.triplet", "synthesis.student_triplet"), RGAL if rgal else 0.0)
    given = given | {
        "assignments": ("quantization={}", *given["assignments"], *(f"{key}={value}" for key, value in said.items()))
    }
    if all(given[name] is None for name in ("method", "preset", "config_file")):
        given["method"] = "gdfq"
    if given["student"] is None:
        config = configuration(**given)
        given["student"] = config.teacher.network
        if config.teacher.file is not None:
            from lra.benchmarks.setup.datasets import data_of
            from lra.benchmarks.setup.weights_files import architecture

            given["student"] = architecture(config.teacher, data_of(config.data))
    return configuration(**given)
