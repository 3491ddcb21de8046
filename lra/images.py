"""Images as they are stored, and as they travel."""

from torch import Tensor


def unit(images: Tensor) -> Tensor:
    """Images in [0, 1]: bytes divided by 255, floats as they are."""
    return images if images.is_floating_point() else images.float() / 255
