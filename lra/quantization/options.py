"""How many bits, declared apart from the layers that round: reading it needs no torch."""

from typing import Annotated

from pydantic import Field

from lra.options import Options

Bits = Annotated[int, Field(ge=2, le=8)]


class Precision(Options):
    """How many bits a network gets."""

    weight_bits: Bits = 4
    activation_bits: Bits = 4
    """Bits of each layer's input; the image itself always has 8, as it is bytes."""
    edge_bits: Bits | None = None
    """Bits of the weights of the first and last layer, and of the last one's input; as all others if not given, as GDFQ
    does. Many papers give these 8 and leave that out of their W4A4."""
    symmetric: bool = False
    """Weights: 0 is stored as 0."""
