"""How large the networks of a run are, told from its configuration before anything is loaded or allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.setup.config import RunConfig

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet
    from lra.networks.footprint import Footprint


def sizes(config: RunConfig, data: DataSet) -> dict[str, Footprint]:
    """Of teacher and student; of a teacher's file that does not fit, which is for its loader to say, nothing.

    Raises:
        UsageError: if one of them cannot be built for the images.
        MissingInput: if it is in a package that is not installed.
    """
    found = {"student": network_size("student.network", config.student.network, data)}
    if not config.teacher.file:
        return found | {"teacher": network_size("teacher.network", config.teacher.network, data, training=False)}
    from lra.benchmarks.setup.teacher_files import architecture

    try:
        return found | {"teacher": network_size("teacher", architecture(config.teacher, data), data, training=False)}
    except LraError:
        return found


def network_size(key: str, name: str, data: DataSet, training: bool = True, auxiliary: bool = False) -> Footprint:
    """Of the network that the option ``key`` names, for images of ``data``.

    Raises:
        UsageError: if it cannot be built for them.
        MissingInput: if it is in a package that is not installed.
    """
    from lra.networks.footprint import named_footprint

    try:
        return named_footprint(name, data.classes, data.image, training, auxiliary)
    except ModuleNotFoundError as error:
        raise MissingInput(f"{key}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None
