"""Which classes a batch of synthetic images is asked to show."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.features import penultimate
from lra.teacher import Teacher

LabelPlan = Callable[[int], Tensor]
"""n -> labels: classes (n,) int64, or probabilities (n, K)."""


def uniform(classes: int, ordered: bool = False) -> LabelPlan:
    """Each label drawn by itself; ``ordered`` sorts them."""

    def plan(n: int) -> Tensor:
        labels = torch.randint(classes, (n,))
        return labels.sort().values if ordered else labels

    return plan


def full_sets(classes: int) -> LabelPlan:
    """As many whole sets of classes as fit, the rest at random (NAYER)."""

    def plan(n: int) -> Tensor:
        rest = torch.randint(classes, (n % classes,))
        return torch.cat([torch.arange(classes).repeat(n // classes), rest])

    return plan


def dirichlet(similarity: Tensor, scale: float = 0.1) -> LabelPlan:
    """Soft labels around random classes: Dirichlet with concentrations ``similarity`` of the class / ``scale``.

    Zero-shot knowledge distillation (Nayak et al., ICML 2019), with scale β.

    Args:
        similarity: (K, K) in [0, 1], see `class_similarity`.
        scale: β; smaller ones give softer, less varied labels.
    """

    def plan(n: int) -> Tensor:
        chosen = similarity[torch.randint(len(similarity), (n,))].cpu()
        return torch.distributions.Dirichlet(chosen / scale + 1e-4).sample()

    return plan


def class_similarity(teacher: Teacher) -> Tensor:
    """(K, K): cosine similarity of the rows of the teacher's last layer, each row scaled to [0, 1] (ZSKD).

    With two classes the off-diagonal entries are 0, so that labels are all but hard.
    """
    weight = F.normalize(penultimate(teacher.network).weight.detach().flatten(1), dim=1)  # type: ignore[operator, union-attr]
    cosine = weight @ weight.T
    low, high = cosine.min(dim=1, keepdim=True).values, cosine.max(dim=1, keepdim=True).values
    return (cosine - low) / (high - low).clamp_min(1e-12)


def gaussian(teacher: Teacher, temperature: float) -> LabelPlan:
    """Soft labels of features drawn from N(0, R), R the cosines of the last convolution's filters ("soft target").

    Source: Wang, "Data-free knowledge distillation with soft targeted transfer set synthesis", AAAI 2021.

    Args:
        teacher: a network whose last layer takes the pooled output of its last convolution.
        temperature: τ of the labels, softmax(W u / τ).

    Raises:
        ValueError: if the last convolution's filters are not as many as the last layer's inputs.
    """
    network = teacher.network
    last = penultimate(network)
    filters = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m is not last]
    if not isinstance(last, torch.nn.Linear) or not filters or filters[-1].out_channels != last.in_features:
        raise ValueError(
            "soft targets need a teacher whose last linear layer takes the averages of its last convolution"
        )
    rows = F.normalize(filters[-1].weight.detach().mean(dim=(2, 3)), dim=1)
    # The Gram matrix may be singular: a little of the identity makes it positive definite.
    root = torch.linalg.cholesky((rows @ rows.T).double().cpu() + 1e-4 * torch.eye(len(rows), dtype=torch.float64))
    layer = last

    def plan(n: int) -> Tensor:
        features = (torch.randn(n, len(root)) @ root.float().T).to(layer.weight)
        return F.softmax(layer(features).detach() / temperature, dim=1).cpu()

    return plan
