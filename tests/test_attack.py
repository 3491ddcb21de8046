"""The hard loss and the adversarial-example attack: swaps, budgets, what the network learns."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distillation.attack import Attacker, PerturbationNetwork, exchange
from lra.distillation.terms import HardLabel
from lra.options import AttackOptions
from lra.problem import Batch, Problem, Teacher
from lra.view import StudentView

PROBLEM = Problem((1, 8, 8), 3, (0.4,), (0.25,))


def batch(logits: list[list[float]], level: float) -> Batch:
    return Batch(torch.full((len(logits), 1, 2, 2), level), torch.tensor(logits))


# Surer in the same class; surer in another; less sure.
CLEAN = batch([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], 0.0)
ATTACKED = batch([[3.0, 0.0], [0.0, 3.0], [1.0, 0.0], [3.0, 0.0]], 1.0)
CHOSEN = torch.tensor([False, True, False, True])


@pytest.mark.parametrize(
    ("swap", "levels", "swapped"),
    [("exchange", [1, 1, 0, 0], 2), ("copy", [1, 1, 0, 1], 2), ("none", [0, 1, 0, 1], 0)],
)
def test_a_swap_and_then_an_attack(swap: str, levels: list[int], swapped: int) -> None:
    result = exchange(CLEAN, ATTACKED, CHOSEN, swap)
    assert result.batch.images.amax(dim=(1, 2, 3)).tolist() == levels
    expected = [(ATTACKED if level else CLEAN).logits[i].tolist() for i, level in enumerate(levels)]
    assert result.batch.logits.tolist() == expected
    assert (result.swapped, result.attacked) == (swapped, 2)


def teacher() -> Teacher:
    torch.manual_seed(4)
    return Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3)))


def attacker(**options) -> Attacker:
    torch.manual_seed(5)
    network = PerturbationNetwork(1, 8, width=4, blocks=1)
    return Attacker(network, teacher(), PROBLEM, AttackOptions(**options), lambda images: images)


def test_the_perturbation_keeps_its_budget_and_the_image_its_range() -> None:
    made = attacker(budget=0.07)
    images = torch.rand(6, 1, 8, 8)
    made.network.layers[-2].weight.data.mul_(100)
    found = made.perturbed(images)
    assert (found - images).abs().max().item() <= 0.07 + 1e-6
    assert (found - images).abs().max().item() > 0.06
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_released_perturbation_is_always_brighter_and_cut_to_the_batch() -> None:
    made = attacker(delta="released")
    images = torch.rand(6, 1, 8, 8) * 0.5
    found = made.perturbed(images)
    assert (found >= images - 1e-6).all()
    assert found.max().item() <= images.max().item() + 1e-6


def test_learning_misleads_the_teacher_and_counts_its_queries() -> None:
    made = attacker(budget=0.5, lr=0.01, floor=1e-3)
    images = torch.rand(32, 1, 8, 8)
    clean = made.teacher.label(images)
    target = clean.argmin(dim=1)
    before = F.cross_entropy(made.attack(images).logits, target)
    asked = made.teacher.queries
    for _ in range(40):
        made.learn(images, clean)
    assert made.teacher.queries == asked + 40 * 32
    assert F.cross_entropy(made.attack(images).logits, target) < before - 0.1


def test_below_the_floor_nothing_more_is_learnt() -> None:
    made = attacker(floor=100.0)
    images = torch.rand(8, 1, 8, 8)
    before = [p.clone() for p in made.network.parameters()]
    made.learn(images, made.teacher.label(images))
    assert all(torch.equal(a, b) for a, b in zip(before, made.network.parameters(), strict=True))


def test_without_swaps_only_chosen_images_are_attacked_and_paid_for() -> None:
    images = torch.rand(64, 1, 8, 8)
    for probability, attacked in ((0.0, 0), (1.0, 64)):
        made = attacker(swap="none", probability=probability)
        made.teacher.queries = 0
        clean = Batch(images, made.teacher.network(images))
        result = made.applied(clean)
        assert (result.attacked, made.teacher.queries) == (attacked, attacked)
        assert torch.equal(result.batch.images, images) == (attacked == 0)
    assert torch.equal(clean.images, images), "the batch it was given is left alone"


def test_perturbations_have_the_size_of_the_image() -> None:
    for side in (8, 10, 13, 28):
        assert PerturbationNetwork(3, side, width=4, blocks=1)(torch.rand(2, 3, side, side)).shape == (2, 3, side, side)
    with pytest.raises(ValueError, match="8x8"):
        PerturbationNetwork(1, 7)


def test_the_published_size_of_the_perturbation_network() -> None:
    assert sum(p.numel() for p in PerturbationNetwork(3, 32).parameters()) == 7_841_411


def test_hard_labels_are_the_teachers_unless_told_otherwise() -> None:
    term, logits = HardLabel(1.0), torch.randn(3, 2)

    def loss(batch: Batch) -> Tensor:
        return term(StudentView(batch, nn.Identity(), forward=lambda images: logits[: len(images)]))

    clean = Batch(torch.rand(3, 1, 2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    assert torch.allclose(loss(clean), F.cross_entropy(logits, torch.tensor([0, 1, 0]), reduction="none"))
    told = torch.tensor([1, 1, 1])
    labelled = clean._replace(labels=told)
    assert torch.allclose(loss(labelled), F.cross_entropy(logits, told, reduction="none"))
    part = labelled.first(2)
    assert torch.allclose(loss(part), F.cross_entropy(logits[:2], told[:2], reduction="none"))
    same = Batch(clean.images.clone(), clean.logits)
    assert torch.allclose(loss(same), F.cross_entropy(logits, torch.tensor([0, 1, 0]), reduction="none"))
