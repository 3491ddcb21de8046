"""Lists of tensors taken as one long vector."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


def cosine(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Cosine of two vectors, a scalar tensor in [-1, 1]; 0 when one of them is zero."""
    dot = torch.stack([_dot(a, b) for a, b in zip(left, right, strict=True)]).sum()
    lengths = get_total_norm(left) * get_total_norm(right)
    return torch.where(lengths > 0, dot / lengths, torch.zeros_like(dot)).clamp(-1, 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    last = torch.channels_last
    if a.dim() == 4 and a.is_contiguous(memory_format=last) and b.is_contiguous(memory_format=last):
        # As they lie in memory: flattened as they are, both would be copied.
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    return a.reshape(-1).dot(b.reshape(-1))


def plus(left: Sequence[Tensor | None], right: Sequence[Tensor]) -> list[Tensor]:
    """Their sum, ``None`` being 0."""
    return [b if a is None else a + b for a, b in zip(left, right, strict=True)]


def filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """``gradients`` with zeros where autograd found no dependence, shaped as ``like``."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]
