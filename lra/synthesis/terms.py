"""The losses a synthesis step minimises, one class each: the contract, and the terms that most methods share.

A term turns a `View` into a scalar. A positive weight always asks for the thing the term is named after.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.distances import Distance, js, js_reference
from lra.state import State
from lra.synthesis.view import Quantity, View


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
    needs: frozenset[Quantity] = frozenset()
    """What the networks' passes must collect for it."""
    competitive: ClassVar[bool] = False
    """Whether it plays against the student; such a term sits out a warm-up, before the student has learnt anything."""

    def __init__(self, weight: float):
        self.weight = weight
        self.notes: dict[str, Tensor] = {}
        """Scalars worth recording beside the last value, detached, by name."""

    @abstractmethod
    def __call__(self, view: View) -> Tensor:
        """The raw scalar, to be minimised."""

    def learn(self) -> None:  # noqa: B027
        """Update what the term learns itself: the gradient of the whole loss has just been computed."""

    def keep(self) -> None:  # noqa: B027
        """Take note that the images of the last value are those to be kept, as it stands."""

    def settle(self) -> None:  # noqa: B027
        """Take note that the synthesis of an experience is over; the few terms with a memory do something here."""

    def state_dict(self) -> State:
        """What the term remembers between experiences; most remember nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027
        """Take up a state of `state_dict`."""


def total(terms: Sequence[Term], view: View) -> tuple[Tensor, dict[str, TermValue]]:
    """The weighted sum of all terms with a weight, and each one's raw and weighted value and notes by name."""
    active = [term for term in terms if term.weight != 0]
    view.watching({quantity for term in active for quantity in term.needs})
    loss, values = view.images.new_zeros(()), {}
    for term in active:
        raw = term(view)
        loss = loss + term.weight * raw
        values[term.name] = TermValue(raw.detach(), term.weight * raw.detach())
        values |= {f"{term.name}_{name}": TermValue(note, torch.zeros_like(note)) for name, note in term.notes.items()}
    return loss, values


class OneHot(Term):
    """Cross-entropy of the teacher with the labels asked for, or with its own argmax (DAFL, eq. 3)."""

    name = "one_hot"

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats; no gradient through the labels."""
        return F.cross_entropy(view.teacher_logits, view.targets)


class Balance(Term):
    """Minus the entropy of the mean prediction at τ: balanced classes (DAFL, "information entropy", eq. 5).

    Args:
        weight: factor in the sum.
        temperature: τ, 1 but in CuDFKD and AdaDFKD.
    """

    name = "balance"

    def __init__(self, weight: float, temperature: float = 1.0):
        super().__init__(weight)
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """In [-ln K, 0], in nats; finite even where a class's mean probability underflows."""
        log_p = F.log_softmax(view.teacher_logits / self.temperature, dim=1)
        log_mean = log_p.logsumexp(dim=0) - math.log(len(view.images))
        return (log_mean.exp() * log_mean.clamp_min(-1e4)).sum()


class Activation(Term):
    """Minus the mean absolute value of the teacher's penultimate features (DAFL, eq. 4; a mean, as released)."""

    name = "activation"
    needs = frozenset({"features"})

    def __call__(self, view: View) -> Tensor:
        """≤ 0."""
        return -view.teacher_features.abs().mean()


class Adversarial(Term):
    """Minus the distance of student and teacher: the source looks for what the student gets wrong.

    Source: ZSKT (Micaelli and Storkey, NeurIPS 2019) and DFAD; masked in CMI, Fast, RGAL and NAYER.

    Args:
        weight: factor in the sum.
        distance: of logits, per sample; the student's own objective, or another, but always said.
        mask: ``"agree"`` counts only samples on which student and teacher name the same class: more as it improves.
        over: with a mask, divide by ``"all"`` samples, as released, or by those ``"masked"`` in.
        detach_teacher: let the gradient flow through the student alone.
    """

    name = "adversarial"
    competitive = True

    def __init__(
        self,
        weight: float,
        distance: Distance,
        mask: Literal["none", "agree"] = "none",
        over: Literal["all", "masked"] = "all",
        detach_teacher: bool = False,
    ):
        super().__init__(weight)
        self.distance = distance
        self.mask = mask
        self.over = over
        self.detach_teacher = detach_teacher

    def __call__(self, view: View) -> Tensor:
        """≤ 0 for distances ≥ 0; 0 where the mask leaves nothing."""
        teacher = view.teacher_logits.detach() if self.detach_teacher else view.teacher_logits
        distances = self.distance(view.student_logits, teacher)
        if self.mask == "none":
            return -distances.mean()
        agree = (view.student_logits.argmax(dim=1) == view.predicted).to(distances.dtype)
        count = agree.sum().clamp_min(1) if self.over == "masked" else len(agree)
        return -(distances * agree).sum() / count


class Disagreement(Term):
    """1 - JS(student, teacher) at a temperature: the generator looks for what the student gets wrong.

    Source: PRE-DFKD, 2022, after DeepInversion's competition term.

    Args:
        weight: factor in the sum.
        reference: use the released `lra.distances.js_reference` instead of the true divergence.
        temperature: τ, 3 in every release.
    """

    name = "disagreement"
    competitive = True

    def __init__(self, weight: float, reference: bool = False, temperature: float = 3.0):
        super().__init__(weight)
        self.distance: Distance = js_reference if reference else js
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """In [1 - ln 2, 1]; the teacher's answer is taken as given (no gradient through it)."""
        divergence = self.distance(view.student_logits, view.teacher_logits.detach(), self.temperature).mean()
        return 1 - divergence.clamp(0, 1)
