"""Classes as normal distributions of features, and what becomes of them as the model changes."""

import pytest
import torch

from lra.strategies.increment.head_fit import ClassFeatures

pytestmark = pytest.mark.kernels


def measured(ridge: float = 0.01) -> tuple[ClassFeatures, torch.Tensor]:
    """Features of classes 3 and 7, in three dimensions."""
    torch.manual_seed(0)
    features = torch.randn(40, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 2
    kept = ClassFeatures(ridge)
    kept.measure(features, torch.tensor([3, 7]).repeat(20))
    return kept, features


def test_mean_and_covariance_are_those_of_each_class() -> None:
    kept, features = measured()
    assert list(kept.known) == [3, 7]
    for label, first in ((3, 0), (7, 1)):
        own = features[first::2]
        assert torch.allclose(kept.known[label].mean, own.mean(0))
        apart = own - own.mean(0)
        assert torch.allclose(kept.known[label].covariance, apart.T @ apart / 19)


def test_an_affine_change_is_followed_exactly() -> None:
    kept, features = measured(ridge=1e-12)
    turn, shift = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    others = torch.randn(30, 3, dtype=torch.float64)
    kept.follow(others, others @ turn + shift)
    again = ClassFeatures()
    again.measure(features @ turn + shift, torch.tensor([3, 7]).repeat(20))
    for label in (3, 7):
        assert torch.allclose(kept.known[label].mean, again.known[label].mean, atol=1e-8)
        assert torch.allclose(kept.known[label].covariance, again.known[label].covariance, atol=1e-8)


def test_where_nothing_moves_nothing_is_moved() -> None:
    kept, _ = measured(ridge=10.0)
    before = dict(kept.known)
    others = torch.randn(30, 3, dtype=torch.float64)
    kept.follow(others, others)
    for label in (3, 7):
        assert torch.allclose(kept.known[label].mean, before[label].mean, atol=1e-12)
        assert torch.allclose(kept.known[label].covariance, before[label].covariance, atol=1e-12)


def test_a_firm_ridge_leaves_a_shift_and_counts_the_rest_as_spread() -> None:
    kept, _ = measured(ridge=1e12)
    before = dict(kept.known)
    others = torch.randn(30, 3, dtype=torch.float64)
    after = others @ torch.randn(3, 3, dtype=torch.float64)
    kept.follow(others, after)
    moved = after - others
    left = moved - moved.mean(0)
    for label in (3, 7):
        assert torch.allclose(kept.known[label].mean, before[label].mean + moved.mean(0), atol=1e-8)
        assert torch.allclose(kept.known[label].covariance, before[label].covariance + left.T @ left / 30, atol=1e-8)


def test_drawn_features_have_the_moments_of_their_class() -> None:
    kept, _ = measured()
    features, which = kept.drawing([7, 3])(50_000)
    assert which.tolist() == [0] * 50_000 + [1] * 50_000
    for index, label in enumerate([7, 3]):
        own, spread = features[which == index], kept.known[label]
        size = spread.covariance.diagonal().mean().sqrt()
        assert torch.allclose(own.mean(0), spread.mean, atol=0.02 * float(size))
        assert torch.allclose(torch.cov(own.T), spread.covariance, atol=0.05 * float(size) ** 2)


def test_fewer_images_than_dimensions_can_be_drawn_from() -> None:
    kept = ClassFeatures()
    kept.measure(torch.tensor([[0.0, 1, 0], [2.0, 1, 0]]), torch.tensor([0, 0]))
    features, _ = kept.drawing([0])(100)
    assert torch.allclose(features[:, 1:], torch.tensor([1.0, 0.0]).expand(100, 2), atol=1e-3)
    assert features[:, 0].std() > 1


def test_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="class 4 has a single image"):
        ClassFeatures().measure(torch.zeros(3, 2), torch.tensor([1, 4, 1]))
