"""Published strategies of class increments without data: their terms, and what they do in Avalanche."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from avalanche.models import IncrementalClassifier
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional as F

from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.benchmark import ClassIncrementalProtocol, split
from lra.strategies.increment.fecam import FeCAMPlugin, NearestClass, correlation, shrunk
from lra.strategies.increment.head_fit import Spread
from lra.strategies.increment.options import FeCAMOptions
from lra.strategies.increment.plugins import StopAfter


def shades(n: int) -> tuple[Tensor, Tensor]:
    """Noisy images of four classes: bright in one quarter each."""
    classes = torch.arange(4).repeat(n)
    images = 0.3 * torch.rand(4 * n, 1, 8, 8)
    for image, label in zip(images, classes.tolist(), strict=True):
        image[0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 0.7
    return images, classes


@pytest.fixture
def benchmark() -> CLScenario:
    """Two experiences of two classes."""
    torch.manual_seed(0)
    return split(shades(30), shades(20), [2, 0, 3, 1], 2)


def network(head: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(1)
    body = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)]
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), head or IncrementalClassifier(32, 2))


def learner(model: nn.Module, plugins: list[Any], steps: int = 8, evaluator: Any = None) -> Naive:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Naive(
        model=model,
        optimizer=optimiser,
        train_mb_size=16,
        train_epochs=steps,
        plugins=[*plugins, StopAfter(steps)],
        evaluator=evaluator or QuietEvaluation(),
    )


def test_equal_covariances_make_fecam_the_nearest_unit_mean() -> None:
    torch.manual_seed(0)
    told = NearestClass(FeCAMOptions())
    means = torch.rand(3, 5, dtype=torch.float64)
    told.features.known = {
        label: Spread(mean, torch.eye(5, dtype=torch.float64)) for label, mean in zip((4, 0, 7), means, strict=True)
    }
    features = torch.rand(6, 5, dtype=torch.float64)
    near = torch.cdist(F.normalize(features.sqrt(), dim=1), F.normalize(means[[1, 0, 2]], dim=1)).square()
    assert told.classes() == [0, 4, 7]
    assert torch.allclose(told.distances(features), near)


def test_a_covariance_is_shrunk_to_the_means_of_its_kinds() -> None:
    covariance = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 3.0], [0.0, 3.0, 6.0]])
    # The diagonal's mean is 4; what is not 0 beside it has the mean 2.
    expected = torch.tensor([[6.0, 2.0, 1.0], [2.0, 4.0, 4.0], [1.0, 4.0, 8.0]])
    assert torch.allclose(shrunk(covariance, 0.5), expected)
    assert torch.allclose(shrunk(torch.tensor([[3.0]]), 1.0), torch.tensor([[6.0]])), "nothing beside a single one"


def test_a_correlation_has_ones_and_no_scale() -> None:
    torch.manual_seed(0)
    covariance = torch.cov(torch.randn(4, 20, dtype=torch.float64))
    found = correlation(covariance)
    scale = torch.tensor([1.0, 3.0, 0.1, 7.0], dtype=torch.float64)
    assert torch.allclose(found.diagonal(), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(correlation(covariance * scale[:, None] * scale), found)


@pytest.mark.parametrize("prototype", ["mean-of-roots", "root-of-mean"])
def test_the_distance_is_the_formulas(prototype: Any) -> None:
    torch.manual_seed(0)
    told, features = NearestClass(FeCAMOptions(fecam_prototype=prototype)), torch.rand(12, 3, dtype=torch.float64)
    told.measure(features, torch.tensor([1, 0]).repeat(6))
    asked = torch.rand(2, 3, dtype=torch.float64)
    for column, label in enumerate((0, 1)):
        own = features[1 - label :: 2]
        s = torch.cov(own.sqrt().T)
        for _ in range(2):
            beside = [s[i, j] for i in range(3) for j in range(3) if i != j]
            s = s + s.trace() / 3 * torch.eye(3) + sum(beside) / 6 * (1 - torch.eye(3))
        r = torch.stack([torch.stack([s[i, j] / (s[i, i] * s[j, j]).sqrt() for j in range(3)]) for i in range(3)])
        mean = own.sqrt().mean(0) if prototype == "mean-of-roots" else own.mean(0).sqrt()
        for row, x in enumerate(asked.sqrt()):
            apart = x / x.norm() - mean / mean.norm()
            assert torch.allclose(told.distances(asked)[row, column], apart @ torch.linalg.inv(r) @ apart)


def test_fecam_refuses_what_has_no_root_or_no_correlation() -> None:
    told = NearestClass(FeCAMOptions())
    with pytest.raises(ValueError, match="fecam_power=1"):
        told.measure(torch.tensor([[1.0, -0.5], [1.0, 2.0]]), torch.tensor([0, 0]))
    NearestClass(FeCAMOptions(fecam_power=1)).measure(torch.tensor([[1.0, -0.5], [1.0, 2.0]]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="class 3 has a single image"):
        told.measure(torch.rand(3, 2), torch.tensor([0, 3, 0]))
    with pytest.raises(ValueError, match="class 5 have the same features"):
        told.measure(torch.ones(4, 2), torch.full((4,), 5))


@pytest.mark.parametrize("head", [lambda: nn.Linear(32, 4), lambda: IncrementalClassifier(32, 2)])
def test_fecam_trains_once_and_answers_for_all_classes(benchmark: CLScenario, head: Callable[[], nn.Module]) -> None:
    plugin, protocol = FeCAMPlugin(), ClassIncrementalProtocol()
    strategy = learner(network(head()), [plugin], 30, protocol.evaluator)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    body = copy.deepcopy(strategy.model[:-1].state_dict())
    steps = strategy.clock.train_iterations
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    assert strategy.clock.train_iterations == steps == 30
    assert all(torch.equal(value, body[name]) for name, value in strategy.model[:-1].state_dict().items())
    assert plugin.class_statistics == 4 * (32 + 32**2)
    strategy.eval(benchmark.test_stream)
    # Classes of quarters that the backbone never saw are told too; by chance it would be 25 %.
    assert all(value > 0.6 for value in protocol._matrix.result()[1].tolist())
