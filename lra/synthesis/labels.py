"""The target classes of a batch of synthetic images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.anatomy import classifier
from lra.problem import Teacher
from lra.randomness import sent

LabelPlan = Callable[[int], Tensor]
"""n -> labels: classes (n,) int64, or probabilities (n, K)."""


def uniform(classes: int, ordered: bool = False) -> LabelPlan:
    """Labels drawn uniformly and independently; ``ordered`` sorts them."""

    def plan(n: int) -> Tensor:
        labels = torch.randint(classes, (n,))
        return labels.sort().values if ordered else labels

    return plan


def full_sets(classes: int) -> LabelPlan:
    """As many complete sets of classes as fit, and the rest at random (NAYER)."""

    def plan(n: int) -> Tensor:
        rest = torch.randint(classes, (n % classes,))
        return torch.cat([torch.arange(classes).repeat(n // classes), rest])

    return plan


def dirichlet(similarity: Tensor, scale: float = 0.1) -> LabelPlan:
    """Soft labels for random classes: Dirichlet with the class's row of ``similarity / scale`` as concentrations.

    Zero-shot knowledge distillation (Nayak et al., ICML 2019), with scale β.

    Args:
        similarity: (K, K) in [0, 1], see `class_similarity`.
        scale: β; smaller values give softer, less varied labels.
    """
    similarity = similarity.cpu()

    def plan(n: int) -> Tensor:
        chosen = similarity[torch.randint(len(similarity), (n,))]
        return torch.distributions.Dirichlet(chosen / scale + 1e-4).sample()

    return plan


def class_similarity(teacher: Teacher, image: tuple[int, int, int]) -> Tensor:
    """(K, K): cosine similarities between the rows of the teacher's last layer, each row scaled to [0, 1] (ZSKD).

    With two classes the off-diagonal entries are 0, so that labels are almost hard.

    Args:
        teacher: a network whose last layer has a weight with one row per class.
        image: (C, H, W).

    Raises:
        ValueError: if there is no such layer.
    """
    layer = classifier(teacher.network, image)
    rows = getattr(layer, "weight", None)
    if not isinstance(rows, Tensor) or rows.dim() < 2:
        raise ValueError(
            f"labels come from the weight of the teacher's last layer, and {type(layer).__name__} has none"
        )
    weight = F.normalize(rows.detach().flatten(1), dim=1)
    cosine = weight @ weight.T
    low, high = cosine.min(dim=1, keepdim=True).values, cosine.max(dim=1, keepdim=True).values
    return (cosine - low) / (high - low).clamp_min(1e-12)


def gaussian(teacher: Teacher, image: tuple[int, int, int], temperature: float, spread: float = 1.0) -> LabelPlan:
    """Soft labels of features u ~ N(0, spread²·R), R the cosines of the filters that make the features ("soft target").

    Source: Wang, "Data-free knowledge distillation with soft targeted transfer set synthesis", AAAI 2021, where the
    filters are those of the last convolution, averaged over their pixels. If a linear layer makes the features, its
    rows are used.

    Args:
        teacher: a network whose last layer has one input for each output of an earlier layer.
        image: (C, H, W).
        temperature: τ of the labels, softmax(W u / τ).
        spread: standard deviation of the features; at 1, as published, labels are almost uniform where the teacher's
            own features are much larger.

    Raises:
        ValueError: if no layer has as many outputs as the last one has inputs.
    """
    layer = classifier(teacher.network, image)
    layers = [m for m in teacher.network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not layer]
    size = layer.in_features if isinstance(layer, nn.Linear) else 0
    makers = [m.weight.detach() for m in layers if m.weight.shape[0] == size]
    if not isinstance(layer, nn.Linear) or not makers:
        raise ValueError(
            "soft targets need a teacher whose last linear layer takes as many inputs as a layer has outputs"
        )
    rows = F.normalize(makers[-1].flatten(2).mean(dim=2) if makers[-1].dim() > 2 else makers[-1], dim=1)
    # The Gram matrix may be singular: a little of the identity makes it positive definite.
    root = torch.linalg.cholesky((rows @ rows.T).double().cpu() + 1e-4 * torch.eye(len(rows), dtype=torch.float64))

    def plan(n: int) -> Tensor:
        features = spread * sent(torch.randn(n, len(root)) @ root.float().T, layer.weight.device).to(layer.weight.dtype)
        return F.softmax(layer(features).detach() / temperature, dim=1)

    return plan
