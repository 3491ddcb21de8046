"""What the student minimises on a batch: its distance to the teacher, named and explicit, and further terms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from lra.distances import Distance
from lra.problem import Batch, Teacher
from lra.state import State
from lra.view import Quantity, StudentView


class StudentTerm(nn.Module, ABC):
    """One weighted loss of a student step beside the distance of logits.

    A module, so that what it learns itself (a projection, say) is trained with the student. It must not hold
    student or teacher as attributes, which would make them its own; the view has what it needs to know of them.

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
    """Mean distance of student and teacher logits over a batch, plus weighted terms.

    It may be asked about a student at any weights, those of a look-ahead too, so it must not keep what it sees.

    Args:
        distance: per-sample distance of logits.
        terms: what else the student minimises.
        teacher: for terms that look at its features or maps.
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
        """Scalar loss of ``batch``, which goes through the student here; see `StudentView` for the arguments."""
        return self.loss(self.view(student, batch, forward, runs))

    def view(
        self,
        student: nn.Module,
        batch: Batch,
        forward: Callable[[Tensor], Tensor] | None = None,
        runs: nn.Module | None = None,
    ) -> StudentView:
        """The batch as `loss` and `parts` look at it: with what the terms need; see `StudentView`."""
        return StudentView(batch, student, self.teacher, forward, runs).watching(self.needs)

    @property
    def needs(self) -> frozenset[Quantity]:
        """What the networks' passes must collect for the terms that have a weight."""
        return frozenset(need for term in self.active() for need in term.needs)

    def loss(self, view: StudentView) -> Tensor:
        """Scalar loss of what was seen."""
        return self.per_sample(view).mean()

    def per_sample(self, view: StudentView) -> Tensor:
        """Loss (n,) of each sample; a term of the whole batch counts in each."""
        loss = self.distance(view.student_logits, view.teacher_logits)
        for term in self.active():
            loss = loss + term.weight * term(view)
        return loss

    def parts(self, view: StudentView) -> dict[str, Tensor]:
        """What the loss is made of, for records: the mean distance and each term's, unweighted, by name."""
        distance = {"distance": self.distance(view.student_logits, view.teacher_logits).mean()}
        return distance | {type(term).__name__: term(view).mean() for term in self.active()}

    def active(self) -> list[StudentTerm]:
        """The terms that have a weight."""
        return [term for term in self.terms if isinstance(term, StudentTerm) and term.weight != 0]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the terms learn themselves: trained by the student's optimiser, at θ only."""
        return self.terms.parameters()

    def state_dict(self) -> State:
        """What the terms have learnt."""
        return {"terms": self.terms.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.terms.load_state_dict(state["terms"])
