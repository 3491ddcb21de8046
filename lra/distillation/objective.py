"""What the student minimises on a batch: an explicitly named distance to the teacher, and further terms.

Curricula from easy to hard are possible: samples can have weights, and weights can change over epochs. Self-paced
learning: Kumar et al., NeurIPS 2010; in data-free distillation: CuDFKD and AdaDFKD.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lra.distances import Distance
from lra.problem import Batch, Teacher
from lra.state import State
from lra.view import Quantity, StudentView


class StudentTerm(nn.Module, ABC):
    """One weighted loss of a student step in addition to the distance of logits.

    It is a module, so that its own parameters (of a projection, for example) are trained with the student. It must not
    hold student or teacher as attributes, which would make them submodules; the view provides what it needs of them.

    Args:
        weight: its factor in the sum.

    Attributes:
        needs: what the networks' passes must collect for it.
    """

    needs: frozenset[Quantity] = frozenset()

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, view: StudentView) -> Tensor:
        """Loss (n,) of each sample, or () of the batch."""


class Objective:
    """Mean distance between student and teacher logits over a batch, plus weighted terms.

    It may be evaluated for a student at any weights, also those of a look-ahead, so it must not keep what it sees.

    Args:
        distance: per-sample distance of logits.
        terms: what else the student minimises.
        teacher: needed by terms that use its features or maps.
    """

    def __init__(self, distance: Distance, terms: Sequence[StudentTerm] = (), teacher: Teacher | None = None):
        self.distance = distance
        self.terms = nn.ModuleList(terms)
        self.teacher = teacher

    def __call__(
        self,
        student: nn.Module,
        batch: Batch,
        forward: Callable[[Tensor], Tensor] | None = None,
        runs: nn.Module | None = None,
    ) -> Tensor:
        """Scalar loss of ``batch``, which is passed through the student here; see `StudentView` for the arguments."""
        return self.loss(self.view(student, batch, forward, runs))

    def view(
        self,
        student: nn.Module,
        batch: Batch,
        forward: Callable[[Tensor], Tensor] | None = None,
        runs: nn.Module | None = None,
    ) -> StudentView:
        """The view of the batch for `loss` and `parts`, with what the terms need; see `StudentView`."""
        return StudentView(batch, student, self.teacher, forward, runs).watching(self.needs)

    @property
    def needs(self) -> frozenset[Quantity]:
        """What the networks' passes must collect for the terms with non-zero weight."""
        return frozenset(need for term in self.active() for need in term.needs)

    def loss(self, view: StudentView) -> Tensor:
        """Scalar loss of a view: the mean over samples, each multiplied by its weight if it has one."""
        return self.mean(self.per_sample(view), view)

    @staticmethod
    def mean(losses: Tensor, view: StudentView) -> Tensor:
        """The mean of losses (n,) multiplied by the batch's weights, if any; a loss () of the whole batch likewise."""
        return losses.mean() if view.batch.weights is None else (view.batch.weights * losses).mean()

    def per_sample(self, view: StudentView) -> Tensor:
        """Loss (n,) of each sample; a term on the whole batch is added to each."""
        loss = self.distance(view.student_logits, view.teacher_logits)
        for term in self.active():
            loss = loss + term.weight * term(view)
        return loss

    def parts(self, view: StudentView) -> dict[str, Tensor]:
        """The parts of the loss, for records: the mean distance and each term, unweighted, by name."""
        distance = {"distance": self.distance(view.student_logits, view.teacher_logits).mean()}
        return distance | {type(term).__name__: term(view).mean() for term in self.active()}

    def active(self) -> list[StudentTerm]:
        """The terms with non-zero weight."""
        return [term for term in self.terms if isinstance(term, StudentTerm) and term.weight != 0]

    def parameters(self) -> Iterator[nn.Parameter]:
        """The terms' own parameters: trained by the student's optimiser, at θ only."""
        return self.terms.parameters()

    def state_dict(self) -> State:
        """The state of the terms."""
        return {"terms": self.terms.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.terms.load_state_dict(state["terms"])


Form = Literal["hard", "soft", "log"]


def self_paced_weights(losses: Tensor, age: float, form: Form) -> Tensor:
    """Weights v in [0, 1] for losses ℓ ≥ 0 of any shape, at age λ; without gradient.

    Args:
        losses: ℓ.
        age: λ; losses well below it get most weight.
        form: ``"hard"`` 1[ℓ < λ]; ``"soft"`` 1[ℓ < λ]·(1 - ℓ/λ); ``"log"`` (1 + e^-λ)/(1 + e^(ℓ-λ)), which is 1 at
            ℓ = 0 and about a half at ℓ = λ.
    """
    losses = losses.detach()
    if form == "log":
        level = losses.new_full((), age)
        return (1 + torch.exp(-level)) * torch.sigmoid(level - losses)
    easy = (losses < age).to(losses.dtype)
    return easy if form == "hard" else easy * (1 - losses / max(age, 1e-12))


class SelfPaced(Objective):
    """Mean of v_i·ℓ_i, where ℓ_i is a sample's loss, all terms included, and v_i its self-paced weight.

    Args:
        distance: per-sample distance of logits.
        terms: further terms of ℓ.
        age: λ; changed by a schedule.
        form: see `self_paced_weights`.
        granularity: ``"sample"``, or ``"batch"``: one weight for the batch's mean loss, as in the releases, which makes
            it an adaptive learning rate rather than a selection of samples.
        teacher: see `Objective`.
    """

    def __init__(
        self,
        distance: Distance,
        terms: Sequence[StudentTerm] = (),
        age: float = 1.0,
        form: Form = "log",
        granularity: Literal["sample", "batch"] = "sample",
        teacher: Teacher | None = None,
    ):
        super().__init__(distance, terms, teacher)
        self.age = age
        self.form: Form = form
        self.granularity = granularity

    def loss(self, view: StudentView) -> Tensor:
        """Scalar loss of a view."""
        weights, losses = self._weighed(view)
        return self.mean(weights * losses, view)

    def parts(self, view: StudentView) -> dict[str, Tensor]:
        """The parts of an objective, and the mean weight v and difficulty Σvℓ/Σv of what is learnt."""
        weights, losses = self._weighed(view)
        difficulty = (weights * losses).sum() / weights.sum().clamp_min(1e-12)
        return super().parts(view) | {"self_paced_weight": weights.mean(), "difficulty": difficulty}

    def _weighed(self, view: StudentView) -> tuple[Tensor, Tensor]:
        losses = self.per_sample(view)
        if self.granularity == "batch":
            losses = losses.mean()
        return self_paced_weights(losses, self.age, self.form), losses


def ramp(epoch: int, epochs: int, start: float, slope: float, begin: float, end: float) -> float:
    """A weight that grows by ``slope`` per epoch between two points of a run, b = ⌊begin·E⌋ and c = ⌊end·E⌋.

    It is ``start`` up to and including epoch b; start + (epoch - b)·slope until c; start + (c - b)·slope from then on.
    """
    first, last = _share(begin, epochs), _share(end, epochs)
    return start + (min(max(epoch, first), max(first, last)) - first) * slope


def ring_hardness(epoch: int, epochs: int, length: float, begin: float, end: float) -> float:
    """AdaDFKD's h in [0, 1 - length]: 0 up to epoch ⌊begin·E⌋, then rising linearly for ⌊(end - begin)·E⌋ epochs."""
    highest = 1 - length
    rise = max(1, _share(end - begin, epochs))
    return min(max(highest * (epoch - _share(begin, epochs)) / rise, 0.0), highest)


def _share(part: float, epochs: int) -> int:
    """⌊part·E⌋, where 0.5·100 is 50 even if computed as 49.999…"""
    return int(part * epochs + 1e-9)
