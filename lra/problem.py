"""The interface of a distillation problem: images, classes, device, and a teacher that answers queries. No data."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from lra.networks.folded import folded, is_hooked


def reduced(precision: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """A context in which networks run in ``precision`` where that is safe (autocast); single precision changes nothing.

    Weights are cast anew at each pass, since a context may last for many updates of them.
    """
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, precision, cache_enabled=False)


def single(values: Tensor) -> Tensor:
    """``values`` converted from half precision to single; others are returned as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class Batch(NamedTuple):
    """Images with the teacher's answers."""

    images: Tensor
    """(n, C, H, W), in [0, 1]."""
    logits: Tensor
    """(n, K), the teacher's."""
    labels: Tensor | None = None
    """(n,) int64: the classes, where they are not the teacher's predictions."""
    weights: Tensor | None = None
    """(n,) ≥ 0: factor of each sample's loss, where samples are not weighted equally."""

    @property
    def classes(self) -> Tensor:
        """(n,) int64: the labels, or the teacher's argmax if there are none."""
        return self.logits.argmax(dim=1) if self.labels is None else self.labels

    def first(self, n: int) -> "Batch":
        """The first ``n`` images."""
        labels, weights = (None if each is None else each[:n] for each in (self.labels, self.weights))
        return Batch(self.images[:n], self.logits[:n], labels, weights)


def joined(batches: Sequence[Batch]) -> Batch:
    """All images of one or more batches, one batch after the other."""
    if len(batches) == 1:
        return batches[0]
    labels = None if all(b.labels is None for b in batches) else torch.cat([b.classes for b in batches])
    alike = all(b.weights is None for b in batches)
    weights = (
        None
        if alike
        else torch.cat([b.logits.new_ones(len(b.images)) if b.weights is None else b.weights for b in batches])
    )
    return Batch(torch.cat([b.images for b in batches]), torch.cat([b.logits for b in batches]), labels, weights)


@dataclass(frozen=True)
class Problem:
    """The shapes and scales for which networks and synthesizers are built."""

    image: tuple[int, int, int]
    """(channels, height, width)."""
    classes: int
    mean: tuple[float, ...]
    """Per channel, of the teacher's training data in [0, 1]: published with the teacher, so no data are needed."""
    std: tuple[float, ...]
    device: torch.device = field(default=torch.device("cpu"))


class Teacher(nn.Module):
    """A frozen network in evaluation mode.

    Gradients pass through it to the images (synthesis needs them), never to its weights, which must not change once it
    has answered: it folds each BatchNorm into a convolution where it can (see `folded`).

    Args:
        network: images (n, C, H, W) in [0, 1] -> logits (n, K); it normalises by itself.
        precision: of its passes, see `reduced`; its answers are in single precision again. Measures use the network
            directly.
    """

    def __init__(self, network: nn.Module, precision: torch.dtype = torch.float32):
        super().__init__()
        self.precision = precision
        self.network = network.requires_grad_(False).eval()
        self.queries = 0

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a teacher does not learn."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K) of ``images`` (n, C, H, W); counts n queries."""
        self.queries += len(images)
        # Hooks must see every part, so that a hooked network's answers may differ in their last bits.
        network = self.network if is_hooked(self.network) else self._folded
        with reduced(self.precision, images.device):
            return single(network(images))

    # No module of this one: its weights are those of the network.
    @cached_property
    def _folded(self) -> nn.Module:
        return folded(self.network)

    def _apply(self, *arguments: Any, **settings: Any) -> Self:
        self.__dict__.pop("_folded", None)
        return super()._apply(*arguments, **settings)

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Logits (n, K) without a graph."""
        return self(images)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """A context whose queries are not counted: they serve measurement, and are no cost of what is measured."""
        queries = self.queries
        try:
            yield
        finally:
            self.queries = queries
