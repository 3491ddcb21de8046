"""Triplets, channels, Gram, cross views: values, directions of gradients, degenerate batches."""

import math

import pytest
import torch
from torch.nn import functional as F

from lra.relations import (
    ChannelDistillation,
    TripletSampler,
    cross_view_nce,
    gram_masked,
    supervised_contrast,
    triplet_loss,
)

FOCAL = TripletSampler(low=0.5, high=1.0, floor=0.0)
"""RGAL's focal sampler ("balanced sampling" in its release)."""


def batch(n=24, d=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, dtype=torch.double, generator=generator),
        torch.randint(classes, (n,), generator=generator),
    )


@pytest.mark.parametrize("sampler", [TripletSampler(), FOCAL])
def test_every_ordered_pair_of_a_class_and_a_negative_of_another(sampler):
    vectors, labels = batch()
    found = sampler(vectors, labels)
    pairs = {(i, j) for i in range(24) for j in range(24) if i != j and labels[i] == labels[j]}
    assert len(found.anchors) == len(pairs)
    assert set(zip(found.anchors.tolist(), found.positives.tolist(), strict=True)) == pairs
    assert (labels[found.anchors] != labels[found.negatives]).all()


@pytest.mark.parametrize(("low", "high", "floor"), [(0.0, 1.4, 0.5), (0.5, 1.0, 0.0)])
def test_negatives_lie_in_the_window_where_there_are_any(low, high, floor):
    vectors, labels = batch(n=60, d=3)
    found = TripletSampler(low, high, floor)(vectors, labels)
    unit = F.normalize(vectors, dim=1)
    distance = torch.cdist(unit, unit).clamp_min(floor)
    inside = (distance > low) & (distance < high) & (labels[:, None] != labels)
    for anchor, negative in zip(found.anchors, found.negatives, strict=True):
        assert inside[anchor, negative] or not inside[anchor].any()
    anchors = found.anchors.unique()
    assert torch.isclose(found.fallback, (~inside[anchors].any(dim=1)).double().mean())


def test_weights_are_the_inverse_density_of_distances():
    angles = torch.tensor([0.0, 0.7, 1.0, 1.3], dtype=torch.double)
    vectors = torch.stack([angles.cos(), angles.sin(), angles * 0, angles * 0], dim=1)
    weights, empty = TripletSampler()._weights(vectors, torch.tensor([[0, 1, 1, 1]] * 4).bool())
    d = torch.cdist(vectors[:1], vectors)[0, 1:]
    expected = d**-2 * (1 - d**2 / 4) ** -0.5
    assert torch.allclose(weights[0, 1:], expected / expected.sum())
    assert not empty.any()


@pytest.mark.parametrize("swap", [False, True])
def test_training_moves_classes_as_asked(swap):
    torch.manual_seed(0)
    points, labels = batch(n=20, d=4, classes=2)
    points.requires_grad_(True)

    def distances():
        unit = F.normalize(points.detach(), dim=1)
        all_pairs, same = torch.cdist(unit, unit), labels[:, None] == labels
        return all_pairs[same].sum() / (same.sum() - 20), all_pairs[~same].mean()

    near, far = distances()
    optimiser = torch.optim.SGD([points], lr=0.3)
    for _ in range(60):
        loss = triplet_loss([points], TripletSampler()(points, labels), swap=swap)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    nearer, farther = distances()
    if swap:
        assert nearer > near
        assert farther < far
    else:
        assert nearer < near
        assert farther > far


def test_triplet_loss_by_hand_and_of_maps():
    vectors, labels = batch()
    found = TripletSampler()(vectors, labels)
    e = F.normalize(vectors, dim=1)
    a, p, n = e[found.anchors], e[found.positives], e[found.negatives]
    expected = ((a - p).norm(dim=1) - (a - n).norm(dim=1) + 0.2).clamp_min(0).mean()
    assert torch.isclose(triplet_loss([vectors], found), expected, atol=1e-5)
    maps = vectors[:, :, None, None].expand(-1, -1, 3, 2)
    assert torch.isclose(triplet_loss([vectors, maps], found), 2 * expected, atol=2e-5)


@pytest.mark.parametrize("sampler", [TripletSampler(), FOCAL])
@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 1, 2, 3], [0]])
def test_degenerate_batches_give_a_differentiable_zero(sampler, labels):
    points = torch.randn(len(labels), 4, requires_grad=True)
    found = sampler(points, torch.tensor(labels))
    loss = triplet_loss([points], found)
    assert loss == 0
    loss.backward()
    assert torch.equal(points.grad, torch.zeros_like(points))
    assert torch.isfinite(found.fallback)


@pytest.mark.parametrize("sampler", [TripletSampler(), FOCAL])
def test_two_classes_opposite_and_equal_vectors_are_finite(sampler):
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    found = sampler(vectors, torch.tensor([0, 0, 1, 1]))
    assert len(found.anchors) == 4
    loss = triplet_loss([vectors], found)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(vectors.grad).all()
    assert found.fallback == 1


def test_a_hundred_classes_do_not_underflow():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(64, 100, generator=generator)
    found = TripletSampler()(vectors, torch.randint(4, (64,), generator=generator))
    assert found.fallback < 1
    assert len(found.negatives)


def test_channel_distillation_is_the_distance_of_averages():
    torch.manual_seed(0)
    distil = ChannelDistillation([3], [5]).double()
    student, teacher = torch.randn(4, 3, 6, 5, dtype=torch.double), torch.randn(4, 5, 2, 2, dtype=torch.double)
    adapter = distil.adapters[0]
    adapted = adapter(student)
    assert adapted.shape == (4, 5, 6, 5)
    expected = ((adapted.mean(dim=(2, 3)) - teacher.mean(dim=(2, 3))) ** 2).mean()
    assert torch.isclose(distil([student], [teacher]), expected)
    distil([student], [teacher]).backward()
    assert adapter.weight.grad.abs().sum() > 0


def test_gram_weighs_the_least_correlated_channels_most():
    torch.manual_seed(0)
    teacher = torch.rand(3, 4, 5, 5, dtype=torch.double)
    assert gram_masked([teacher], [teacher]) == 0
    flat = teacher.flatten(2)
    rows = (flat @ flat.transpose(1, 2)).sum(dim=2)
    weights = 1 - (rows - rows.min()) / (rows.max() - rows.min()) + 1e-3
    expected = weights.mean()
    assert torch.isclose(gram_masked([teacher + 1], [teacher]), expected)
    with pytest.raises(ValueError, match="equal sizes"):
        gram_masked([teacher[:, :, :4]], [teacher])
    assert torch.isfinite(gram_masked([teacher * 0], [torch.zeros_like(teacher)]))


@pytest.mark.parametrize("banked", [0, 7])
def test_cross_view_by_hand(banked):
    torch.manual_seed(0)
    n, d, tau = 5, 6, 0.3
    local = F.normalize(torch.randn(n + banked, d, dtype=torch.double), dim=1).requires_grad_(True)
    whole = F.normalize(torch.randn(n + banked, d, dtype=torch.double), dim=1).requires_grad_(True)
    losses = [
        -math.log(math.exp(row[i] / tau) / sum(math.exp(v / tau) for v in row))
        for i, row in enumerate((local @ whole.T).tolist())
    ]
    expected = sum(losses[:n]) / n + (sum(losses[n:]) / banked if banked else 0)
    loss = cross_view_nce(local, whole, n, tau)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert local.grad.abs().sum() > 0
    assert whole.grad is None


def test_cross_view_is_least_on_the_diagonal():
    views = torch.eye(6, dtype=torch.double)
    assert cross_view_nce(views, views, 6, 0.1) < 1e-3
    assert cross_view_nce(views, views.roll(1, 0), 6, 0.1) > 5


@pytest.mark.parametrize("tau", [0.005, 0.1, 3.0])
def test_cross_view_is_the_cross_entropy_of_scores_with_its_gradient(tau):
    torch.manual_seed(0)
    local = F.normalize(torch.randn(9, 4, dtype=torch.double), dim=1).requires_grad_(True)
    whole = F.normalize(torch.randn(9, 4, dtype=torch.double), dim=1)
    losses = F.cross_entropy(local @ whole.T / tau, torch.arange(9), reduction="none")
    expected = losses[:3].mean() + losses[3:].mean()
    found = cross_view_nce(local, whole, 3, tau)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, local)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_supervised_contrast_by_hand():
    torch.manual_seed(0)
    labels, tau = torch.tensor([0, 1, 0, 2]), 0.3
    views = [F.normalize(torch.randn(4, 5, dtype=torch.double), dim=1).requires_grad_(True) for _ in range(2)]
    rows, classes = torch.cat(views).tolist(), labels.repeat(2).tolist()
    scores = [[sum(a * b for a, b in zip(x, y, strict=True)) / tau for y in rows] for x in rows]
    losses = []
    for i in range(8):
        others = math.log(sum(math.exp(scores[i][a]) for a in range(8) if a != i))
        alike = [p for p in range(8) if p != i and classes[p] == classes[i]]
        losses.append(sum(others - scores[i][p] for p in alike) / len(alike))
    loss = supervised_contrast(*views, labels, tau)
    assert loss.item() == pytest.approx(sum(losses) / 8)
    loss.backward()
    assert all(torch.isfinite(view.grad).all() and view.grad.abs().sum() > 0 for view in views)


def test_supervised_contrast_of_one_image_a_class_is_the_contrast_of_two_views():
    torch.manual_seed(0)
    first, second = (F.normalize(torch.randn(6, 5, dtype=torch.double), dim=1) for _ in range(2))
    rows = torch.cat([first, second])
    scores = (rows @ rows.T / 0.07).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(scores, torch.arange(12).roll(6))
    assert torch.isclose(supervised_contrast(first, second, torch.arange(6), 0.07), expected)
