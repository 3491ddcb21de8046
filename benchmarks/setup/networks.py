"""Networks for a data set, with what is wrong said to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.benchmarks.errors import MissingInput, UsageError
from lra.networks import build

if TYPE_CHECKING:
    from torch import nn


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
    try:
        return build(name, classes, image, trains, auxiliary)
    except ModuleNotFoundError as error:
        raise MissingInput(f"{key}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None


def channels_last(network: nn.Module, name: str, image: tuple[int, int, int]) -> nn.Module:
    """``network`` with its convolutions' weights channel by channel, so that its maps come out so.

    Raises:
        UsageError: if it takes its maps for contiguous.
    """
    import torch

    from lra.preservation import in_mode

    network = network.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), in_mode(network, training=False):
            network(torch.zeros(2, *image))
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"student.channels_last: {name} cannot be run so ({reason}): leave it out") from None
    return network
