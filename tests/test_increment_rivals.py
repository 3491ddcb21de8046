"""Published strategies of class increments without data: their terms, and what they do in Avalanche."""

import copy
import itertools
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario, class_incremental_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from lra.distances import kl, local_cross_entropy, soft_cross_entropy, through_head
from lra.relations import RelationalAngle, angles
from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.abd import ABDPlugin
from lra.strategies.increment.benchmark import ClassIncrementalProtocol, split
from lra.strategies.increment.datafree import DataFreeReplayPlugin
from lra.strategies.increment.deepinversion import DeepInversionPlugin
from lra.strategies.increment.fecam import FeCAMPlugin, NearestClass, correlation, shrunk
from lra.strategies.increment.head_fit import Spread
from lra.strategies.increment.inversion import InversionPlugin
from lra.strategies.increment.lwf_mc import LwFMCPlugin
from lra.strategies.increment.options import (
    ABDOptions,
    DataFreeReplayOptions,
    DeepInversionLwFOptions,
    DeepInversionOptions,
    FeCAMOptions,
    RDFCILOptions,
)
from lra.strategies.increment.parts import balanced_weights, by_share
from lra.strategies.increment.plugins import StopAfter
from lra.strategies.increment.rdfcil import RDFCILPlugin, adaptive
from lra.strategies.stream import with_classes

QUICK: dict[str, Any] = {"generator_steps": 3, "generator_batch": 8}


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


def test_a_local_cross_entropy_leaves_other_classes_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 4, 4, 3, 1, 3])
    found = local_cross_entropy(logits, labels, [1, 3, 4])
    expected = [logits[i, [1, 3, 4]].exp().sum().log() - logits[i, label] for i, label in enumerate(labels.tolist())]
    assert torch.allclose(found, torch.stack(expected))
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[:, [0, 2]].eq(0).all()
    assert gradient[:, [1, 3, 4]].ne(0).all()


def test_a_soft_cross_entropy_is_the_divergence_and_the_entropy() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    p = (teacher / 2).softmax(dim=1)
    entropy = -(p * p.log()).sum(dim=1)
    assert torch.allclose(soft_cross_entropy(student, teacher, 2.0), kl(student, teacher, 2.0) / 4 + entropy)


def test_through_a_head_only_what_it_looks_at_counts() -> None:
    torch.manual_seed(0)
    features, reference = torch.randn(2, 4, 5, dtype=torch.float64)
    head = torch.randn(2, 5, dtype=torch.float64)
    found = through_head(features, reference, head)
    by_class = [(features @ w - reference @ w).square() for w in head]
    assert torch.allclose(found, (by_class[0] + by_class[1]) / 2)
    assert torch.equal(through_head(features, features, head), torch.zeros(4, dtype=torch.float64))
    blind = torch.linalg.svd(head)[2][2:]  # orthogonal to both rows
    assert torch.allclose(through_head(features + 3 * blind[0] - blind[2], reference, head), found)


def test_sigmoids_of_old_classes_are_the_old_models(benchmark: CLScenario) -> None:
    plugin = LwFMCPlugin()
    strategy = learner(network(nn.Linear(32, 4)), [plugin], 1)
    losses: list[tuple[Tensor, Tensor]] = []

    class Check(SupervisedPlugin):
        def after_backward(self, strategy: Any, **kwargs: object) -> None:
            old, new = plugin.classes, strategy.experience.classes_in_this_experience
            expected = torch.zeros(())
            for logits, label, image in zip(strategy.mb_output, strategy.mb_y, strategy.mb_x, strict=True):
                for k in new:
                    sign = 1 if k == label else -1
                    expected = expected - F.logsigmoid(sign * logits[k])
                for k in old:
                    assert plugin.old is not None
                    p = plugin.old(image[None])[0, k].sigmoid()
                    expected = expected - p * F.logsigmoid(logits[k]) - (1 - p) * F.logsigmoid(-logits[k])
            losses.append((strategy.loss.detach().squeeze(), expected.detach() / len(strategy.mb_x)))

    strategy.plugins.append(Check())
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    assert len(losses) == 2
    for found, expected in losses:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert plugin.old is None
    headed = nn.Sequential(nn.Flatten(), MultiHeadClassifier(64))
    with pytest.raises(ValueError, match="LwFMCPlugin needs a model with a single head"):
        plugin.before_training(types.SimpleNamespace(model=headed))  # type: ignore[arg-type]


def opened(plugin: InversionPlugin, benchmark: CLScenario) -> Naive:
    """A strategy with ``plugin``, right before the loss of a step of the second experience."""
    strategy = learner(network(nn.Linear(32, 4)), [plugin], 1)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    strategy.experience = benchmark.train_stream[1]
    plugin.before_training_exp(strategy)
    images, labels = shades(3)
    kept = [label in plugin.new for label in labels.tolist()]
    strategy.mbatch = [images[kept], labels[kept], torch.zeros(sum(kept), dtype=torch.long)]
    strategy.model.train()
    plugin.before_training_iteration(strategy)
    return strategy


def passed(strategy: Naive) -> tuple[Tensor, Tensor]:
    """Penultimate features and logits of the minibatch."""
    features = strategy.model[:-1](strategy.mb_x)
    return features, strategy.model[-1](features)


def test_deepinversions_loss_is_its_box(benchmark: CLScenario) -> None:
    plugin = DeepInversionPlugin(DeepInversionOptions(**QUICK, deepinversion_weight=0.7, deepinversion_temperature=3))
    strategy = opened(plugin, benchmark)
    assert plugin.classes == [0, 2]
    assert plugin.new == [1, 3]
    assert len(strategy.mb_x) == 12
    features, logits = passed(strategy)
    with torch.no_grad():
        assert plugin.old is not None
        old = (plugin.old(strategy.mb_x)[:, [0, 2]] / 3).softmax(dim=1)
    on_real = -(old[:6] * (logits[:6, [0, 2]] / 3).log_softmax(dim=1)).sum() / 6
    on_synthetic = -(old[6:] * (logits[6:] / 3).log_softmax(dim=1)[:, [0, 2]]).sum() / 6
    expected = F.cross_entropy(logits[:6], strategy.mb_y[:6]) + 0.7 * (on_real + on_synthetic)
    torch.testing.assert_close(plugin.loss(strategy, logits, features), expected)


def test_deepinversions_other_form_knows_no_new_class_on_its_images(benchmark: CLScenario) -> None:
    plugin = DeepInversionPlugin(DeepInversionLwFOptions.model_validate(QUICK))
    strategy = opened(plugin, benchmark)
    features, logits = passed(strategy)
    with torch.no_grad():
        assert plugin.old is not None
        old = (plugin.old(strategy.mb_x)[:, [0, 2]] / 2).softmax(dim=1)
    each = -(old * (logits[:, [0, 2]] / 2).log_softmax(dim=1)).sum(dim=1)
    expected = F.cross_entropy(logits[:6], strategy.mb_y[:6]) + 0.1 * (each[:6].mean() + each[6:].mean())
    torch.testing.assert_close(plugin.loss(strategy, logits, features), expected)


def test_abds_loss_is_its_box(benchmark: CLScenario) -> None:
    plugin = ABDPlugin(ABDOptions(**QUICK, distil_importance=0.4))
    strategy = opened(plugin, benchmark)
    plugin.classes, plugin.new = [0], [1, 3]  # one old class, so that the two groups weigh differently
    assert plugin.replayed is not None
    plugin.replayed = plugin.replayed._replace(logits=plugin.replayed.logits[:, :1])
    images, labels, tasks = strategy.mbatch
    strategy.mbatch = [images, torch.cat([labels[:6], labels.new_zeros(6)]), tasks]
    features, logits = passed(strategy)
    with torch.no_grad():
        assert plugin.old is not None
        before = plugin.old[:-1](strategy.mb_x)
        w = plugin.old[-1].weight[0]
    local = F.cross_entropy(logits[:6, [1, 3]], (strategy.mb_y[:6] == 3).long())
    index = torch.tensor([{0: 0, 1: 1, 3: 2}[int(y)] for y in strategy.mb_y])
    each = F.cross_entropy(strategy.model[-1](features.detach())[:, [0, 1, 3]], index, reduction="none")
    overall = (2 / 3 * each[:6].sum() + 1 / 3 * each[6:].sum()) / 12
    kept = ((features - before) @ w).square().mean()
    found = plugin.loss(strategy, logits, features)
    torch.testing.assert_close(found, 2 / 3 * local + overall + 0.4 * kept)
    (through_body,) = torch.autograd.grad(found, [features], retain_graph=True)
    expected = torch.autograd.grad(2 / 3 * local + 0.4 * kept, [features])[0]
    torch.testing.assert_close(through_body, expected)


@pytest.mark.parametrize("kind", [DeepInversionPlugin, ABDPlugin])
def test_the_generator_lives_on_and_the_old_model_does_not(kind: type[InversionPlugin], benchmark: CLScenario) -> None:
    torch.manual_seed(0)
    parts = split(shades(20), shades(5), [2, 0, 3, 1], 4)
    plugin = kind(kind.published(**QUICK))
    strategy, seen = learner(network(), [plugin], 2), []
    for experience in parts.train_stream:
        strategy.train(experience, eval_streams=[])
        seen.append(plugin.inversion)
        assert plugin.old is None
        assert plugin.replayed is None
    assert seen[0] is None
    assert seen[1] is seen[2] is seen[3] is not None
    assert plugin.generator_steps == 9
    (steps,) = {int(state["step"]) for state in seen[3].optimiser.state.values()}
    assert steps == 9, "nor does its optimiser begin anew"
    again = kind(kind.published(**QUICK))
    again.load_state_dict(plugin.state_dict())
    assert again.classes == [0, 1, 2, 3]
    assert again.mean == plugin.mean
    images = torch.stack([image for image, *_ in parts.train_stream[0].dataset])
    assert plugin.mean == pytest.approx([images.mean().item()])
    assert plugin.std == pytest.approx([images.std(correction=0).item()], rel=1e-5)


@pytest.mark.parametrize("kind", [DeepInversionPlugin, ABDPlugin, RDFCILPlugin])
def test_models_that_cannot_be_inverted_are_refused(kind: type[InversionPlugin]) -> None:
    def refusal(model: nn.Module) -> str:
        with pytest.raises(ValueError, match=kind.__name__) as caught:
            kind().before_training(types.SimpleNamespace(model=model))  # type: ignore[arg-type]
        return str(caught.value)

    assert "single head" in refusal(nn.Sequential(nn.Flatten(), MultiHeadClassifier(64)))
    assert "bn=0" in refusal(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    pointwise = [nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    assert "Linear" in refusal(nn.Sequential(*pointwise))


def test_angles_know_no_scale_shift_or_turn() -> None:
    torch.manual_seed(0)
    points, n = torch.randn(5, 3, dtype=torch.float64), 5
    found = angles(points)
    for j, i, k in [(0, 1, 2), (4, 3, 1), (2, 0, 0)]:
        one, other = points[i] - points[j], points[k] - points[j]
        assert torch.allclose(found[j, i, k], one @ other / (one.norm() * other.norm()))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert torch.allclose(angles(3 * points @ turn + 7), found)
    assert found.shape == (n, n, n)
    assert found.diagonal(dim1=0, dim2=1).eq(0).all(), "a point makes no angle with itself"


def test_relations_of_one_map_agree_and_so_do_those_of_a_point() -> None:
    torch.manual_seed(0)
    features, reference = torch.randn(2, 6, 4, dtype=torch.float64)
    relation = RelationalAngle(4, 8).double()
    relation(features, features).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in relation.parameters())
    assert relation(features, reference) > 0.05
    assert relation.extent()[1] == pytest.approx(float((features @ relation.project.weight.T).std(dim=0).mean()))
    relation.project_reference.weight.data = relation.project.weight.data
    assert relation(features, features) == 0
    assert relation(2 * features + 3, features) < 1e-12
    for linear in (relation.project, relation.project_reference):
        linear.weight.data = torch.zeros(8, 4, dtype=torch.float64)
    assert relation(features, reference) == 0, "a collapse, which only the extent tells"
    assert relation.extent() == (0, 0)
    with pytest.raises(ValueError, match="three samples or more; got 2"):
        relation(features[:2], reference[:2])


@pytest.mark.parametrize(("old", "new", "factors"), [(10, 10, (0.693, 0.388, 1.292)), (90, 10, (0.231, 1.163, 3.877))])
def test_the_weights_adapt_to_the_numbers_of_classes(old: int, new: int, factors: tuple[float, ...]) -> None:
    alpha, beta = adaptive(old, new)
    assert (beta == 1) is (old == new)
    found = (0.5 * (1 + 1 / alpha) / beta, 0.15 * alpha * beta, 0.5 * alpha * beta)
    assert found == pytest.approx(factors, abs=1e-3)
    assert all(0 < value < 10 for value in adaptive(1, 3)), "experiences of other sizes are fine"


def test_balanced_weights_are_one_where_classes_come_as_often() -> None:
    assert balanced_weights(torch.tensor([4.0, 4.0, 4.0])).tolist() == [1, 1, 1]
    assert balanced_weights(torch.tensor([8.0, 0.0, 2.0])).tolist() == [1, 0, 4]


def test_rdfcils_loss_is_its_box(benchmark: CLScenario) -> None:
    options = RDFCILOptions(**QUICK, rdfcil_ce=0.3, rdfcil_hkd=0.7, rdfcil_rkd=0.9)
    plugin = RDFCILPlugin(options, steps=10)
    strategy = opened(plugin, benchmark)
    assert len(strategy.mb_x) == 6, "synthetic images go by themselves"
    assert plugin.balanced is not None
    assert (plugin.balanced.left, plugin.balanced.last, plugin.balanced.alone) == (10, 2, False)
    plugin.alpha, plugin.beta = 3.0, 2.0
    assert plugin.replayed is not None
    assert plugin.relation is not None
    assert plugin.old is not None
    features, logits = passed(strategy)
    synthetic = strategy.model(plugin.replayed.images)
    hard = (synthetic[:, [0, 2]] - plugin.old(plugin.replayed.images)[:, [0, 2]]).abs().mean()
    local = F.cross_entropy(logits[:, [1, 3]], (strategy.mb_y == 3).long())
    angle = plugin.relation.angles(features, plugin.old[:-1](strategy.mb_x))
    expected = 0.3 * (4 / 3) / 2 * local + 0.7 * 6 * hard + 0.9 * 6 * angle
    torch.testing.assert_close(plugin.loss(strategy, logits, features), expected)

    plugin.balanced.left = 2
    strategy.model.eval()
    features, logits = passed(strategy)
    synthetic = strategy.model(plugin.replayed.images)
    hard = (synthetic[:, [0, 2]] - plugin.replayed.logits).abs().mean()
    labels = torch.cat([strategy.mb_y, plugin.named])
    counts = labels.bincount(minlength=4)
    weights = torch.where(counts > 0, counts.max() / counts, 0.0)
    balanced = F.cross_entropy(torch.cat([logits, synthetic]), labels, weight=weights)
    met = sorted({*plugin.classes, *plugin.new})
    assert met == [0, 1, 2, 3]
    found = plugin.loss(strategy, logits, features)
    torch.testing.assert_close(found, balanced + 0.7 * 6 * hard)
    assert torch.autograd.grad(found, [features], allow_unused=True) == (None,)


def test_rdfcils_head_learns_alone_at_last(benchmark: CLScenario) -> None:
    plugin = RDFCILPlugin(RDFCILOptions(**QUICK, head_share=0.5), steps=4)
    seen: list[tuple[bool, dict[str, Tensor]]] = []

    class Watch(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: object) -> None:
            seen.append((strategy.model.training, copy.deepcopy(strategy.model.state_dict())))

    strategy = learner(network(nn.Linear(32, 4)), [Watch(), plugin], 4)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    assert [training for training, _ in seen] == [True] * 6 + [False] * 2

    def moved(step: int) -> set[str]:
        before, after = seen[step - 1][1], seen[step][1]
        return {name for name in before if not torch.equal(before[name], after[name])}

    assert {"0.weight", "1.running_mean", "3.weight", "7.weight"} <= moved(5)
    assert moved(6) == moved(7) == {"7.weight", "7.bias"}
    assert plugin.relation is None


def test_two_images_at_an_epochs_end_make_no_angle_and_minibatches_of_two_are_refused(benchmark: CLScenario) -> None:
    plugin = RDFCILPlugin(RDFCILOptions(**QUICK), steps=10)
    strategy = opened(plugin, benchmark)
    assert plugin.relation is not None
    features = passed(strategy)[0][:2]
    assert plugin.relation(features, features + 1) == 0
    strategy.train_mb_size = 2
    with pytest.raises(ValueError, match="minibatch is 2: set minibatch to 3 or more"):
        plugin.before_training(strategy)


def test_shares_are_of_groups_and_not_of_images() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    assert by_share(values, 3, 0.25) == pytest.approx((0.25 * 6 + 0.75 * 10) / 4)


def shown(strategy: Naive, plugin: DataFreeReplayPlugin) -> Tensor:
    """The loss that ``plugin`` makes of a minibatch of the second experience."""
    images, labels = shades(3)
    new = [label in strategy.experience.classes_in_this_experience for label in labels.tolist()]
    strategy.mbatch = [images[new], labels[new], torch.zeros(sum(new), dtype=torch.long)]
    strategy.model.train()
    plugin.before_training_iteration(strategy)
    plugin.before_forward(strategy)
    strategy.mb_output = strategy.model(strategy.mb_x)
    plugin.after_forward(strategy)
    strategy.loss = strategy.criterion()
    plugin.before_backward(strategy)
    loss: Tensor = strategy.loss
    return loss


def test_ours_can_have_the_terms_of_the_others(benchmark: CLScenario) -> None:
    terms = {"local": True, "distil": "hard", "head_ce": 0.7, "relation": 0.9, "head_share": 0.2, "bn_gap": "kl"}
    options = DataFreeReplayOptions.model_validate(QUICK | terms | {"size": 8, "distil_new": 0.3})
    plugin = DataFreeReplayPlugin(options, steps=10)
    strategy = learner(network(nn.Linear(32, 4)), [plugin], 1)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    strategy.experience = benchmark.train_stream[1]
    plugin.before_training_exp(strategy)
    assert plugin.recollection is not None
    assert plugin.relation is not None
    assert plugin.balanced is not None
    (gap,) = [term.gap for term in plugin.recollection.synthesizer.terms if term.name == "batchnorm"]
    assert gap == "kl"
    old = plugin.recollection.model
    found = shown(strategy, plugin)
    features, logits = passed(strategy)
    assert plugin.replayed is not None
    with torch.no_grad():
        before = old[:-1](strategy.mb_x)
        known = old[-1](before)[:, [0, 2]]
    labels = strategy.mb_y
    local = F.cross_entropy(logits[:6, [1, 3]], (labels[:6] == 3).long())
    kept = F.kl_div(logits[:6, [0, 2]].log_softmax(1), known[:6].log_softmax(1), reduction="batchmean", log_target=True)
    hard = (logits[6:, [0, 2]] - plugin.replayed.logits).abs().mean()
    each = F.cross_entropy(strategy.model[-1](features.detach()), labels, reduction="none")
    angle = plugin.relation.angles(features[:6], before[:6])
    expected = 0.5 * (local + 0.3 * kept) + 0.5 * hard + 0.7 * 0.5 * each.mean() + 0.9 * angle
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    plugin.balanced.left = 2
    found = shown(strategy, plugin)
    assert not strategy.model.training
    features, logits = passed(strategy)
    hard = (logits[6:, [0, 2]] - plugin.replayed.logits).abs().mean()
    counts = strategy.mb_y.bincount(minlength=4)
    balanced = F.cross_entropy(logits, strategy.mb_y, weight=torch.where(counts > 0, counts.max() / counts, 0.0))
    torch.testing.assert_close(found, balanced + 0.5 * hard, rtol=1e-4, atol=1e-5)
    slopes = torch.autograd.grad(found, list(strategy.model.parameters()))
    assert [slope.abs().max() > 1e-6 for slope in slopes] == [False] * 8 + [True] * 2


@pytest.mark.parametrize("persistent", [False, True])
def test_ours_may_go_on_from_its_generator(persistent: bool) -> None:
    torch.manual_seed(0)
    parts = split(shades(8), shades(2), [2, 0, 3, 1], 4)
    options = DataFreeReplayOptions(**QUICK | {"generator_steps": 1}, generator_lr=1e-9, persistent=persistent)
    plugin = DataFreeReplayPlugin(options)
    strategy, seen = learner(network(nn.Linear(32, 4)), [plugin], 1), []
    for experience in parts.train_stream:
        strategy.train(experience, eval_streams=[])
        seen.append(plugin.state_dict()["generator"])
    assert seen[0] is None, "there was none"
    if not persistent:
        assert seen == [None] * 4
        return
    for before, after in itertools.pairwise(seen[1:]):
        weights = [name for name in before if name.endswith("weight")]
        assert weights
        # A rate of 1e-9 leaves the weights where they began.
        assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)
    again = DataFreeReplayPlugin(options)
    again.load_state_dict(plugin.state_dict())
    assert again.state_dict()["generator"] is seen[3]


def test_ours_leaves_the_head_alone_at_last(benchmark: CLScenario) -> None:
    options = DataFreeReplayOptions(**QUICK, head_share=0.5, relation=0.1, alpha=0.1)
    plugin, seen = DataFreeReplayPlugin(options, steps=4), []

    class Watch(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: object) -> None:
            seen.append(copy.deepcopy(strategy.model.state_dict()))

    strategy = learner(network(nn.Linear(32, 4)), [Watch(), plugin], 4)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    moved = [{name for name in b if not torch.equal(a[name], b[name])} for a, b in itertools.pairwise(seen)]
    assert {"0.weight", "1.running_mean", "7.weight"} <= moved[4]
    assert moved[5] == moved[6] == {"7.weight", "7.bias"}
    assert plugin.companions == []


@pytest.mark.parametrize("kind", [DataFreeReplayPlugin, DeepInversionPlugin, ABDPlugin, RDFCILPlugin])
def test_experiences_may_be_of_different_sizes(kind: Any) -> None:
    torch.manual_seed(0)
    train, test = (with_classes(TensorDataset(*pair), pair[1].tolist()) for pair in (shades(8), shades(2)))
    parts = class_incremental_benchmark(
        {"train": train, "test": test}, class_order=[2, 0, 3, 1], num_classes_per_exp=[1, 2, 1]
    )
    terms = {"head_ce": 1, "head_share": 0.5, "relation": 0.1, "local": True} if kind is DataFreeReplayPlugin else {}
    options = (DataFreeReplayOptions if kind is DataFreeReplayPlugin else kind.published).model_validate(QUICK | terms)
    plugin, protocol = kind(options), ClassIncrementalProtocol()
    strategy = learner(network(nn.Linear(32, 4)), [plugin], 4, protocol.evaluator)
    protocol.train_and_test(strategy, parts, lambda row: None)
    assert plugin.classes == [0, 1, 2, 3]
    assert all(p.isfinite().all() for p in strategy.model.parameters())


def test_ours_refuses_what_has_no_head_or_no_angle() -> None:
    plugin = DataFreeReplayPlugin(DataFreeReplayOptions(head_ce=1, head_share=0.2, relation=1))
    pointwise = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="set head_ce=0 and head_share=0, or choose a model that ends in a Linear"):
        plugin.before_training(types.SimpleNamespace(model=pointwise, train_mb_size=8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="minibatch is 2: set minibatch to 3 or more, or relation=0"):
        plugin.before_training(types.SimpleNamespace(model=network(), train_mb_size=2))  # type: ignore[arg-type]


EXAMPLE = Path(__file__).parents[1] / "examples" / "incremental.py"


@pytest.mark.parametrize(
    "plugin",
    [
        "DeepInversionPlugin(DeepInversionOptions(generator_steps=2))",
        "ABDPlugin(ABDOptions(generator_steps=2))",
        "RDFCILPlugin(RDFCILOptions(generator_steps=2))",
        "FeCAMPlugin()",
        "LwFMCPlugin()",
    ],
)
def test_the_examples_one_line_may_be_another(plugin: str) -> None:
    line = "DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=100))"
    quicker = {line: plugin, "train_epochs=5": "train_epochs=1", "experiences=5": "experiences=2"}
    text = EXAMPLE.read_text()
    for old, new in quicker.items():
        assert old in text
        text = text.replace(old, new)
    text = f"from lra.strategies import {', '.join(re.findall('[A-Z][A-Za-z]+(?=[(])', plugin))}\n" + text
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, str(EXAMPLE), "exec"), names)
    assert names["strategy"].clock.train_exp_counter == 2
