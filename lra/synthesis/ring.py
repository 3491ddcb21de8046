"""AdaDFKD's relation between teacher and student features: a moving ring of negatives, neither trivial nor hardest."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.state import State
from lra.synthesis.feature_bank import FeatureBank
from lra.synthesis.terms import Term
from lra.synthesis.view import View


class RingNCE(Term):
    """Teacher and student features of a sample together, away from past student features of middling similarity.

    q_i = φ(f_T(x_i)), with gradient; k_i = φ(project(f_S(x_i))), without; φ scales to unit length. The similarities
    n_ij = q_i·Q_j to a queue Q of N earlier k are ranked upwards, and the ring of row i is the ranks
    [hN, (h + len)N). The loss is mean_i -log e^{q_i·k_i/τ} / (e^{q_i·k_i/τ} + Σ_{j in ring i} e^{n_ij/τ}); then the
    k_i enter the queue, the oldest leave. Generation minimises it, so it opposes an adversarial term.

    The release wants N to be a multiple of the batch and crashes in its main cell, where it is not; here the queue
    wraps around. It also projects through a new random layer at every call; here it is one, trained with the student.

    Args:
        weight: factor in the sum.
        negatives: N.
        features: d of the teacher's features.
        project: the student's features (n, d') to (n, d).
        length: len, the ring's share of the queue, in (0, 1].
        temperature: τ.
        device: of the queue.

    Attributes:
        hardness: h in [0, 1 - len]; 0 leaves out the most similar, 1 - len the least similar.
    """

    name = "ring"
    needs = frozenset({"features", "student_features"})

    def __init__(
        self,
        weight: float,
        negatives: int,
        features: int,
        project: Callable[[Tensor], Tensor],
        length: float = 0.8,
        temperature: float = 0.07,
        device: torch.device | str = "cpu",
    ):
        super().__init__(weight)
        self.project = project
        self.length = length
        self.temperature = temperature
        self.hardness = 0.0
        self.queue = FeatureBank(negatives)
        self.queue.add(F.normalize(torch.randn(negatives, features), dim=1).to(device))

    def __call__(self, view: View) -> Tensor:
        """≥ 0; moves the queue on.

        Raises:
            ValueError: if the batch is larger than the queue.
        """
        with torch.no_grad():
            keys = F.normalize(self.project(view.student_features), dim=1)
        queries = F.normalize(view.teacher_features, dim=1)
        loss = self.loss(queries, keys)
        self.queue.add(keys)
        return loss

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The loss of unit vectors q and k (n, d) against the queue as it is."""
        positives = (queries * keys).sum(dim=1, keepdim=True)
        # A copy, because the queue moves on in place before the gradient is taken.
        ring = self.ring(queries @ self.queue.rows.clone().T)
        logits = torch.cat([positives, ring], dim=1) / self.temperature
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))

    def ring(self, similarities: Tensor) -> Tensor:
        """The ring's share (n, ⌊len·N⌋) of similarities (n, N), ascending."""
        count = similarities.shape[1]
        size = max(1, int(self.length * count + 1e-9))
        start = min(int(self.hardness * count + 1e-9), count - size)
        return similarities.sort(dim=1).values[:, start : start + size]

    def state_dict(self) -> State:
        """The queue with its position."""
        return self.queue.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.queue.load_state_dict(state)
