"""What the meta term of the released LRA code does to a student: nothing.

The release (CVPR 2023) takes its inner step with ``higher.innerloop_ctx`` and that function's default,
``copy_initial_weights=True``. The weights of the functional student are then detached copies: the retention loss at θ'
is differentiated down to the copies, and its gradient never reaches the weights that the optimiser updates.

Here the same term is added to plain replay in four ways, on a student small enough to look at every weight:

    python examples/published_lra.py
"""

from collections.abc import Sequence

import higher
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra import LRAOptions, Objective, OnlineGenerator, Ring, Teacher
from lra.distances import l1
from lra.strategies import LRA, BufferReplay, DataFreeDistillation, QuietEvaluation, Replay, SynthesisStream
from lra.synthesis.terms import Disagreement, OneHot

ALPHA, DECAY = 0.01, 5e-4
"""Inner rate and inner weight decay. The release's rate, 0.9, never had an effect."""


class MetaTerm(SupervisedPlugin):
    """The release's step: plain replay's joint loss, and beside it the retention loss after one inner step.

    Args:
        copy_initial_weights: as handed to ``higher``; True is its default, and what was released.
    """

    def __init__(self, copy_initial_weights: bool):
        super().__init__()
        self.copy_initial_weights = copy_initial_weights
        self.reached: list[str] = []

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Add L_ret(θ') to the loss, and count the parameters for which it has a gradient."""
        new, old, student = strategy.acquired, strategy.replayed, strategy.model
        if new is None or old is None:
            return
        inner = torch.optim.SGD(student.parameters(), lr=ALPHA, momentum=0.9, weight_decay=DECAY)
        with higher.innerloop_ctx(student, inner, copy_initial_weights=self.copy_initial_weights) as (ahead, step):
            step.step(strategy.objective(student, new, ahead))
            retention = strategy.objective(student, old, ahead)
        found = torch.autograd.grad(retention, list(student.parameters()), retain_graph=True, allow_unused=True)
        self.reached.append(f"{sum(gradient is not None for gradient in found)} of {len(found)}")
        strategy.loss = strategy.loss + retention


def student_after(replay: Replay, meta: Sequence[SupervisedPlugin] = (), experiences: int = 6) -> dict[str, Tensor]:
    """A student's whole state after two steps on each experience; always the same seeds."""
    torch.manual_seed(0)
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
    student = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    generator = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    rate = torch.optim.Adam(generator.parameters(), lr=0.02)
    terms = [OneHot(1.0), Disagreement(1.0)]
    synthesizer = OnlineGenerator(generator, rate, terms, teacher, latent=8, batch_size=16, sampling_mode="train")
    strategy = DataFreeDistillation(
        model=student,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9),
        objective=Objective(l1),
        train_mb_size=16,
        plugins=[replay, *meta],
        evaluator=QuietEvaluation(),
    )
    strategy.train(SynthesisStream(synthesizer, teacher, length=experiences, steps=2, batch_size=16))
    return student.state_dict()


def memory() -> Replay:
    """A memory bank of three slots of four images."""
    return BufferReplay(Ring(3, 4), 4)


def ours(objective: str) -> dict[str, Tensor]:
    """The student with this toolkit's step under a named objective."""
    # As in the release, each batch goes through the student separately, α is constant and the gradient exact.
    own = {"statistics": "batch", "alpha": ALPHA, "alpha_rate": 0.0, "inner_weight_decay": DECAY, "order": 2}
    options = LRAOptions.model_validate({"objective": objective, **own})
    replay = memory()
    return student_after(replay, [LRA(replay, options)])


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest difference of any weight or buffer."""
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def main() -> None:
    """Print which parameters the term reaches, and how far each student ends from that of plain replay."""
    released, repaired = MetaTerm(copy_initial_weights=True), MetaTerm(copy_initial_weights=False)
    plain, as_released, alive = student_after(memory()), *(student_after(memory(), [m]) for m in (released, repaired))
    print("parameters that the retention loss has a gradient for")
    for name, term in (("as released", released), ("copy_initial_weights=False", repaired)):
        print(f"  {name:42} {' and '.join(sorted(set(term.reached)))}, in each of {len(term.reached)} steps")
    print("largest difference to the student of plain replay")
    for name, state in (
        ("as released", as_released),
        ("lra, objective=reference_detached", ours("reference_detached")),
        ("copy_initial_weights=False", alive),
        ("lra, objective=paper", ours("paper")),
    ):
        print(f"  {name:42} {distance(plain, state):.2g}")
    print("largest difference of the two live terms")
    print(f"  {'copy_initial_weights=False to reference':42} {distance(alive, ours('reference')):.1g}")


if __name__ == "__main__":
    main()
