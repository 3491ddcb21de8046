"""What a distillation problem looks like from outside: images, classes, device. No data."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Unlabelled images with what the teacher says of them."""

    images: Tensor
    """(n, C, H, W), in the [0, 1] image space."""
    logits: Tensor
    """(n, K), the teacher's."""


@dataclass(frozen=True)
class Problem:
    """The shapes and scales that networks and sample sources are built for."""

    image: tuple[int, int, int]
    """(channels, height, width)."""
    classes: int
    mean: tuple[float, ...]
    """Per channel, of the teacher's training data in [0, 1]: published with the teacher, not data."""
    std: tuple[float, ...]
    device: torch.device = field(default=torch.device("cpu"))
