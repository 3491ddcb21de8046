"""The LRA step inside the strategy: its gradient, against float64 autograd of the objective written out by hand."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LwFPlugin
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d, linear

from lra.distances import l1
from lra.distillation.objective import Objective as StudentObjective
from lra.distillation.terms import InfoNCE
from lra.memory.buffers import Reservoir, Ring
from lra.memory.generator import Encoder, MemoryGenerator
from lra.meta.options import LRAOptions
from lra.options import MemoryGeneratorOptions
from lra.problem import Batch, Teacher
from lra.strategies.lra import LRA
from lra.strategies.replay import BufferReplay, GenerativeReplay
from lra.strategies.strategy import DataFreeDistillation, Replay
from lra.strategies.stream import SynthesisStream

pytestmark = pytest.mark.usefixtures("plain_report")

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]

DECAY = 0.01


class Step(NamedTuple):
    """One student step: where it started, on what, and the gradient it took."""

    theta: dict[str, Tensor]
    new: Batch
    old: Batch | None
    gradient: list[Tensor]
    loss: float


class Spy:
    """Keeps every step; comes last."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        assert strategy.acquired is not None
        theta = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}
        gradient = [p.grad.clone() for p in strategy.model.parameters() if p.grad is not None]
        self.steps.append(Step(theta, strategy.acquired, strategy.replayed, gradient, strategy.loss.item()))


class Penalty:
    """Adds DECAY·|θ|² to the loss, as a regularising plugin does."""

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        strategy.loss = strategy.loss + DECAY * sum((p**2).sum() for p in strategy.model.parameters())


class Objective:
    """Losses of a student with BatchNorm as functions of its weights."""

    def __init__(self, student: nn.Module, step: Step):
        # Training mode normalises by the batch: running statistics do not enter.
        self.student = copy.deepcopy(student).train()
        self.theta = {name: value.clone().requires_grad_(True) for name, value in step.theta.items()}

    def loss(self, weights: dict[str, Tensor], *parts: Batch) -> Tensor:
        images, logits = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        buffers = {name: value.clone() for name, value in self.student.named_buffers()}
        return (functional_call(self.student, {**weights, **buffers}, (images,)) - logits).abs().mean()

    def beside(self, weights: dict[str, Tensor], part: Batch, others: Batch) -> Tensor:
        """Loss of ``part`` where BatchNorm sees ``others`` as well."""
        buffers = {name: value.clone() for name, value in self.student.named_buffers()}
        images = torch.cat([part.images, others.images])
        logits = functional_call(self.student, {**weights, **buffers}, (images,))[: len(part.images)]
        return (logits - part.logits).abs().mean()

    def moments(self, weights: dict[str, Tensor], *parts: Batch) -> tuple[Tensor, Tensor]:
        """Mean and variance that BatchNorm sees of the parts together."""
        convolved = conv2d(torch.cat([part.images for part in parts]), weights["0.weight"], padding=1)
        return convolved.mean((0, 2, 3), keepdim=True), convolved.var((0, 2, 3), correction=0, keepdim=True)

    def given(self, weights: dict[str, Tensor], moments: tuple[Tensor, Tensor], part: Batch) -> Tensor:
        """Loss of ``part`` where BatchNorm normalises by these."""
        mean, variance = moments
        scaled = (conv2d(part.images, weights["0.weight"], padding=1) - mean) / (variance + 1e-5).sqrt()
        seen = torch.tanh(scaled * weights["1.weight"].view(-1, 1, 1) + weights["1.bias"].view(-1, 1, 1)).flatten(1)
        return (linear(seen, weights["4.weight"], weights["4.bias"]) - part.logits).abs().mean()

    def product(self, loss: Tensor, vector: list[Tensor]) -> list[Tensor]:
        """The Hessian of ``loss`` times ``vector``."""
        slopes = torch.autograd.grad(loss, list(self.theta.values()), create_graph=True)
        return self.gradient(sum((a * b).sum() for a, b in zip(slopes, vector, strict=True)))

    def ahead(self, loss: Tensor, alpha: float, order: int = 2, decay: float = 0.0) -> dict[str, Tensor]:
        gradients = torch.autograd.grad(loss, list(self.theta.values()), create_graph=order == 2)
        moved = zip(self.theta.items(), gradients, strict=True)
        if order == 1:
            # θ' as it is, with the derivative of θ' by θ taken for one.
            return {name: value - alpha * (g + decay * value).detach() for (name, value), g in moved}
        return {name: value - alpha * (g + decay * value) for (name, value), g in moved}

    def gradient(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(self.theta.values())))


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-9) -> None:
    flat = [torch.cat([part.flatten() for part in parts]) for parts in (found, expected)]
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < tolerance


def generative(teacher: Teacher) -> GenerativeReplay:
    torch.manual_seed(5)
    generator = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    encoder = Encoder(6, (1, 8, 8), mean=(0.5,), std=(0.5,), width=8)
    return GenerativeReplay(MemoryGenerator(generator, encoder, teacher, 6, MemoryGeneratorOptions()), size=4)


REPLAYS: dict[str, Callable[[Teacher], Replay]] = {
    "memory": lambda teacher: BufferReplay(Ring(3, 4), 4),
    "reservoir": lambda teacher: BufferReplay(Reservoir(8), 4),
    "generative": generative,
}


@pytest.fixture
def trained(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, teacher: Teacher, double: None
) -> Callable[..., tuple[list[Step], nn.Module]]:
    """Train the same student with a replay and LRA, in float64; gives its steps and what it became.

    BatchNorm sees each batch by itself, α is constant and the gradient exact, unless options say otherwise.
    """
    student.double()
    teacher.double()

    def train(
        replay: str = "memory",
        options: dict[str, Any] | None = None,
        before: tuple[Any, ...] = (),
        after: tuple[Any, ...] = (),
        length: int = 3,
    ) -> tuple[list[Step], nn.Module]:
        model, spy = copy.deepcopy(student), Spy()
        plugin = REPLAYS[replay](teacher)
        exact = {"statistics": "batch", "alpha_rate": 0.0, "order": 1 if (options or {}).get("along") else 2}
        meta = [] if options is None else [LRA(plugin, LRAOptions(**exact | options))]
        stream = make_stream(length=length)
        torch.manual_seed(0)
        make_strategy(model, [plugin, *before, *meta, *after, spy]).train(stream)
        return spy.steps, model

    return train


Trained = Callable[..., tuple[list[Step], nn.Module]]


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize(
    ("mixture", "acquired", "retained"),
    [("proportional", 16 / 20, 0.7 * 4 / 20), ("convex", 1 / 1.7, 0.7 / 1.7), ("sum", 1, 0.7)],
)
def test_the_papers_objective_has_its_gradient(
    trained: Trained, student: nn.Module, replay: str, engine: str, mixture: str, acquired: float, retained: float
) -> None:
    """s·L_acq(θ) + w·L_ret(θ - α∇(s·L_acq)(θ)), with 16 new images and 4 old ones."""
    steps, _ = trained(replay, {"alpha": 0.3, "weight": 0.7, "engine": engine, "mixture": mixture})
    assert [step.old is not None for step in steps] == [False, False, True, True, True, True]
    for step in steps:
        by_hand = Objective(student, step)
        acquisition = by_hand.loss(by_hand.theta, step.new)
        if step.old is None:
            assert_close(step.gradient, by_hand.gradient(acquisition))
            continue
        retention = by_hand.loss(by_hand.ahead(acquired * acquisition, alpha=0.3), step.old)
        total = acquired * acquisition + retained * retention
        assert_close(step.gradient, by_hand.gradient(total))
        assert step.loss == pytest.approx(total.item())


def test_the_meta_term_is_alive(trained: Trained) -> None:
    """What the released code never had: a step other than plain replay's."""
    plain = trained("memory")[1]
    meta = trained("memory", {"alpha": 0.3})[1]
    assert not torch.allclose(plain[4].weight, meta[4].weight, rtol=1e-6)


def test_a_learned_rate_looks_as_far_ahead_as_a_constant_one_at_its_start(trained: Trained) -> None:
    constant, learned = ([*trained("memory", {"alpha": 0.3} | more)[0]][2] for more in ({}, {"alpha_rate": 0.1}))
    assert_close(constant.gradient, learned.gradient)


@pytest.mark.parametrize("options", [{"order": 1}, {"inner_weight_decay": 0.2}, {"alpha_ratio": 4.0}])
def test_variants_of_the_inner_step(trained: Trained, student: nn.Module, options: dict[str, Any]) -> None:
    steps, _ = trained("memory", {"alpha": 0.3, "mixture": "sum", **options})
    alpha = 4.0 * 0.05 if "alpha_ratio" in options else 0.3
    for step in steps[2:]:
        by_hand = Objective(student, step)
        acquisition = by_hand.loss(by_hand.theta, step.new)
        ahead = by_hand.ahead(acquisition, alpha, options.get("order", 2), options.get("inner_weight_decay", 0.0))
        assert step.old is not None
        retention = by_hand.loss(ahead, step.old)
        assert_close(step.gradient, by_hand.gradient(by_hand.loss(by_hand.theta, step.new) + retention))


class Momentum:
    """Gives the optimiser momentum, and keeps what it was before each step; comes before the spy."""

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self.kept: list[dict[str, Tensor]] = []

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        strategy.optimizer.param_groups[0]["momentum"] = self.momentum

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        state = strategy.optimizer.state
        named = {name: state[p].get("momentum_buffer") for name, p in strategy.model.named_parameters() if p in state}
        self.kept.append({name: m.clone() for name, m in named.items() if m is not None})


@pytest.mark.parametrize("statistics", ["batch", "joint"])
def test_along_the_momentum_theta_moves_by_a_constant(trained: Trained, student: nn.Module, statistics: str) -> None:
    """s·L_acq(θ) + w·L_ret(θ - α(1 - μ)m), m the optimiser's momentum, against the objective written out."""
    momentum = Momentum()
    options = {"alpha": 0.3, "along": "momentum", "statistics": statistics}
    steps, _ = trained("memory", options, before=(momentum,), length=4)
    for step, kept in list(zip(steps, momentum.kept, strict=True))[2:]:
        by_hand = Objective(student, step)
        assert step.old is not None
        ahead = {name: value - 0.3 * (1 - 0.9) * kept[name] for name, value in by_hand.theta.items()}
        if statistics == "batch":
            acquisition, retention = by_hand.loss(by_hand.theta, step.new), by_hand.loss(ahead, step.old)
        else:
            acquisition = by_hand.beside(by_hand.theta, step.new, step.old)
            retention = by_hand.given(ahead, by_hand.moments(by_hand.theta, step.new, step.old), step.old)
        total = 16 / 20 * acquisition + 4 / 20 * retention
        assert_close(step.gradient, by_hand.gradient(total))
        assert step.loss == pytest.approx(total.item())
        assert not any(torch.equal(ahead[name], value) for name, value in step.theta.items())


def test_a_momentum_that_is_not_there_is_refused(trained: Trained) -> None:
    with pytest.raises(ValueError, match="needs an optimiser with momentum"):
        trained("memory", {"along": "momentum"}, before=(Momentum(0.0),))


@pytest.mark.parametrize("statistics", ["batch", "joint"])
def test_steps_between_look_aheads_are_plain_replay(trained: Trained, student: nn.Module, statistics: str) -> None:
    steps, _ = trained("memory", {"alpha": 0.3, "every": 3, "statistics": statistics}, length=5)
    for index, step in enumerate(steps):
        by_hand = Objective(student, step)
        if step.old is None:
            continue
        plain = by_hand.gradient(by_hand.loss(by_hand.theta, step.new, step.old))
        if index % 3:
            assert_close(step.gradient, plain)
        else:
            found, expected = (torch.cat([part.flatten() for part in parts]) for parts in (step.gradient, plain))
            assert float((found - expected).norm() / expected.norm()) > 1e-3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"along": "momentum", "alpha_rate": 0.1}, "alpha_rate=0.1"),
        ({"along": "momentum", "clip": 1.0}, "clip=1.0"),
        ({"along": "momentum", "inner": "adam"}, "inner=adam"),
        ({"along": "momentum", "engine": "higher"}, "engine=higher"),
        ({"along": "momentum", "objective": "reference"}, "objective=reference"),
        ({"every": 2, "mixture": "sum"}, "every=2"),
        ({"every": 2, "weight": 0.5}, "every=2"),
        ({"every": 0}, "every"),
    ],
)
def test_forms_that_do_not_compose_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        LRAOptions(**options)


def test_the_momentum_of_a_run_must_be_there(tiny: list[str], lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    asked = ("--replay", "memory", "--meta", "--set", "meta.along=momentum", "--set", "student.momentum=0")
    done = lra_bench("run", *tiny, *asked, "--out", tmp_path)
    assert done.code == 2
    assert "meta.along=momentum and student.momentum is 0: raise it" in done.err


def test_curvature_of_a_part_of_the_batch(trained: Trained, student: nn.Module) -> None:
    """g + (I - αH)v, with H of the first quarter of the new samples."""
    alpha = 0.3
    steps, _ = trained("memory", {"alpha": alpha, "mixture": "sum", "curvature": 0.25})
    for step in steps[2:]:
        by_hand = Objective(student, step)
        acquisition = by_hand.loss(by_hand.theta, step.new)
        assert step.old is not None
        v = by_hand.gradient(by_hand.loss(by_hand.ahead(acquisition, alpha, order=1), step.old))
        bent = by_hand.product(by_hand.loss(by_hand.theta, Batch(step.new.images[:4], step.new.logits[:4])), v)
        new = by_hand.gradient(by_hand.loss(by_hand.theta, step.new))
        assert_close(step.gradient, [a + b - alpha * c for a, b, c in zip(new, v, bent, strict=True)])


@pytest.mark.parametrize(
    ("engine", "order", "curvature"),
    [("lean", 2, 1.0), ("higher", 2, 1.0), ("lean", 1, 1.0), ("higher", 1, 1.0), ("lean", 2, 0.25)],
)
def test_joint_statistics(trained: Trained, student: nn.Module, engine: str, order: int, curvature: float) -> None:
    """Acquisition sees new and replayed images together; retention, at θ', keeps the statistics that they had at θ."""
    options = {"statistics": "joint", "engine": engine, "order": order, "curvature": curvature}
    steps, _ = trained("memory", {"alpha": 0.3, "mixture": "sum", **options})
    for step in steps[2:]:
        by_hand = Objective(student, step)
        assert step.old is not None
        acquisition = by_hand.beside(by_hand.theta, step.new, step.old)
        moments = by_hand.moments(by_hand.theta, step.new, step.old)
        ahead = by_hand.ahead(acquisition, 0.3, order=order if curvature == 1 else 1)
        retention = by_hand.given(ahead, moments, step.old)
        acquisition = by_hand.beside(by_hand.theta, step.new, step.old)
        expected = by_hand.gradient(acquisition + retention)
        if curvature < 1:
            leaves = {name: value.detach().requires_grad_() for name, value in ahead.items()}
            fixed = tuple(moment.detach() for moment in moments)
            v = list(torch.autograd.grad(by_hand.given(leaves, fixed, step.old), list(leaves.values())))
            part = Batch(step.new.images[:4], step.new.logits[:4])
            bent = by_hand.product(by_hand.beside(by_hand.theta, part, step.old), v)
            expected = [a - 0.3 * c for a, c in zip(expected, bent, strict=True)]
        assert_close(step.gradient, expected)


@pytest.mark.parametrize("replay", REPLAYS)
def test_at_alpha_0_the_step_is_that_of_plain_replay(trained: Trained, replay: str) -> None:
    """With BatchNorm too: its statistics are those of new and replayed images together, as are the running ones."""
    plain = trained(replay, length=4)[1].state_dict()
    meta = trained(replay, {"statistics": "joint", "alpha": 0.0}, length=4)[1].state_dict()
    for name, value in plain.items():
        torch.testing.assert_close(meta[name], value, rtol=1e-9, atol=1e-12)


def test_rates_are_learned_by_the_agreement_of_their_layer(trained: Trained, student: nn.Module) -> None:
    """dL/dα = -<g, v>: a first step of Adam moves log α by its rate, up where g and v agree."""
    rate, learned = 0.1, LRAOptions(alpha=0.3, mixture="sum", alpha_rate=0.1, statistics="batch", order=2)
    steps, _ = trained("memory", learned.model_dump())
    step = steps[2]
    by_hand = Objective(student, step)
    acquisition = by_hand.loss(by_hand.theta, step.new)
    assert step.old is not None
    v = by_hand.gradient(by_hand.loss(by_hand.ahead(acquisition, 0.3, order=1), step.old))
    g = by_hand.gradient(by_hand.loss(by_hand.theta, step.new))
    agreement = [float((a * b).sum()) for a, b in zip(g, v, strict=True)]
    alphas = [0.3 * math.exp(rate * math.copysign(1, value)) for value in agreement]
    step = steps[3]
    by_hand = Objective(student, step)
    g = torch.autograd.grad(by_hand.loss(by_hand.theta, step.new), list(by_hand.theta.values()), create_graph=True)
    moved = zip(by_hand.theta.items(), alphas, g, strict=True)
    assert step.old is not None
    retention = by_hand.loss({name: value - alpha * slope for (name, value), alpha, slope in moved}, step.old)
    expected = by_hand.gradient(by_hand.loss(by_hand.theta, step.new) + retention)
    # Adam's eps keeps the first move just below its rate.
    assert_close(step.gradient, expected, tolerance=1e-4)


def test_the_step_is_of_first_order_unless_more_is_asked_for() -> None:
    asked = [{}, {"along": "momentum"}, {"order": 2}, {"curvature": 0.5}]
    assert [LRAOptions.model_validate(each).order for each in asked] == [1, 1, 2, 2]


def test_rates_are_learned_unless_alpha_comes_from_elsewhere_or_is_zero() -> None:
    assert LRAOptions().alpha_rate > 0
    for options in (LRAOptions(alpha=0.0), LRAOptions(alpha_ratio=1.0), LRAOptions(alpha_rate=0.0)):
        assert options.alpha_rate == 0
        assert LRAOptions.model_validate(options.model_dump()) == options


@pytest.mark.parametrize(
    "options",
    [
        {"clip": 1, "normalise": True},
        {"alpha_rate": 0.1, "alpha_ratio": 1},
        {"curvature": 0.5, "engine": "higher"},
        {"curvature": 0.5, "order": 1},
        {"curvature": 0},
        {"alpha_rate": 0.1, "alpha": 0},
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"drop|greater than 0|raise alpha"):
        LRAOptions(**options)


@pytest.mark.parametrize("alpha", [0.0, 1e-11])
@pytest.mark.parametrize("mixture", ["proportional", "sum"])
def test_with_alpha_to_zero_the_gradient_is_the_joint_one(
    trained: Trained, student: nn.Module, mixture: str, alpha: float
) -> None:
    steps, _ = trained("memory", {"alpha": alpha, "mixture": mixture})
    for step in steps[2:]:
        by_hand = Objective(student, step)
        assert step.old is not None
        acquisition, retention = (by_hand.loss(by_hand.theta, part) for part in (step.new, step.old))
        joint = acquisition + retention if mixture == "sum" else (16 * acquisition + 4 * retention) / 20
        assert_close(step.gradient, by_hand.gradient(joint))


@pytest.mark.parametrize("replay", REPLAYS)
def test_reference_detached_is_plain_replay_to_the_last_bit(trained: Trained, replay: str) -> None:
    plain = trained(replay, length=4)[1].state_dict()
    detached = trained(replay, {"objective": "reference_detached", "alpha": 0.9}, length=4)[1].state_dict()
    assert all(torch.equal(value, detached[name]) for name, value in plain.items())


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_reference_adds_retention_to_the_joint_batch(trained: Trained, student: nn.Module, engine: str) -> None:
    """L_cat(θ) + w·L_ret(θ'): one forward over both batches, and the look-ahead beside it."""
    steps, _ = trained("memory", {"objective": "reference", "alpha": 0.3, "weight": 0.7, "engine": engine})
    for step in steps[2:]:
        by_hand = Objective(student, step)
        assert step.old is not None
        joint = by_hand.loss(by_hand.theta, step.new, step.old)
        ahead = by_hand.ahead(by_hand.loss(by_hand.theta, step.new), alpha=0.3)
        total = joint + 0.7 * by_hand.loss(ahead, step.old)
        assert_close(step.gradient, by_hand.gradient(total))
        assert step.loss == pytest.approx(total.item())


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize("objective", ["paper", "reference"])
def test_both_engines_make_the_same_student(trained: Trained, replay: str, objective: str) -> None:
    lean, higher = (
        trained(replay, {"alpha": 0.3, "objective": objective, "engine": engine}, length=4)[1]
        for engine in ("lean", "higher")
    )
    for name, value in lean.state_dict().items():
        torch.testing.assert_close(value, higher.state_dict()[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("statistics", ["joint", "batch"])
def test_both_engines_gather_the_same_features(trained: Trained, teacher: Teacher, statistics: str) -> None:
    """In the passes at θ and at θ', the latter of which `higher` makes through a copy of the student."""
    torch.manual_seed(7)
    contrast = InfoNCE(0.5, nn.Linear(256, 16, dtype=torch.float64))

    class Compares:
        def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            strategy.objective = StudentObjective(l1, [contrast], teacher)

    options = {"alpha": 0.3, "statistics": statistics}
    lean, higher = (
        trained("memory", options | {"engine": engine}, before=(Compares(),), length=4)[1]
        for engine in ("lean", "higher")
    )
    plain = trained("memory", options, length=4)[1].state_dict()
    for name, value in lean.state_dict().items():
        torch.testing.assert_close(value, higher.state_dict()[name], rtol=1e-9, atol=1e-12)
    assert not torch.equal(lean.state_dict()["0.weight"], plain["0.weight"])
    assert not any(module._forward_hooks for module in lean.modules())


def test_a_plugin_after_adds_to_the_gradient(trained: Trained, student: nn.Module) -> None:
    steps, _ = trained("memory", {"alpha": 0.3, "mixture": "sum"}, after=(Penalty(),))
    for step in steps[2:]:
        by_hand = Objective(student, step)
        acquisition = by_hand.loss(by_hand.theta, step.new)
        assert step.old is not None
        retention = by_hand.loss(by_hand.ahead(acquisition, 0.3), step.old)
        decay = DECAY * sum((p**2).sum() for p in by_hand.theta.values())
        assert_close(step.gradient, by_hand.gradient(acquisition + retention + decay))


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_a_plugin_before_is_part_of_the_acquisition(trained: Trained, student: nn.Module, engine: str) -> None:
    steps, _ = trained("memory", {"alpha": 0.3, "mixture": "sum", "engine": engine}, before=(Penalty(),))
    for step in steps[2:]:
        by_hand = Objective(student, step)
        decay = DECAY * sum((p**2).sum() for p in by_hand.theta.values())
        acquisition = by_hand.loss(by_hand.theta, step.new) + decay
        assert step.old is not None
        retention = by_hand.loss(by_hand.ahead(acquisition, 0.3), step.old)
        assert_close(step.gradient, by_hand.gradient(acquisition + retention))


class ThroughTheForwardPass:
    """Adds DECAY·mean(logits²) of the minibatch, from the very logits that the loss is made of, as LwF does."""

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        strategy.loss += DECAY * strategy.mb_output.pow(2).mean()


def of_logits(by_hand: Objective, images: Tensor) -> Tensor:
    buffers = {name: value.clone() for name, value in by_hand.student.named_buffers()}
    return DECAY * functional_call(by_hand.student, {**by_hand.theta, **buffers}, (images,)).pow(2).mean()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_a_term_through_the_forward_pass_adds_its_gradient(
    trained: Trained, student: nn.Module, engine: str, order: int
) -> None:
    """∇(L_acq(θ) + L_ret(θ')) + ∇P(θ), where P is of the logits that L_acq is of."""
    options = {"alpha": 0.3, "mixture": "sum", "engine": engine, "order": order}
    for position in ("after", "before"):
        steps, _ = trained("memory", options, **{position: (ThroughTheForwardPass(),)})
        for step in steps[2:]:
            by_hand = Objective(student, step)
            assert step.old is not None
            inner = by_hand.loss(by_hand.theta, step.new)
            if position == "before":
                inner = inner + of_logits(by_hand, step.new.images)
            retention = by_hand.loss(by_hand.ahead(inner, 0.3, order), step.old)
            acquisition, added = by_hand.loss(by_hand.theta, step.new), of_logits(by_hand, step.new.images)
            assert_close(step.gradient, by_hand.gradient(acquisition + retention + added))


@pytest.mark.parametrize(
    "options",
    [
        {"statistics": "joint"},
        {"statistics": "joint", "order": 1},
        {"curvature": 0.5},
        {"statistics": "running"},
        {"alpha_rate": 0.1},
        {"objective": "reference"},
        {"objective": "reference_detached"},
    ],
)
def test_a_term_through_the_forward_pass_composes_with_every_form(trained: Trained, options: dict[str, Any]) -> None:
    """The gradient is that without the term plus the term's own, from wherever the student has come."""
    term, seen = ThroughTheForwardPass(), []

    class Asked:
        """Asks for the term's gradient by itself, before the backward pass."""

        def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            term = DECAY * strategy.mb_output.pow(2).mean()
            parameters = list(strategy.model.parameters())
            seen.append([torch.autograd.grad(loss, parameters, retain_graph=True) for loss in (strategy.loss, term)])

    steps, _ = trained("memory", {"alpha": 0.3} | options, after=(Asked(), term))
    for step, (own, added) in zip(steps, seen, strict=True):
        assert_close(step.gradient, [a + b for a, b in zip(own, added, strict=True)])
        assert float(added[0].norm()) > 0


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize("order", [1, 2])
def test_avalanches_lwf_composes(trained: Trained, engine: str, order: int) -> None:
    options = {"alpha": 0.3, "engine": engine, "order": order}
    without = trained("memory", options, length=4)[1]
    with_it = trained("memory", options, after=(LwFPlugin(alpha=10.0),), length=4)[1]
    assert torch.isfinite(with_it[4].weight).all()
    assert not torch.equal(without[4].weight, with_it[4].weight)


def test_the_minibatchs_graph_is_kept_for_others_alone_and_let_go_of(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, teacher: Teacher
) -> None:
    held: list[bool] = []

    class After:
        def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            held.append(strategy.replayed is not None and strategy.mb_output.grad_fn is not None)

    for others in ([], [ThroughTheForwardPass()]):
        plugin = BufferReplay(Ring(3, 4), 4)
        strategy = make_strategy(copy.deepcopy(student), [plugin, LRA(plugin), *others, After()])
        strategy.train(make_stream())
    assert held[-4:] == [False] * 4


@pytest.mark.parametrize("objective", ["paper", "reference", "reference_detached"])
def test_avalanches_ewc_composes(trained: Trained, objective: str) -> None:
    ewc = EWCPlugin(ewc_lambda=100.0, mode="online", decay_factor=0.5)
    without = trained("memory", {"objective": objective})[1]
    with_it = trained("memory", {"objective": objective}, after=(ewc,))[1]
    assert torch.isfinite(with_it[4].weight).all()
    assert not torch.equal(without[4].weight, with_it[4].weight)


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize(
    ("options", "moves"),
    [
        ({}, 6),
        ({"objective": "reference"}, 6),
        ({"objective": "reference_detached"}, 6),
        ({"batchnorm": "both"}, 10),
        ({"order": 1}, 6),
        ({"statistics": "running"}, 6),
        ({"statistics": "joint"}, 6),
        ({"statistics": "joint", "objective": "reference"}, 6),
    ],
)
def test_running_statistics_move_once_per_step(
    trained: Trained, options: dict[str, Any], moves: int, engine: str
) -> None:
    """Six steps, four of them with replay; once for each batch that the policy names."""
    _, model = trained("memory", {"engine": engine, **options})
    assert int(model[1].num_batches_tracked) == moves


def test_running_statistics_are_those_of_the_acquisition(trained: Trained, student: nn.Module) -> None:
    steps, model = trained("memory", {"alpha": 0.3})
    mean = torch.zeros(4)
    for step in steps:
        convolved = torch.nn.functional.conv2d(step.new.images, step.theta["0.weight"], padding=1)
        mean = 0.9 * mean + 0.1 * convolved.mean(dim=(0, 2, 3))
    torch.testing.assert_close(model[1].running_mean, mean)


@pytest.mark.parametrize("options", [{}, {"statistics": "batch"}, {"order": 2}, {"curvature": 0.5}])
@pytest.mark.parametrize("objective", ["paper", "reference"])
def test_half_precision_rounds_every_pass_of_the_step(
    make_stream: MakeStream,
    make_strategy: MakeStrategy,
    student: nn.Module,
    teacher: Teacher,
    objective: str,
    options: dict[str, Any],
) -> None:
    """Each pass by autocast, and a gradient that differs from that of single precision by rounding alone."""
    gradients, seen = [], set[torch.dtype]()
    for precision in (torch.float32, torch.bfloat16):
        model, spy, replay = copy.deepcopy(student), Spy(), REPLAYS["memory"](teacher)
        if precision == torch.bfloat16:
            # The generator looks at the student in evaluation mode.
            model[4].register_forward_hook(lambda m, x, output: seen.add(output.dtype) if m.training else None)
        stream = make_stream(length=2, steps=1)
        torch.manual_seed(0)
        plugin = LRA(replay, LRAOptions(alpha=0.3, objective=objective, **options))
        make_strategy(model, [replay, plugin, spy], precision=precision).train(stream)
        gradients.append(torch.cat([part.flatten() for part in spy.steps[-1].gradient]))
    assert seen == {torch.bfloat16}
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.parametrize("objective", ["paper", "reference"])
def test_a_first_experience_has_nothing_to_retain(trained: Trained, objective: str) -> None:
    plain = trained("memory", length=1)[1].state_dict()
    meta = trained("memory", {"objective": objective, "alpha": 0.9}, length=1)[1].state_dict()
    assert all(torch.equal(value, meta[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    "setting",
    [
        *("meta.statistics=joint", "meta.statistics=batch", "meta.engine=higher"),
        *("student.precision=bfloat16", "student.channels_last=true"),
    ],
)
def test_terms_that_look_inside_see_their_own_images(
    tiny: list[str], lra_bench: Callable[..., Any], tmp_path: Path, setting: str
) -> None:
    method = ("--method", "adadfkd", "--set", "synthesis.bn=0", "--replay", "memory", "--meta")
    student = ("--student", "lenet5-bn", "--set", setting)
    done = lra_bench("run", *tiny, *method, *student, "--steps", 6, "--out", tmp_path)
    assert done.code == 0, done.err


def test_a_replay_that_is_no_plugin_is_not_waited_for(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    with pytest.raises(ValueError, match=r"write plugins=\[replay, LRA\(replay\)\]"):
        make_strategy(student, [LRA(BufferReplay(Ring(3, 4), 4))]).train(make_stream(length=1))


def test_a_published_alpha_that_explodes_is_said_in_one_line(trained: Trained) -> None:
    from lra.meta.checks import MetaDiverged

    with pytest.raises(MetaDiverged) as error:
        trained("memory", {"alpha": 1e308})
    assert "\n" not in str(error.value)
