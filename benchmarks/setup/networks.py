"""Networks for a data set, and their sizes, with errors for users."""

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
"""From this shorter side of images, and for numbers of channels that are multiples of this, channels-last maps are
faster on a CPU: ``python -m lra.benchmarks.cost.convolutions`` measures it."""


def gains_channels_last(network: nn.Module, image: tuple[int, int, int], device: str) -> bool:
    """Whether a network is faster with channels-last maps: judged by its structure, never by timing.

    This is known only for CPUs. A LeNet's 6 and 16 channels gain nothing, nor do maps of few pixels.
    """
    from torch import nn

    widths = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    wide = bool(widths) and not any(width % MULTIPLE_LAST for width in widths)
    return device == "cpu" and min(image[1:]) >= LEAST_SIDE_LAST and wide


def channels_last(network: nn.Module, image: tuple[int, int, int], training: bool = True) -> None:
    """Put the weights of a network's convolutions into channels-last order, so that its maps have it too.

    Args:
        network: still on the CPU; left unchanged if it cannot run that way.
        image: channels, height and width.
        training: whether to try it in training mode too.

    Raises:
        RuntimeError: if the network relies on contiguous maps; and whatever else it raises.
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
    """Use `channels_last` maps if a network `gains_channels_last` and can run that way; same arguments."""
    if gains_channels_last(network, image, device):
        # What else is wrong with it, training says.
        with suppress(Exception):
            channels_last(network, image, training)


def ordered(network: nn.Module, student: StudentOptions, image: tuple[int, int, int], device: str) -> None:
    """Order a student's maps as ``student.channels_last`` says.

    Raises:
        UsageError: if channels last is requested, and the network relies on contiguous maps.
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
    """Sizes of teacher and student; a teacher whose file does not fit is left out, since its loader reports it.

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
