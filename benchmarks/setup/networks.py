"""Networks for a data set, and how large they are, with errors for a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lra.benchmarks.errors import LraError, MissingInput, UsageError, in_one_line, one_line
from lra.benchmarks.setup.config import RunConfig
from lra.networks import build

if TYPE_CHECKING:
    from torch import nn

    from lra.benchmarks.setup.datasets import DataSet
    from lra.networks.footprint import Footprint


@contextmanager
def _concerning_option(key: str) -> Iterator[None]:
    """Say what is wrong with a network as an error of the option that names it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingInput(f"{key}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None


def network_for(
    name: str,
    classes: int,
    image: tuple[int, int, int],
    key: str,
    trains: bool = True,
    auxiliary: bool = False,
) -> nn.Module:
    """`lra.networks.build`, with ``key`` as the option that names the network.

    Raises:
        UsageError: if there is no such network, or it cannot take such images.
        MissingInput: if it is in a package that is not installed.
    """
    with _concerning_option(key):
        return build(name, classes, image, trains, auxiliary)


def refuse_single(config: RunConfig, data: DataSet) -> None:
    """Raise `UsageError` if a run is of single images and its student's BatchNorm has nothing to normalise in one."""
    if config.schedule.batch_size > 1:
        return
    import torch

    network = network_for(config.student.network, data.classes, data.image, "student.network")
    with in_one_line(), torch.no_grad():
        network.train()(torch.zeros(1, *data.image))


def channels_last(network: nn.Module, name: str, image: tuple[int, int, int]) -> nn.Module:
    """``network`` with its convolutions' weights channel by channel, so that its maps come out so.

    Raises:
        UsageError: if it takes its maps for contiguous.
    """
    import torch

    from lra.state import in_mode

    network = network.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), in_mode(network, training=False):
            network(torch.zeros(2, *image))
    except RuntimeError as error:
        reason = one_line(error).rstrip(".")
        raise UsageError(f"student.channels_last: {name} cannot be run so ({reason}): leave it out") from None
    return network


def sizes(config: RunConfig, data: DataSet) -> dict[str, Footprint]:
    """Sizes of teacher and student, without a teacher whose file does not fit: its loader says so.

    Raises:
        UsageError: if one of them cannot be built for the images.
        MissingInput: if it is in a package that is not installed.
    """
    found = {"student": network_size("student.network", config.student.network, data)}
    if not config.teacher.file:
        return found | {"teacher": network_size("teacher.network", config.teacher.network, data, training=False)}
    from lra.benchmarks.setup.weights_files import architecture

    try:
        return found | {"teacher": network_size("teacher", architecture(config.teacher, data), data, training=False)}
    except LraError:
        return found


def network_size(key: str, name: str, data: DataSet, training: bool = True, auxiliary: bool = False) -> Footprint:
    """Size of the network that the option ``key`` names, for images of ``data``.

    Raises:
        UsageError: if it cannot be built for them.
        MissingInput: if it is in a package that is not installed.
    """
    from lra.networks.footprint import named_footprint

    with _concerning_option(key):
        return named_footprint(name, data.classes, data.image, training, auxiliary)
