"""No loss of its own: while synthesis goes on, a perturbation network learns on its images (AEAHL-RG)."""

from torch import Tensor

from lra.distillation.attack import Attacker
from lra.state import State
from lra.synthesis.terms.term import Term
from lra.view import View


class PerturbationTraining(Term):
    """One step of an attacker on the images of every synthesis step, whose teacher's answers are there already.

    Args:
        attacker: learns; its state is this term's.
    """

    name = "perturbation"

    def __init__(self, attacker: Attacker):
        super().__init__(1.0)
        self.attacker = attacker
        self._seen: tuple[Tensor, Tensor] | None = None

    def __call__(self, view: View) -> Tensor:
        """0, with the attacker's last loss as a note."""
        self._seen = view.images.detach(), view.teacher_logits.detach()
        return view.images.new_zeros(())

    def learn(self) -> None:
        """The attacker's step."""
        assert self._seen is not None
        self.notes["loss"] = self.attacker.learn(*self._seen)
        self._seen = None

    def state_dict(self) -> State:
        """The attacker, and its last loss."""
        return {"attacker": self.attacker.state_dict(), "notes": dict(self.notes)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.attacker.load_state_dict(state["attacker"])
        self.notes = dict(state["notes"])
