"""Self-paced weights, ramps and clocks; ring negatives, InfoNCE and attention; what their state carries."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distances import l1
from lra.distillation.objective import Objective, SelfPaced, ramp, ring_hardness, self_paced_weights
from lra.distillation.terms import AttentionTransfer, InfoNCE, attention
from lra.features import feature_size, pooled
from lra.problem import Batch, Teacher
from lra.strategies.checkpoint import capture, restore
from lra.strategies.plugins import EpochClock, StepClock
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream
from lra.synthesis.terms import RingNCE, total
from lra.view import Quantity, StudentView, View

IMAGE = (1, 8, 8)


def network(width: int, seed: int) -> nn.Module:
    """Two stages of maps, then ``width`` features and 4 logits."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 4),
    )


@pytest.mark.parametrize("form", ["hard", "soft", "log"])
def test_weights_lie_between_zero_and_one_fall_with_loss_and_rise_with_age(form: Any) -> None:
    losses = torch.linspace(0.01, 6, 50, dtype=torch.double)
    young, old = (self_paced_weights(losses, age, form) for age in (1.0, 2.0))
    assert ((young >= 0) & (young <= 1)).all()
    assert (young.diff() <= 0).all()
    assert (old >= young).all()
    if form == "log":
        assert (young > 0).all()
        assert (young.diff() < 0).all()


def test_weights_at_their_marks() -> None:
    zero_and_age = torch.tensor([0.0, 2.0], dtype=torch.double)
    wanted = torch.tensor([1.0, (1 + math.exp(-2)) / 2], dtype=torch.double)
    torch.testing.assert_close(self_paced_weights(zero_and_age, 2.0, "log"), wanted)
    assert self_paced_weights(zero_and_age, 2.0, "hard").tolist() == [1, 0]
    assert self_paced_weights(torch.tensor([0.5]), 2.0, "soft").item() == 0.75
    assert self_paced_weights(torch.tensor([1e30]), 2.0, "log").item() == 0
    assert self_paced_weights(zero_and_age, 0.0, "soft").tolist() == [0, 0]


def answering(logits: Tensor) -> StudentView:
    """A view of a student that answers so; the teacher answers 0."""
    batch = Batch(torch.zeros(len(logits), 1, 1, 1), torch.zeros(len(logits), 2))
    return StudentView(batch, nn.Identity(), forward=lambda images: logits)


def test_no_gradient_goes_through_a_weight() -> None:
    logits = torch.tensor([[1.0, 0.0], [3.0, 0.0]], requires_grad=True)
    SelfPaced(l1, age=1.0).loss(answering(logits)).backward()
    weights = self_paced_weights(torch.tensor([0.5, 1.5]), 1.0, "log")
    torch.testing.assert_close(logits.grad[:, 0], weights / 4)


def test_a_sample_and_a_batch_are_weighed_alike_where_losses_are_equal() -> None:
    equal, mixed = answering(torch.ones(3, 2)), answering(torch.tensor([[0.0, 0], [1, 1], [4, 4]]))
    by_sample, by_batch = SelfPaced(l1), SelfPaced(l1, granularity="batch")
    torch.testing.assert_close(by_sample.loss(equal), by_batch.loss(equal))
    assert by_sample.loss(mixed) < by_batch.loss(mixed)


def test_difficulty_is_the_mean_loss_of_what_counts() -> None:
    parts = SelfPaced(l1, age=2.0, form="hard").parts(answering(torch.tensor([[0.0, 0], [1, 1], [4, 4]])))
    assert {name: value.item() for name, value in parts.items()} == {
        "distance": pytest.approx(5 / 3),
        "self_paced_weight": pytest.approx(2 / 3),
        "difficulty": pytest.approx(1 / 2),
    }


def test_the_ramp_of_the_published_cell() -> None:
    values = {e: ramp(e, 250, 0.0, 0.5, 0.25, 0.75) for e in (0, 62, 63, 186, 187, 249)}
    assert values == {0: 0, 62: 0, 63: 0.5, 186: 62, 187: 62.5, 249: 62.5}
    assert ramp(1, 2, 1.0, 0.0, 0.25, 0.75) == 1


def test_the_hardness_of_a_ring_rises_from_zero_to_what_the_ring_leaves() -> None:
    hardness = [ring_hardness(e, 100, 0.8, 0.2, 0.7) for e in range(101)]
    assert hardness[:21] == [0] * 21
    assert hardness[21] == pytest.approx(0.2 / 50)
    assert hardness[70:] == pytest.approx([0.2] * 31)
    assert ring_hardness(1, 1, 0.8, 0.25, 0.75) <= 0.2


def ring(size: int = 10, features: int = 6, **options: Any) -> RingNCE:
    torch.manual_seed(0)
    return RingNCE(1.0, size, features, nn.Identity(), **options)


@pytest.mark.parametrize(("hardness", "kept"), [(0.0, range(0, 8)), (0.1, range(1, 9)), (0.2, range(2, 10))])
def test_a_ring_keeps_its_size_and_slides_over_the_ranks(hardness: float, kept: range) -> None:
    similarities = torch.randn(3, 10)
    found = ring(length=0.8)
    found.hardness = hardness
    assert torch.equal(found.ring(similarities), similarities.sort(dim=1).values[:, list(kept)])


def test_the_ring_loss_has_its_closed_form() -> None:
    found = ring(length=0.5, temperature=0.5)
    q, k = (F.normalize(torch.randn(3, 6), dim=1) for _ in range(2))
    negatives = (q @ found.queue.rows.T).sort(dim=1).values[:, :5]
    positive = (q * k).sum(dim=1)
    wanted = -(positive / 0.5) + torch.cat([positive[:, None], negatives], dim=1).div(0.5).exp().sum(dim=1).log()
    torch.testing.assert_close(found.loss(q, k), wanted.mean())


def test_the_ring_reaches_images_through_the_teacher_and_queues_student_features() -> None:
    teacher, student = Teacher(network(6, 0)), network(6, 1)
    found = ring(size=10)
    batches = [torch.rand(4, *IMAGE, requires_grad=True) for _ in range(3)]
    for images in batches:
        loss, _ = total([found], View(images, teacher, student))
        gradient = torch.autograd.grad(loss, images)[0]
        assert gradient.any()
    keys = [F.normalize(pooled(student[:6](images)), dim=1).detach() for images in batches]
    everything = torch.cat(keys)
    torch.testing.assert_close(found.queue.rows[:2], everything[10:])
    torch.testing.assert_close(found.queue.rows[2:], everything[2:10])
    deaf = Teacher(nn.Sequential(network(6, 0)[:5], nn.Flatten(), nn.Linear(6, 4)))
    for p in student.parameters():
        assert p.grad is None
    with torch.no_grad():
        deaf.network[0][2].weight.zero_()
    loss, _ = total([found], View(batches[0], deaf, student))
    assert not torch.autograd.grad(loss, batches[0])[0].any(), "none comes through the student"


def test_the_queue_and_its_place_are_carried_over() -> None:
    first, second = ring(size=10), ring(size=10)
    first.queue.add(torch.randn(7, 6))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for found in (first, second):
        found.queue.add(torch.ones(4, 6))
    assert torch.equal(first.queue.rows, second.queue.rows)
    assert torch.equal(first.queue.rows[0], torch.ones(6))


def test_a_batch_larger_than_the_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        total([ring(size=3)], View(torch.rand(4, *IMAGE), Teacher(network(6, 0)), network(6, 1)))


def seen(student: nn.Module, teacher: Teacher, *wanted: Quantity, beside: int = 0) -> StudentView:
    images, others = torch.rand(5, *IMAGE), torch.rand(beside, *IMAGE)
    batch = Batch(images, teacher.label(images))
    return StudentView(batch, student, teacher, lambda x: student(torch.cat([x, others]))[: len(x)]).watching({*wanted})


def test_info_nce_is_a_choice_among_the_batch() -> None:
    teacher, student = Teacher(network(6, 0)), network(3, 1)
    term = InfoNCE(1.0, project := nn.Linear(3, 6), temperature=0.2)
    view = seen(student, teacher, *term.needs)
    found = term(view)
    t = F.normalize(teacher.network[:6](view.images), dim=1)
    s = F.normalize(project(student[:6](view.images)), dim=1)
    torch.testing.assert_close(found, -(t @ s.T / 0.2).log_softmax(dim=1).diagonal())
    found.mean().backward()
    assert project.weight.grad is not None
    assert student[0].weight.grad is not None


def test_attention_transfer_compares_where_both_look() -> None:
    teacher, student = Teacher(network(6, 0)), network(3, 1)
    term = AttentionTransfer(1.0)
    view = seen(student, teacher, *term.needs)
    found = term(view)
    pairs = [(student[:cut](view.images), teacher.network[:cut](view.images)) for cut in (2, 4)]
    wanted = sum(((attention(s) - attention(t)) ** 2).mean(dim=1) for s, t in pairs)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(attention(pairs[0][0]).norm(dim=1), torch.ones(5))


def test_a_view_asks_the_teacher_once_and_keeps_to_its_own_images_and_pass() -> None:
    teacher, student = Teacher(network(6, 0)), network(3, 1)
    view = seen(student, teacher, "features", "student_features", beside=2)
    before = teacher.queries
    assert view.teacher_features is not None
    assert view.teacher_features.shape == (5, 6)
    assert teacher.queries == before + 5
    own = view.student_features
    student(torch.rand(2, *IMAGE))
    assert torch.equal(view.student_features, own)
    assert len(own) == 5
    torch.testing.assert_close(own, student[:6](view.images))
    assert not any(module._forward_hooks for module in [*student.modules(), *teacher.modules()])
    broken = Batch(torch.full_like(view.images, torch.nan), view.batch.logits)
    seen_broken = StudentView(broken, student, teacher).watching({"student_features"})
    assert seen_broken.student_features.isnan().any(), "for the guard against divergence to find"
    assert feature_size(student, IMAGE) == 3


def test_who_compares_features_of_a_teacher_needs_one() -> None:
    batch = Batch(torch.rand(2, *IMAGE), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="give the objective the teacher"):
        Objective(l1, [AttentionTransfer(1.0)])(network(3, 1), batch)


def test_clocks_count_steps_and_epochs_and_go_on_after_a_restart(
    make_stream: Callable[..., SynthesisStream],
    make_strategy: Callable[..., DataFreeDistillation],
    student: nn.Module,
) -> None:
    steps: list[int] = []
    epochs: list[int] = []
    clocks = [StepClock(steps.append), EpochClock(epochs.append, 2)]
    strategy, stream = make_strategy(student, plugins=clocks), make_stream(length=5, steps=2)
    strategy.train(stream)
    assert steps == list(range(11))
    assert epochs == [0, 1, 2]
    again = [StepClock(steps.append), EpochClock(epochs.append, 2)]
    other, longer = make_strategy(student, plugins=again), make_stream(length=6, steps=2)
    restore(capture(strategy, stream), other, longer)
    other.train(longer)
    assert steps[-4:] == [0, 10, 11, 12]
    assert epochs[-3:] == [0, 2, 3], "the fifth experience was half an epoch"
