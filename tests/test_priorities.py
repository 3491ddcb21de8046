"""Prioritised replay: the draw, its correction, what is learnt of a step, and how it is kept."""

from itertools import product
from typing import Any

import pytest
import torch
from short_runs import experiment
from torch import nn

from lra.benchmarks.errors import UsageError
from lra.distances import kl, l1
from lra.distillation.objective import Objective, SelfPaced
from lra.memory.buffers import ImagePool, Reservoir, Ring
from lra.memory.priorities import Priorities
from lra.options import PoolOptions
from lra.problem import Batch, joined
from lra.strategies.replay import BufferReplay, PoolReplay
from lra.synthesis.batches import Diverged

CPU = torch.device("cpu")


def priorities(distances: list[float], exponent: float = 0.6, correction: float = 1.0) -> Priorities:
    made = Priorities(exponent, correction)
    made.load_state_dict({"distances": torch.tensor(distances, dtype=torch.double), "drawn": 0})
    return made


def test_they_are_drawn_in_proportion_to_a_power_of_the_distance() -> None:
    torch.manual_seed(0)
    places, _ = priorities([1.0, 2.0, 5.0], 0.6).draw(60_000)
    wanted = torch.tensor([1.0, 2.0, 5.0]) ** 0.6
    torch.testing.assert_close(places.bincount() / 60_000, wanted / wanted.sum(), atol=0.01, rtol=0)


@pytest.mark.parametrize("exponent", [0.3, 1.0])
def test_with_full_correction_the_expected_loss_is_that_of_a_uniform_draw_times_a_constant(exponent: float) -> None:
    made, losses = priorities([0.2, 1.0, 7.0], exponent), torch.tensor([3.0, 1.0, 4.0])
    places, weights = made.draw(500)
    weight = torch.zeros(3).scatter_(0, places, weights)
    shares = torch.tensor([0.2, 1.0, 7.0]) ** exponent
    shares = shares / shares.sum()
    assert set(places.tolist()) == {0, 1, 2}
    expected = (shares * weight * losses).sum()
    torch.testing.assert_close(expected, losses.mean() * 3 * shares.min(), rtol=1e-4, atol=0)
    assert weights.max() == 1


def test_without_an_exponent_all_count_alike() -> None:
    torch.manual_seed(0)
    places, weights = priorities([1.0, 20.0, 3.0], 0.0, 0.4).draw(30_000)
    assert torch.equal(weights, torch.ones(30_000))
    torch.testing.assert_close(places.bincount() / 30_000, torch.full((3,), 1 / 3), atol=0.015, rtol=0)


def test_what_is_new_enters_with_the_greatest_and_keeps_it_until_it_is_seen() -> None:
    made = Priorities(1.0)
    made.admit(torch.arange(2), CPU)
    assert made.state_dict()["distances"].tolist() == [1, 1]
    made.draw(1)
    made._places = torch.tensor([0, 1, 0])
    made.learn(torch.tensor([3.0, 0.5, 2.0]))
    assert made.state_dict()["distances"].tolist() == [3, 0.5]
    made.admit(torch.tensor([1, 2]), CPU)
    assert made.state_dict()["distances"].tolist() == [3, 3, 3]
    made.reset()
    assert made.state_dict()["distances"].tolist() == [1, 1, 1]


def test_the_correction_grows_evenly_to_one_over_the_run() -> None:
    made = Priorities(0.6, 0.4, draws=4)
    made.admit(torch.arange(3), CPU)
    found = []
    for _ in range(6):
        found.append(made.beta)
        made.draw(1)
    assert found == pytest.approx([0.4, 0.55, 0.7, 0.85, 1.0, 1.0])


def test_a_distance_that_is_no_number_leaves_the_priority_and_is_named() -> None:
    made = priorities([1.0, 2.0, 3.0])
    made.draw(2)
    made._places = torch.tensor([2, 1])
    made.learn(torch.tensor([5.0, torch.nan]))
    assert made.state_dict()["distances"].tolist() == [1, 2, 5]
    made.draw(4)
    with pytest.raises(ValueError, match=r"replayed image 1: .* is not a number") as refusal:
        made.check()
    assert "\n" not in str(refusal.value)
    with pytest.raises(Diverged, match="replayed image 1"):
        BufferReplay(Reservoir(3, made), 2).remember(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("exponent", "correction"), [(-0.1, 0.4), (0.6, 1.5), (float("nan"), 0.4)])
def test_what_makes_no_sense_is_refused(exponent: float, correction: float) -> None:
    with pytest.raises(ValueError, match="exponent ≥ 0"):
        Priorities(exponent, correction)


@pytest.mark.parametrize("setting", ["replay.priority=-1", "replay.priority_correction=1.5", "replay.priority=.nan"])
def test_options_that_make_no_sense_are_refused_in_one_line(setting: str) -> None:
    with pytest.raises(UsageError, match=r"replay\.priority") as refusal:
        experiment("predfkd", setting, replay="reservoir")
    assert "\n" not in str(refusal.value)
    with pytest.raises(UsageError, match="priority"):
        experiment("predfkd", "replay.priority=0.5", replay="generative")


def test_a_batchs_weights_multiply_its_losses(student: nn.Module) -> None:
    student.eval()
    old, new = (Batch(torch.rand(n, 1, 8, 8), torch.randn(n, 10)) for n in (3, 4))
    weights = torch.tensor([0.5, 1.0, 0.1])
    for objective in (Objective(l1), SelfPaced(l1, age=3.0)):
        both = joined([new, old._replace(weights=weights)])
        assert both.first(5).weights.tolist() == [1, 1, 1, 1, 0.5]
        view = objective.view(student, both)
        own = objective.per_sample(view)
        if isinstance(objective, SelfPaced):
            own = own * objective._weighed(view)[0]
        wanted = (own * torch.cat([torch.ones(4), weights])).mean()
        torch.testing.assert_close(objective(student, both), wanted)


@pytest.mark.parametrize(("replay", "meta"), [*product(["memory", "reservoir", "pool"], [False, True])])
def test_a_step_teaches_how_far_apart_student_and_teacher_were(replay: str, meta: bool) -> None:
    room = ["replay.capacity=1024"] if replay == "reservoir" else []  # So that no new image takes a place just seen.
    built = experiment("predfkd", "replay.priority=0.6", *room, replay=replay, meta=meta, experiences=3)
    strategy = built.strategy
    (own,) = (plugin for plugin in strategy.plugins if isinstance(plugin, (BufferReplay, PoolReplay)))
    held = own.buffer.priorities if isinstance(own, BufferReplay) else own.pool.priorities
    assert held is not None
    taught: list[tuple[Any, Any]] = []
    learn = held.learn

    def learnt(distances: torch.Tensor) -> None:
        assert strategy.replayed is not None
        assert strategy.answered is not None
        assert strategy.replayed.weights is not None
        assert len(strategy.answered) == len(strategy.replayed.images) == len(distances)
        torch.testing.assert_close(distances, kl(strategy.answered, strategy.replayed.logits))
        if not meta:
            assert torch.equal(strategy.answered, strategy.mb_output[-len(distances) :])
        taught.append((distances, held._places))
        learn(distances)

    held.learn = learnt  # type: ignore[method-assign]
    strategy.train(built.stream)
    assert len(taught) == 4
    distances, places = taught[-1]
    state = held.state_dict()["distances"]
    for place in places.unique():
        assert state[place] <= state.max()
        assert (distances[places == place].double().max() - state[place]).abs() < 1e-6 or replay != "reservoir"


def test_buffers_draw_by_them_and_carry_them_on() -> None:
    for make in (lambda p: Ring(2, 3, p), lambda p: Reservoir(6, p)):
        one, other = make(Priorities(1.0)), make(Priorities(1.0))
        one.add(Batch(torch.rand(6, 1, 2, 2), torch.randn(6, 4)))
        one.priorities.draw(3)
        one.priorities._places = torch.tensor([0, 1, 2])
        one.priorities.learn(torch.tensor([0.0, 0.0, 1e9]))
        assert torch.equal(one.sample(20).images, one.images[2].expand(20, -1, -1, -1))
        other.load_state_dict(one.state_dict())
        assert torch.equal(other.sample(20).images, one.images[2].expand(20, -1, -1, -1))
        one.relabel(lambda images: torch.zeros(len(images), 7))
        assert one.priorities.state_dict()["distances"].unique().tolist() == [1]
    pool = ImagePool(PoolOptions(), Priorities(1.0))
    pool.add(torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8), torch.arange(5), 0)
    drawn, weights = pool.draw(4)
    assert weights is not None
    assert torch.equal(weights, torch.ones(4))
    assert len(drawn.images) == 4
