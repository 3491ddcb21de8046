"""The teacher: a frozen oracle that counts what it is asked."""

from typing import Self

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A frozen network in evaluation mode.

    Gradients pass through it to the images (synthesis needs them), never to its weights.

    Args:
        network: images (n, C, H, W) in [0, 1] -> logits (n, K); normalises by itself.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.queries = 0

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a teacher does not learn."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, K) of ``images`` (n, C, H, W); counts n queries."""
        self.queries += len(images)
        return self.network(images)

    @torch.no_grad()
    def label(self, images: Tensor) -> Tensor:
        """Logits (n, K) without a graph."""
        return self(images)
