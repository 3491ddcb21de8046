"""How faithful a student is to its teacher, in answers and in probabilities."""

import math

import torch
from torch import Tensor

from lra.distances import js


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Share in [0, 1] of samples on which the argmax of logits (n, K) agree ("Agree@1")."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean().item()


def loyalty(student: Tensor, teacher: Tensor) -> float:
    """Probability loyalty in [0, 1]: mean of 1 - √JSD with the divergence in bits.

    1 for identical predictions, 0 for disjoint one-hot ones. The square root of the Jensen-Shannon divergence
    is a distance; base 2 makes it at most 1.
    """
    bits = js(student.double(), teacher.double()) / math.log(2)
    return (1 - bits.clamp(0, 1).sqrt()).mean().item()


def loyalty_reference(student: Tensor, teacher: Tensor) -> float:
    """Loyalty as the AdaDFKD benchmark computes it: mean of 1 - JSD^¼, the divergence in nats.

    The root is taken twice there, so the range is [1 - (ln 2)^¼, 1] = [0.0876, 1]. For comparison with
    published values only.
    """
    nats = js(student.double(), teacher.double()).clamp(0, math.log(2))
    return (1 - nats**0.25).mean().item()


def class_histogram(logits: Tensor) -> Tensor:
    """(K,) counts of the argmax of logits (n, K)."""
    return torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1])


def class_accuracy(logits: Tensor, classes: Tensor) -> Tensor:
    """(K,) share in [0, 1] of each class's samples whose logits (n, K) are largest there; NaN without a sample."""
    count = logits.shape[1]
    right = logits.argmax(dim=1) == classes
    return torch.bincount(classes[right], minlength=count).double() / torch.bincount(classes, minlength=count)
