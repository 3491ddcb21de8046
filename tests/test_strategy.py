"""The strategy: its optimiser's state survives, evaluation leaves no trace, its steps are plain SGD steps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lra.strategies.evaluation import Evaluation
from lra.strategies.plugins import ScheduleByEpoch
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, TestExperience

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]


class Each:
    """Calls a function at a callback."""

    def __init__(self, callback: str, call: Callable[[DataFreeDistillation], object]):
        setattr(self, callback, lambda strategy, **kwargs: call(strategy))


def test_a_run_is_the_plain_loop(make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module) -> None:
    """Bit for bit what a loop in plain PyTorch does, momentum over experiences included."""
    plain = copy.deepcopy(student)
    torch.manual_seed(0)
    make_strategy(student).train(make_stream(length=4, steps=3))

    torch.manual_seed(0)
    stream = make_stream(length=4, steps=3)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    plain.train()
    for _ in range(4):
        stream.synthesizer.step(plain)
        for _ in range(3):
            images = stream.synthesizer.draw(16)
            loss = (plain(images) - stream.teacher.label(images)).abs().mean(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, student.state_dict()[name]), name


def test_momentum_survives_experiences_and_calls(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    strategy = make_strategy(student)
    optimiser = strategy.optimizer
    seen: list[int] = []
    strategy.plugins.insert(0, Each("before_training_exp", lambda s: seen.append(len(s.optimizer.state))))
    strategy.train(make_stream(length=2))
    strategy.train(make_stream(length=1))
    assert strategy.optimizer is optimiser
    assert seen == [0, 5, 5], "the state is empty at the very beginning only"


def test_parameter_groups_are_kept(make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module) -> None:
    strategy = make_strategy(student)
    head, body = list(student[4].parameters()), list(student[:4].parameters())
    strategy.optimizer = torch.optim.SGD([{"params": head, "lr": 0.1}, {"params": body, "lr": 0.0}])
    before = [p.clone() for p in body]
    strategy.train(make_stream())
    assert [group["lr"] for group in strategy.optimizer.param_groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in strategy.optimizer.param_groups] == [2, 3]
    assert all(torch.equal(a, b) for a, b in zip(before, body, strict=True))


def test_evaluation_leaves_training_as_it_was(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    test = TestExperience(torch.rand(12, 1, 8, 8), torch.arange(12) % 10)
    states = []
    for evaluated in (False, True):
        torch.manual_seed(0)
        model = copy.deepcopy(student)
        modes: list[tuple[bool, bool]] = []
        watch = Each("before_forward", lambda s, m=model, seen=modes: seen.append((m.training, s.is_training)))
        plugins: list[Any] = [watch]
        if evaluated:
            plugins.append(Evaluation(test.origin_stream, every=1, length=3))
        strategy = make_strategy(model, plugins)
        strategy.train(make_stream(length=3))
        assert modes == [(True, True)] * 6
        states.append(strategy)
    for name, value in states[0].model.state_dict().items():
        assert torch.equal(value, states[1].model.state_dict()[name]), name
    assert states[1].clock.train_iterations == 6


@pytest.mark.parametrize(("every", "length", "expected"), [(2, 6, [2, 4, 6]), (4, 6, [4, 6]), (9, 3, [3])])
def test_evaluations_come_at_their_cadence_and_at_the_end(
    make_stream: MakeStream,
    make_strategy: MakeStrategy,
    student: nn.Module,
    every: int,
    length: int,
    expected: list[int],
) -> None:
    seen: list[int] = []
    test = TestExperience(torch.rand(4, 1, 8, 8), torch.arange(4))
    watch = Each("before_eval", lambda s: seen.append(s.clock.train_exp_counter + 1))
    strategy = make_strategy(student, [watch, Evaluation(test.origin_stream, every, length)])
    strategy.train(make_stream(length=length, steps=1))
    assert seen == expected


def test_the_rate_follows_its_schedule_over_epochs(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    strategy = make_strategy(student)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(strategy.optimizer, T_max=3)
    rates: list[float] = []
    watch = Each("before_training_exp", lambda s: rates.append(s.optimizer.param_groups[0]["lr"]))
    strategy.plugins[:0] = [watch, ScheduleByEpoch(schedule, experiences=2)]
    strategy.train(make_stream(length=6, steps=1))
    assert rates == pytest.approx([0.05, 0.05, 0.0375, 0.0375, 0.0125, 0.0125])


def test_a_test_set_is_sliced_not_loaded(make_strategy: MakeStrategy, student: nn.Module) -> None:
    sizes: list[int] = []
    test = TestExperience(torch.rand(10, 1, 8, 8), torch.arange(10))
    watch = Each("before_eval_forward", lambda s: sizes.append(len(s.mb_x)))
    make_strategy(student, [watch], eval_mb_size=4).eval(test.origin_stream)
    assert sizes == [4, 4, 2]


def test_training_in_half_precision_rounds_the_students_passes_and_nothing_else(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    """Logits as of autocast, in single precision; weights, gradients and evaluation are of single precision."""
    seen: list[torch.Tensor] = []
    look = Each("after_forward", lambda s: seen.extend([s.mb_x, s.mb_output]))
    strategy = make_strategy(student, [look], precision=torch.bfloat16)
    before = copy.deepcopy(student).train()
    strategy.train(make_stream(length=1, steps=1))
    images, logits = seen
    with torch.autocast("cpu", torch.bfloat16):
        rounded = before(images)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(logits, rounded.float())
    assert not torch.equal(logits, before(images))
    assert all(
        p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == p.dtype for p in student.parameters()
    )

    shown: list[torch.Tensor] = []
    strategy.plugins.append(Each("after_eval_forward", lambda s: shown.extend([s.mb_x, s.mb_output])))
    strategy.eval(TestExperience(torch.rand(10, 1, 8, 8), torch.arange(10)).origin_stream)
    # BatchNorm is folded there; half precision would be off in the third digit.
    torch.testing.assert_close(shown[1], student.eval()(shown[0]).detach(), rtol=1e-5, atol=1e-5)
