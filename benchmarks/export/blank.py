"""A student as its notes describe it, before its weights are in it."""

from collections.abc import Mapping
from typing import Any

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.networks import network_for
from lra.networks.normalized import Normalized
from lra.quantization.network import quantized
from lra.quantization.options import Precision


def blank(notes: Mapping[str, Any]) -> Normalized:
    """The network of ``notes``: network, classes, image, mean, std and, of a quantised one, quantization.

    Raises:
        UsageError: if there is no such network, or parts do not fit.
        MissingInput: if it is in a package that is not installed.
    """
    image = tuple(notes["image"] or (0, 0, 0))
    body = network_for(notes["network"] or "", notes["classes"] or 0, (image[0], image[1], image[2]), "network")
    try:
        network = Normalized(body, notes["mean"] or [], notes["std"] or [])
        return network if notes["quantization"] is None else quantized(network, Precision(**notes["quantization"]))
    except ValueError as error:
        raise UsageError(f"network {notes['network']}: {error}") from None
