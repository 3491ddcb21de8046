"""Networks for a data set, and how large they are, with errors for a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lra.benchmarks.errors import LraError, MissingInput, UsageError, in_one_line, one_line
from lra.benchmarks.setup.config import AUTO, RunConfig, StudentOptions
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


LEAST_SIDE_LAST, MULTIPLE_LAST = 16, 8
"""The shorter side of images, and what numbers of channels are multiples of, from which channels-last maps are faster
on a processor: ``python -m lra.benchmarks.cost.convolutions`` measures it."""


def gains_channels_last(network: nn.Module, image: tuple[int, int, int], device: str) -> bool:
    """Whether a network is faster with its maps channels last: by what it is, never by a clock.

    Only of a processor it is known. A LeNet's 6 and 16 channels gain nothing, nor do maps of few pixels.
    """
    from torch import nn

    widths = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    wide = bool(widths) and not any(width % MULTIPLE_LAST for width in widths)
    return device == "cpu" and min(image[1:]) >= LEAST_SIDE_LAST and wide


def channels_last(network: nn.Module, image: tuple[int, int, int], training: bool = True) -> None:
    """Order the weights of a network's convolutions channel by channel, so that its maps come out so.

    Args:
        network: still on the processor; left as it was if it cannot be run so.
        image: channels, height and width.
        training: whether it is to be tried in training mode too.

    Raises:
        RuntimeError: if it takes its maps for contiguous; and whatever else it raises.
    """
    import torch

    from lra.state import untouched

    network.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), untouched(network):
            for mode in (False, True)[: 1 + training]:
                network.train(mode)(torch.zeros(2, *image))
    except Exception:
        network.to(memory_format=torch.contiguous_format)
        raise


def in_best_order(network: nn.Module, image: tuple[int, int, int], device: str, training: bool = True) -> None:
    """Have `channels_last` maps where a network `gains_channels_last` and can be run so; arguments as theirs."""
    if gains_channels_last(network, image, device):
        # What else is wrong with it, training says.
        with suppress(Exception):
            channels_last(network, image, training)


def ordered(network: nn.Module, student: StudentOptions, image: tuple[int, int, int], device: str) -> None:
    """Order a student's maps as ``student.channels_last`` says.

    Raises:
        UsageError: if they are asked for channels last, and it takes them for contiguous.
    """
    if student.channels_last == AUTO:
        in_best_order(network, image, device)
    elif student.channels_last:
        try:
            channels_last(network, image)
        except RuntimeError as error:
            reason = f"{student.network} cannot be run so ({one_line(error).rstrip('.')})"
            raise UsageError(f"student.channels_last: {reason}: leave it out") from None


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
