"""A student as its notes describe it, before its weights are in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import UsageError
from lra.quantization.options import Precision

if TYPE_CHECKING:
    from lra.networks.normalized import Normalized


def blank(notes: Mapping[str, Any]) -> Normalized:
    """The network of ``notes``: network, classes, image, mean, std and, of a quantised one, quantization.

    Raises:
        UsageError: if there is no such network, or parts do not fit.
        MissingInput: if it is in a package that is not installed.
    """
    from lra.benchmarks.setup.networks import network_for
    from lra.networks.normalized import Normalized
    from lra.quantization.network import quantized

    image = tuple(notes["image"] or (0, 0, 0))
    body = network_for(notes["network"] or "", notes["classes"] or 0, (image[0], image[1], image[2]), "network")
    try:
        network = Normalized(body, notes["mean"] or [], notes["std"] or [])
        return network if notes["quantization"] is None else quantized(network, Precision(**notes["quantization"]))
    except ValueError as error:
        raise UsageError(f"network {notes['network']}: {error}") from None
