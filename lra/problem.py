"""What a distillation problem looks like from outside: images, classes, device. No data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Images with what the teacher says of them."""

    images: Tensor
    """(n, C, H, W), in the [0, 1] image space."""
    logits: Tensor
    """(n, K), the teacher's."""
    labels: Tensor | None = None
    """(n,) int64: the classes, where they are not those that the teacher names."""

    @property
    def classes(self) -> Tensor:
        """(n,) int64: the labels, or the teacher's argmax where there are none."""
        return self.logits.argmax(dim=1) if self.labels is None else self.labels

    def first(self, n: int) -> "Batch":
        """The first ``n`` images."""
        return Batch(*(None if column is None else column[:n] for column in self))


def joined(batches: Sequence[Batch]) -> Batch:
    """All images of one or more batches, one batch after the other."""
    if len(batches) == 1:
        return batches[0]
    labels = None if all(b.labels is None for b in batches) else torch.cat([b.classes for b in batches])
    return Batch(torch.cat([b.images for b in batches]), torch.cat([b.logits for b in batches]), labels)


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
