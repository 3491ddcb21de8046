"""What the student minimises on a batch: its distance to the teacher, named and explicit, and further terms."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from lra.distances import Distance
from lra.problem import Batch
from lra.state import State


class StudentTerm(nn.Module, ABC):
    """One weighted loss of a student step beside the distance of logits.

    A module, so that what it learns itself (a projection, say) is trained with the student. It must not hold
    student or teacher as attributes, which would make them its own; what it needs to know of their insides a
    `lra.distillation.witness.Witness` tells.

    Args:
        weight: its factor in the sum.
    """

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    @abstractmethod
    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss (n,) of each sample, or () of the batch, given the student's logits (n, K)."""


class Objective:
    """Mean distance of student and teacher logits over a batch, plus weighted terms.

    It is asked with the logits of whatever weights the student has at the moment, those of a look-ahead too,
    right after the forward pass that made them, so it must not keep any.

    Args:
        distance: per-sample distance of logits.
        terms: what else the student minimises.
    """

    def __init__(self, distance: Distance, terms: Sequence[StudentTerm] = ()):
        self.distance = distance
        self.terms = nn.ModuleList(terms)

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Scalar loss of the student's logits (n, K) of ``batch``."""
        return self.per_sample(logits, batch).mean()

    def per_sample(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss (n,) of each sample; a term of the whole batch counts in each."""
        loss = self.distance(logits, batch.logits)
        for term in self.active():
            loss = loss + term.weight * term(logits, batch)
        return loss

    def parts(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What the loss is made of, for records: the mean distance and each term's, unweighted, by name."""
        distance = {"distance": self.distance(logits, batch.logits).mean()}
        return distance | {type(t).__name__: t(logits, batch).mean() for t in self.active()}

    def active(self) -> list[nn.Module]:
        """The terms that have a weight."""
        return [term for term in self.terms if term.weight != 0]

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the terms learn themselves: trained by the student's optimiser, at θ only."""
        return self.terms.parameters()

    def state_dict(self) -> State:
        """What the terms have learnt."""
        return {"terms": self.terms.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.terms.load_state_dict(state["terms"])
