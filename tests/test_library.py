"""A method from Python, as in examples/library.py: build, then a strategy with all of its parts."""

import io
from typing import Any

import pytest
import torch
from torch import nn

from lra.distances import l1
from lra.distillation.objective import Objective, SelfPaced
from lra.options import NonNegative
from lra.problem import Problem, Teacher
from lra.strategies.checkpoint import capture, restore
from lra.strategies.lra import LRA
from lra.strategies.method import Method, OnlineMethod, OnlineOptions, Parts, Setup
from lra.strategies.methods import METHODS
from lra.strategies.plugins import EpochClock
from lra.strategies.retention import ReservoirReplay
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream
from lra.synthesis.terms import Adversarial, OneHot, RingNCE

EXPERIENCES, STEPS = 8, 2
CURRICULUM = {"latent": 8, "width": 4, "bn": 0.0, "age": 1.0, "age_rate": 0.5, "adversarial_slope": 0.25}


class Run:
    """What examples/library.py does with a method, the same every time."""

    def __init__(self, method: type[Method], **settings: Any):
        torch.manual_seed(0)
        teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
        self.student = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        problem = Problem((1, 8, 8), 10, (0.3,), (0.35,))
        setup = Setup(problem, teacher, l1, 16, STEPS, EXPERIENCES, experiences_per_epoch=1)
        self.made = method(setup, method.Options.model_validate(settings)).build(self.student)
        self.replay = ReservoirReplay().build(setup)
        self.stream = SynthesisStream(self.made.synthesizer, teacher, EXPERIENCES, STEPS, setup.batch_size)
        self.strategy = DataFreeDistillation(
            model=self.student,
            optimizer=torch.optim.SGD([*self.student.parameters(), *self.made.objective.parameters()], lr=0.01),
            objective=self.made.objective,
            train_mb_size=setup.batch_size,
            plugins=[self.replay, LRA(self.replay), *self.made.plugins],
        )

    def state(self) -> Any:
        return capture(self.strategy, self.stream)


class Gentle(OnlineMethod):
    """A method of a user's own, whose samples are disputed more and more."""

    class Options(OnlineOptions):
        adversarial: NonNegative = 0.25

    name, paper, latent = "gentle", "nowhere", 8

    def build(self, student: nn.Module) -> Parts:
        disputed = Adversarial(0.0, self.setup.distance)

        def dispute(epoch: int) -> None:
            disputed.weight = self.options.adversarial * epoch

        clock = EpochClock(dispute, self.setup.experiences_per_epoch)
        return self.parts(self.online([OneHot(1.0), disputed]), plugins=[clock])


def test_cudfkd_keeps_its_curriculum() -> None:
    run = Run(METHODS["cudfkd"], **CURRICULUM)
    run.strategy.train(run.stream)
    paced = run.made.objective
    assert isinstance(paced, SelfPaced)
    assert paced.age == 1.0 + 0.5 * EXPERIENCES * STEPS
    weights = {term.name: term.weight for term in run.made.synthesizer.terms}
    assert weights["adversarial"] == 0.25 * (6 - 2), "grown a quarter an epoch from the second of eight to the sixth"


def test_adadfkd_has_its_projection_on_both_sides_and_its_ring_tightens() -> None:
    run = Run(METHODS["adadfkd"], **CURRICULUM, negatives=32)
    (ring,) = (term for term in run.made.synthesizer.terms if isinstance(term, RingNCE))
    assert isinstance(ring.project, nn.Linear)
    learnt = [p for group in run.strategy.optimizer.param_groups for p in group["params"]]
    assert any(p is ring.project.weight for p in learnt), "trained with the student, seen by the ring"
    run.strategy.train(run.stream)
    assert ring.hardness == pytest.approx(0.1), "as hard as it gets, at the end"


def test_a_users_own_method_keeps_its_plugin_and_gets_what_every_method_can_have() -> None:
    run = Run(Gentle, width=4)
    run.strategy.train(run.stream)
    assert [(term.name, term.weight) for term in run.made.synthesizer.terms] == [
        ("one_hot", 1.0),
        ("adversarial", 0.25 * EXPERIENCES),
        ("triplet", 0.0),
    ]
    assert type(run.made.objective) is Objective


@pytest.mark.parametrize(
    ("method", "settings"),
    [(METHODS["cudfkd"], CURRICULUM), (METHODS["adadfkd"], CURRICULUM | {"negatives": 32}), (Gentle, {"width": 4})],
)
def test_it_goes_on_from_a_checkpoint_as_if_never_stopped(method: type[Method], settings: dict[str, Any]) -> None:
    whole, resumed, saved = Run(method, **settings), Run(method, **settings), io.BytesIO()

    def save() -> None:
        if whole.stream.position == 5:
            torch.save(whole.state(), saved)

    whole.stream.at_rest = save
    whole.strategy.train(whole.stream)
    saved.seek(0)
    restore(torch.load(saved, weights_only=True), resumed.strategy, resumed.stream)
    resumed.strategy.train(resumed.stream)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, resumed.student.state_dict()[name])
    for made in zip(whole.made.synthesizer.terms, resumed.made.synthesizer.terms, strict=True):
        assert made[0].weight == made[1].weight


def test_a_method_without_any_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="all weights of synthesis are 0"):
        Run(METHODS["dafl"], latent=8, width=4, one_hot=0, balance=0, activation=0)
