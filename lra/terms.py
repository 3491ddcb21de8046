"""The losses a synthesis step minimises, one class each.

A term turns a `View` into a scalar. A positive weight always asks for the thing the term is named after.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from lra.distances import Distance, js, js_reference
from lra.view import View


class TermValue(NamedTuple):
    """What one term contributed to a step, detached."""

    raw: Tensor
    weighted: Tensor


class Term(ABC):
    """One weighted loss of a synthesis step.

    Args:
        weight: its factor in the sum; schedules may change it between steps.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the teacher's pass must collect: any of "features", "batchnorm"."""

    def __init__(self, weight: float):
        self.weight = weight

    @abstractmethod
    def __call__(self, view: View) -> Tensor:
        """The raw scalar, to be minimised."""


def total(terms: Sequence[Term], view: View) -> tuple[Tensor, dict[str, TermValue]]:
    """The weighted sum of all terms with a weight, and each one's raw and weighted value by name."""
    active = [term for term in terms if term.weight != 0]
    view.watching({quantity for term in active for quantity in term.needs})
    loss, values = view.images.new_zeros(()), {}
    for term in active:
        raw = term(view)
        loss = loss + term.weight * raw
        values[term.name] = TermValue(raw.detach(), term.weight * raw.detach())
    return loss, values


class OneHot(Term):
    """Cross-entropy of the teacher with the labels asked for, or with its own argmax (DAFL, eq. 3)."""

    name = "one_hot"

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats; no gradient through the labels."""
        return F.cross_entropy(view.teacher_logits, view.targets)


class Balance(Term):
    """Minus the entropy of the mean prediction: balanced classes (DAFL, "information entropy", eq. 5)."""

    name = "balance"

    def __call__(self, view: View) -> Tensor:
        """In [-ln K, 0], in nats; finite even where a class's mean probability underflows."""
        log_p = F.log_softmax(view.teacher_logits, dim=1).logsumexp(dim=0) - math.log(len(view.images))
        return (log_p.exp() * log_p.clamp_min(-1e4)).sum()


class Activation(Term):
    """Minus the mean absolute value of the teacher's penultimate features (DAFL, eq. 4; a mean, as released)."""

    name = "activation"
    needs = frozenset({"features"})

    def __call__(self, view: View) -> Tensor:
        """≤ 0."""
        return -view.teacher_features.abs().mean()


class Disagreement(Term):
    """1 - JS(student, teacher) at a temperature: the generator looks for what the student gets wrong.

    Source: PRE-DFKD, 2022, after DeepInversion's competition term.

    Args:
        weight: factor in the sum.
        reference: use the released code's divergence (`lra.distances.js_reference`) instead of the true one.
        temperature: τ, 3 in every release.
    """

    name = "disagreement"

    def __init__(self, weight: float, reference: bool = False, temperature: float = 3.0):
        super().__init__(weight)
        self.distance: Distance = js_reference if reference else js
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """In [1 - ln 2, 1]; the teacher's answer is taken as given (no gradient through it)."""
        divergence = self.distance(view.student_logits, view.teacher_logits.detach(), self.temperature).mean()
        return 1 - divergence.clamp(0, 1)
