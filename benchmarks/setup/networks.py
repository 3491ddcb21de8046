"""Networks for a data set, with what is wrong said to the user."""

from torch import nn

from lra.benchmarks.errors import MissingInput, UsageError
from lra.networks import build


def network_for(name: str, classes: int, image: tuple[int, int, int], key: str) -> nn.Module:
    """`lra.networks.build`, with ``key`` as the option that names the network.

    Raises:
        UsageError: if there is no such network, or it cannot take such images.
        MissingInput: if it is in a package that is not installed.
    """
    try:
        return build(name, classes, image)
    except ModuleNotFoundError as error:
        raise MissingInput(f"{key}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None
