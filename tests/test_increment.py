"""Replay from the model alone in ordinary class-incremental Avalanche benchmarks."""

import gc
import json
import re
import sys
import types
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from avalanche.benchmarks import CLExperience, CLScenario
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from avalanche.training import Naive
from avalanche.training.plugins import GenerativeReplayPlugin
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lra.benchmarks import cli
from lra.benchmarks.increment.configuration import restored
from lra.benchmarks.increment.learning import normalisation, order_of
from lra.benchmarks.runs.run_folder import MetricsFile
from lra.benchmarks.setup.datasets import data_set
from lra.benchmarks.sweeps.grid import plan
from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.benchmark import ClassIncrementalProtocol, growing, split
from lra.strategies.increment.datafree import DataFreeReplayPlugin
from lra.strategies.increment.head_fit import Former, HeadFit
from lra.strategies.increment.options import DataFreeReplayOptions, HeadFitOptions, IncrementOptions
from lra.strategies.increment.plugins import StopAfter, TripletPlugin
from lra.strategies.increment.strategies import DATA_FREE, GENERATING, RESUMABLE, STRATEGIES, Plan

QUICK = {"generator_steps": 300, "generator_batch": 32}


def strokes(n: int) -> tuple[Tensor, Tensor]:
    """Noisy images of four classes: a line across, down, or along either diagonal, moved about."""
    classes = torch.arange(4).repeat(n)
    across, along = torch.zeros(8, 8), torch.eye(8)
    across[3] = 1
    lines = [across, across.T, along, along.flip(1)]
    drawn = [lines[k].roll(tuple(torch.randint(-1, 2, (2,)).tolist()), (0, 1)) for k in classes.tolist()]
    return torch.stack(drawn)[:, None].maximum(0.5 * torch.rand(4 * n, 1, 8, 8)), classes


@pytest.fixture
def benchmark() -> CLScenario:
    """Two experiences of two classes."""
    torch.manual_seed(0)
    return split(strokes(40), strokes(20), [2, 0, 3, 1], 2)


def network(head: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    body = [nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)]
    return nn.Sequential(*body, nn.ReLU(), nn.Flatten(), head)


def strategy(model: nn.Module, plugins: Sequence[Any], steps: int = 60, evaluator: Any = None) -> Naive:
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        train_mb_size=16,
        train_epochs=steps,
        plugins=[*plugins, StopAfter(steps)],
        evaluator=evaluator or QuietEvaluation(),
    )


class Spy(SupervisedPlugin):
    """Looks at a strategy right after every backward pass."""

    def __init__(self, look: Callable[[Any], None]):
        super().__init__()
        self.look = look

    def after_backward(self, strategy: Any, **kwargs: object) -> None:
        self.look(strategy)


@pytest.mark.kernels
@pytest.mark.parametrize(
    "head", [lambda: nn.Linear(32, 4), lambda: IncrementalClassifier(32, 2)], ids=["fixed", "growing"]
)
def test_old_classes_are_kept_without_their_data(benchmark: CLScenario, head: Callable[[], nn.Module]) -> None:
    def old_and_new(plugins: Sequence[Any]) -> list[float]:
        protocol = ClassIncrementalProtocol()
        torch.manual_seed(2)
        model = network(head())
        learner = strategy(model, plugins, evaluator=protocol.evaluator)
        return protocol.train_and_test(learner, benchmark, print).matrix[-1]

    naive, replayed = old_and_new([]), old_and_new([DataFreeReplayPlugin(DataFreeReplayOptions(**QUICK))])
    assert naive[0] < 20
    assert replayed[0] > 30
    assert replayed[1] > 50


def reachable(start: object) -> list[object]:
    """Every object that can be reached from ``start``, code left out."""
    seen: dict[int, object] = {}
    pending = [start]
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.FunctionType):
            continue
        seen[id(thing)] = thing
        pending.extend(gc.get_referents(thing))
        if isinstance(thing, Tensor) and thing.grad is not None:
            pending.append(thing.grad)
    return list(seen.values())


def test_no_real_sample_is_kept(benchmark: CLScenario) -> None:
    real = {image.numpy().tobytes() for image, *_ in benchmark.train_stream[0].dataset}

    def keeps(plugin: object) -> bool:
        found = reachable(plugin)
        images = [t for t in found if isinstance(t, Tensor) and t.shape[-3:] == (1, 8, 8)]
        stored = {image.detach().numpy().tobytes() for t in images for image in t.reshape(-1, 1, 8, 8)}
        return bool(stored & real) or any(isinstance(thing, AvalancheDataset | CLExperience) for thing in found)

    plugin = DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=2))
    later: list[bool] = []
    spy = Spy(lambda s: later.append(keeps(plugin)) if plugin.replayed else None)
    learner = strategy(network(nn.Linear(32, 4)), [plugin, spy], steps=3)
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
        assert not keeps(plugin)
    assert later == [False] * 3
    plugin.replayed = next(iter(benchmark.train_stream[0].dataset))  # the search finds what there is
    assert keeps(plugin)


def test_the_old_models_answers_are_replayed(benchmark: CLScenario) -> None:
    plugin = DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=2, size=5), mean=[0.4], std=[0.2])
    seen: list[Tensor] = []

    def look(s: Any) -> None:
        if plugin.replayed is None:
            return
        images, logits, *_ = plugin.replayed
        with torch.no_grad():
            assert torch.allclose(old(images)[:, [0, 2]], logits, atol=1e-6)
        assert images.min() >= -2
        assert images.max() <= 3
        assert torch.equal(s.mb_x[-5:], images)
        assert torch.equal(s.mb_y[-5:], torch.tensor([0, 2])[logits.argmax(dim=1)])
        seen.append(images)

    model = network(IncrementalClassifier(32, 2))
    learner = strategy(model, [plugin, Spy(look)], steps=3)
    learner.train(benchmark.train_stream[0], eval_streams=[])
    assert not seen
    old = deepcopy(model).eval()
    learner.train(benchmark.train_stream[1], eval_streams=[])
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(("alpha", "rate"), [(None, 0.02), (0.3, 0.0), (0.3, 0.1)], ids=["plain", "lra", "learned"])
def test_a_steps_gradient_is_that_of_the_objective(benchmark: CLScenario, alpha: float | None, rate: float) -> None:
    class Decay(SupervisedPlugin):
        """Another plugin's part of the loss, which has to stay."""

        def before_backward(self, strategy: Any, **kwargs: object) -> None:
            strategy.loss += 0.1 * sum(p.square().sum() for p in strategy.model.parameters())

    terms = {"distil_features": 0.3, "distil_importance": 0.2}
    options = DataFreeReplayOptions(generator_steps=2, size=24, alpha=alpha, alpha_rate=rate, **terms)
    plugin = DataFreeReplayPlugin(options)
    checked: list[float] = []
    rates = torch.full((10,), alpha or 0.0)
    sloped = torch.ones(10, dtype=torch.bool)

    def look(s: Any) -> None:
        if plugin.replayed is None or plugin.recollection is None:
            return
        weights = {name: p.detach().clone().requires_grad_() for name, p in s.model.named_parameters()}
        classes, share = s.experience.classes_in_this_experience, 2 / 4
        new = s.mb_y.new_tensor([int(y) in classes for y in s.mb_y]).bool()
        answer = torch.zeros(24, 4)
        answer[:, [0, 2]] = plugin.replayed.logits.softmax(dim=1)

        def outputs(at: dict[str, Tensor]) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in s.model.named_buffers()}
            return functional_call(s.model, {**at, **buffers}, (s.mb_x,))

        body = {name: w for name, w in weights.items() if not name.startswith("7.")}
        body |= {name: buffer.clone() for name, buffer in s.model.named_buffers()}
        with torch.no_grad():
            before = plugin.recollection.model[:-1](s.mb_x)
        moves = functional_call(s.model[:-1], body, (s.mb_x,)) - before
        seen = moves @ plugin.recollection.model[-1].weight[[0, 2]].detach().T
        apart = (0.3 * moves.square().sum() + 0.2 * seen.square().sum() / 2) / len(s.mb_x)
        logits = outputs(weights)[new]
        known = plugin.recollection.answer(s.mb_x[new]).log_softmax(dim=1)
        distilled = F.kl_div(logits[:, [0, 2]].log_softmax(dim=1), known, reduction="batchmean", log_target=True)
        acquisition = F.cross_entropy(logits, s.mb_y[new]) + distilled
        slopes = torch.autograd.grad((1 - share) * acquisition, list(weights.values()), create_graph=True)
        taken = rates.clone()
        ahead = {name: w - a * g for (name, w), g, a in zip(weights.items(), slopes, taken, strict=True)}
        retention = F.cross_entropy(outputs(ahead)[~new], answer)
        if plugin.lookahead is not None and plugin.lookahead.learned is not None:
            kept = torch.autograd.grad(retention, list(ahead.values()), retain_graph=True)
            agree = torch.stack([(g * k).sum() for g, k in zip(slopes, kept, strict=True)])
            moved = plugin.lookahead.learned.log.detach().exp() - rates
            if rates.eq(rates[0]).all():  # Adam's first step is one of signs; a bias before BatchNorm has no slope
                sloped.copy_(agree.abs() > 1e-6 * agree.abs().max())
                assert torch.equal(moved.sign()[sloped], agree.sign()[sloped])
            rates.add_(moved)
        decay = 0.1 * sum(w.square().sum() for w in weights.values())
        loss = (1 - share) * acquisition + share * retention + apart + decay
        for wanted, p in zip(torch.autograd.grad(loss, list(weights.values())), s.model.parameters(), strict=True):
            checked.append(float((p.grad - wanted).norm() / wanted.norm()))

    learner = strategy(network(nn.Linear(32, 4)), [Decay(), plugin, Spy(look)], steps=3)
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
    assert len(checked) == 3 * 10
    assert max(checked) < 1e-4
    assert sloped.sum() >= 8
    assert len(rates[sloped].unique()) == (1 if rate == 0.0 or alpha is None else sloped.sum())


def test_every_class_is_shown_as_often() -> None:
    torch.manual_seed(0)
    benchmark = split(strokes(40), strokes(20), [2, 0, 3, 1], 4)
    plugin = DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=1, balanced=True))
    sizes: list[int] = []
    learner = strategy(network(nn.Linear(32, 4)), [plugin, Spy(lambda s: sizes.append(len(s.mb_x)))], steps=1)
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
    assert sizes == [16, 32, 48, 64]  # 16 real images of one class, and as many synthetic ones of each before it


def test_real_images_are_augmented_and_replayed_ones_are_not(benchmark: CLScenario) -> None:
    shown: list[tuple[Tensor, Tensor | None]] = []
    replay = DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=1))

    def look(strategy: Any) -> None:
        shown.append((strategy.mb_x.clone(), replay.replayed.images if replay.replayed else None))

    plan = Plan(
        network(nn.Linear(32, 4)), (1, 8, 8), 2, IncrementOptions(augment=1), QuietEvaluation(), torch.device("cpu")
    )
    learner = plan.build(Naive, [replay, Spy(look)])
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
    real = torch.stack([image for experience in benchmark.train_stream for image, *_ in experience.dataset])
    assert [replayed is None for _, replayed in shown] == [True, True, False, False]
    for images, replayed in shown:
        fresh = images[: len(images) - (0 if replayed is None else len(replayed))]
        assert (torch.cdist(fresh.flatten(1), real.flatten(1)).amin(dim=1) > 1e-3).all()
        if replayed is not None:
            assert torch.equal(images[len(fresh) :], replayed)


def test_a_head_is_fitted_to_classes_whose_data_are_gone() -> None:
    """Two classes whose images have moved with the model since, and two new ones, all of them images of four pixels."""
    torch.manual_seed(0)
    centres = 3 * torch.eye(4)

    def images(labels: list[int]) -> tuple[Tensor, Tensor]:
        classes = torch.tensor(labels).repeat(60)
        return (centres[classes] + 0.5 * torch.randn(len(classes), 4))[:, None, None], classes

    train, test = images([0, 1, 2, 3]), images([0, 1, 2, 3])
    benchmark = split(train, test, [0, 1, 2, 3], 2)
    body, head = nn.Linear(4, 6), nn.Linear(6, 4)
    model = nn.Sequential(nn.Flatten(), body, head)
    fit = HeadFit(HeadFitOptions(align_steps=300))
    fit.after_experience(model, benchmark.train_stream[0].dataset)
    former = deepcopy(model)
    with torch.no_grad():
        body.weight += torch.randn(6, 4)
        body.bias += 1
        head.weight.normal_()
    anything = 3 * torch.randn(200, 1, 1, 4)  # no image of an old class
    before = float((model(test[0]).argmax(dim=1) == test[1]).float().mean())
    fit.after_experience(model, benchmark.train_stream[1].dataset, Former(former, anything))
    after = float((model(test[0]).argmax(dim=1) == test[1]).float().mean())
    assert before < 0.7
    assert after > 0.95
    assert model.training


def test_without_the_heads_fit_no_statistic_of_features_is_kept(benchmark: CLScenario) -> None:
    plugin = DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=2))
    strategy(network(nn.Linear(32, 4)), [plugin], steps=2).train(benchmark.train_stream[0], eval_streams=[])
    assert plugin.head_fit is None
    assert not [t for t in reachable(plugin) if isinstance(t, Tensor)]


def test_steps_are_counted_whatever_the_size_of_the_data(benchmark: CLScenario) -> None:
    learner = strategy(network(nn.Linear(32, 4)), [], steps=7)
    for experience in benchmark.train_stream:
        learner.train(experience, eval_streams=[])
    assert learner.clock.train_iterations == 14


def test_triplets_pull_a_class_together(benchmark: CLScenario) -> None:
    def spread(weight: float) -> float:
        model = network(nn.Linear(32, 4))
        learner = strategy(model, [TripletPlugin(weight)], steps=30)
        learner.train(benchmark.train_stream[0], eval_streams=[])
        images, classes, *_ = next(iter(torch.utils.data.DataLoader(benchmark.test_stream[0].dataset, 40)))
        with torch.no_grad():
            features = F.normalize(model.eval()[:-1](images), dim=1)
        distances = torch.cdist(features, features)
        same = classes[:, None] == classes
        return float(distances[same].mean() / distances[~same].mean())

    assert spread(1.0) < 0.9 * spread(0.0)


def test_a_model_it_cannot_recollect_is_refused_by_name(benchmark: CLScenario) -> None:
    def refusal(model: nn.Module, **options: Any) -> str:
        learner = strategy(model, [DataFreeReplayPlugin(DataFreeReplayOptions(**options))])
        with pytest.raises(ValueError, match="DataFreeReplayPlugin") as caught:
            learner.train(benchmark.train_stream[0], eval_streams=[])
        return str(caught.value)

    assert "IncrementalClassifier" in refusal(nn.Sequential(nn.Flatten(), MultiHeadClassifier(64)))
    assert "bn=0" in refusal(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    pointwise = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert "align_steps=0" in refusal(pointwise, align_steps=10)


def test_only_a_linear_head_can_grow() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        growing(nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2, (1, 8, 8))


TINY = ("--steps", 2, "--set", "generator_steps=2", "--model", "lenet5-bn")


def options_of(name: str) -> tuple[object, ...]:
    """Of a tiny run of a strategy."""
    parts = ("align_steps=3", "alpha=0.1", "relation=0.1", "head_share=0.5", "milestones=[0.5]", "persistent=true")
    more = tuple(word for part in parts for word in ("--set", part)) if name in DATA_FREE else ()
    return ("--strategy", name, *TINY, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The result of such a run, done once, which is not to be changed."""

    @cache
    def result(name: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["lra-bench", "increment", *map(str, options_of(name)), "--out", str(out)])
            patch.setattr("lra.benchmarks.reports.report.write_report", lambda folder: None)
            with pytest.raises(SystemExit) as left:
                cli.main()
        assert not left.value.code
        (file,) = out.rglob("result.json")
        return json.loads(file.read_text()) | {"run_dir": str(file.parent)}

    return result


def test_rates_that_are_learned_are_recorded_after_each_experience_but_the_first(
    whole: Callable[[str], dict[str, Any]],
) -> None:
    lines = (Path(whole("generative")["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    first, *later = [json.loads(line).get("alpha") for line in lines]
    assert (first, len(later)) == (None, 4)
    assert all("network.conv1.weight" in rates and set(rates.values()) != {0.1} for rates in later)
    assert all(0 < rate < 10 for rates in later for rate in rates.values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs(whole: Callable[[str], dict[str, Any]], name: str) -> None:
    result = whole(name)
    matrix = result["accuracy_matrix"]
    assert [len(row) for row in matrix] == [1, 2, 3, 4, 5]
    averages = [sum(row) / len(row) for row in matrix]
    assert result["accuracy"] == pytest.approx(averages[-1])
    assert result["average_incremental_accuracy"] == pytest.approx(sum(averages) / 5)
    first_minus_last = [matrix[j][j] - matrix[4][j] for j in range(4)]
    assert result["forgetting"] == pytest.approx(sum(first_minus_last) / 4, abs=1e-3)
    best_minus_last = [max(matrix[t][j] for t in range(j, 4)) - matrix[4][j] for j in range(4)]
    assert result["forgetting_from_best"] == pytest.approx(sum(best_minus_last) / 4)
    assert result["cost"]["generator_steps"] == (8 if name in GENERATING else 0)
    assert sorted(result["class_order"]) == list(range(10))


@pytest.mark.parametrize(("name", "taught"), [("avalanche-generative", True), ("avalanche-generative-plugin", False)])
def test_only_avalanches_strategy_teaches_the_generator_of_its_plugin(
    benchmark: CLScenario, name: str, taught: bool
) -> None:
    model = network(IncrementalClassifier(32, 2))
    plan = Plan(model, (1, 8, 8), 4, IncrementOptions(), QuietEvaluation(), torch.device("cpu"))
    learner = STRATEGIES[name](plan)
    plugin = next(plugin for plugin in learner.plugins if isinstance(plugin, GenerativeReplayPlugin))
    before = deepcopy(plugin.generator.state_dict())
    sizes: list[int] = []
    learner.plugins.append(Spy(lambda strategy: sizes.append(len(strategy.mb_x))))
    for experience in benchmark.train_stream:
        learner.train(experience)
    after = plugin.generator.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before) is taught
    assert max(sizes[:4]) == 32
    assert max(sizes[4:]) == 64  # half of it replayed, by a taught generator or not


def test_the_autoencoder_leaves_out_a_minibatch_of_one_image(benchmark: CLScenario) -> None:
    # 80 images in each experience.
    plan = Plan(
        network(IncrementalClassifier(32, 2)),
        (1, 8, 8),
        3,
        IncrementOptions(minibatch=79),
        QuietEvaluation(),
        torch.device("cpu"),
    )
    learner = STRATEGIES["avalanche-generative"](plan)
    plugin = next(plugin for plugin in learner.plugins if isinstance(plugin, GenerativeReplayPlugin))
    sizes: list[int] = []
    plugin.generator_strategy.plugins.append(Spy(lambda strategy: sizes.append(len(strategy.mb_x))))
    for experience in benchmark.train_stream:
        learner.train(experience)
    assert sizes == [79, 79, 79, 158, 2, 158]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_runs_on_a_gpu(lra_bench: Callable[..., Any], tmp_path: Any, name: str) -> None:
    done = lra_bench("increment", "--strategy", name, *TINY, "--device", "cuda", "--json", "--out", tmp_path)
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["avalanche-generative", "avalanche-generative-plugin"])
def test_the_autoencoder_is_where_it_is_to_replay(name: str) -> None:
    # "meta" stands for any device but the one that modules are made on.
    plan = Plan(nn.Linear(4, 2), (1, 8, 8), 4, IncrementOptions(), QuietEvaluation(), torch.device("meta"))
    plugins = STRATEGIES[name](plan).plugins
    plugin = next(plugin for plugin in plugins if isinstance(plugin, GenerativeReplayPlugin))
    assert {parameter.device.type for parameter in plugin.generator.parameters()} == {"meta"}


def test_a_finished_result_is_read_again(lra_bench: Callable[..., Any], tmp_path: Any) -> None:
    first = lra_bench("increment", "--meta", *TINY, "--experiences", 2, "--out", tmp_path)
    again = lra_bench("increment", "--meta", *TINY, "--experiences", 2, "--out", tmp_path)
    assert (first.code, again.code) == (0, 0)
    assert first.out == again.out
    assert "LRA step" in first.out
    assert "after 2/2" in first.err
    assert again.err.startswith("lra-bench: finished before")
    assert again.err.count("\n") == 1, "nothing is trained"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--experiences", 3], ["10 classes", "2, 5, 10"]),
        (["--experiences", 0], ["experiences"]),
        (["--strategy", "genertive"], ["genertive", "generative"]),
        (["--benchmark", "digits"], ["digits", "split-"]),
        (["--benchmark", "split-digts"], ["digts", "digits"]),
        (["--strategy", "naive", "--meta"], ["--meta", "generative or rgal"]),
        (["--set", "generator_step=3"], ["generator_step", "generator_steps"]),
        (["--set", "balance=-1"], ["balance", "-1"]),
        (["--set", "augment=5"], ["augment", "5", "4"]),
        (["--seed", -1], ["seed", "-1"]),
        (["--model", "resnet9"], ["resnet9", "resnet"]),
        (["--model", "lenet5"], ["lenet5", "DataFreeReplayPlugin", "bn=0"]),
        (["--strategy", "avalanche-generative", "--set", "minibatch=1"], ["minibatch must be 2"]),
        (["--strategy", "r-dfcil", "--set", "minibatch=2"], ["minibatch is 2", "rdfcil_rkd=0"]),
        (["--set", "relation=1", "--set", "minibatch=2"], ["minibatch is 2", "relation=0"]),
        (["--set", "milestones=[0.5, 1.5]"], ["milestones", "1.5"]),
        (["--set", "normalisation=published"], ["digits has no published normalisation", "normalisation=grey"]),
        (
            ["--set", "drop_last=true", "--set", "minibatch=500"],
            ["drop_last leaves no batch", "500", "drop_last=false"],
        ),
        (["--preset", "split-cifar100/1"], ["split-cifar100/1", "split-cifar100/10"]),
        (["--strategy", "abd", "--model", "lenet5"], ["ABDPlugin", "bn=0"]),
        (["--strategy", "fecam", "--set", "fecam_prototype=mean"], ["fecam_prototype", "root-of-mean"]),
        (["--strategy", "fecam", "--meta"], ["--meta", "generative or rgal"]),
    ],
)
def test_bad_input_is_one_line(
    lra_bench: Callable[..., Any], tmp_path: Any, arguments: list[object], words: list[str]
) -> None:
    done = lra_bench("increment", *arguments, "--out", tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert not done.out
    for word in words:
        assert word in done.err, done.err
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("model", ["LeNet5_BN", "torchvision:mobilenet_v3_small", "lra.networks.small_images:mlp"])
def test_every_network_that_can_be_listed_can_learn_in_increments(
    lra_bench: Callable[..., Any], tmp_path: Path, model: str
) -> None:
    options = ("--strategy", "naive", "--steps", 1, "--experiences", 2, "--out", tmp_path, "--json")
    done = lra_bench("increment", "--model", model, *options)
    if model.startswith("torchvision"):
        assert done.code == 2
        assert "take images of 3 channels" in done.err, "which the digits have not"
        return
    assert done.code == 0, done.err
    assert json.loads(done.out)["config"]["model"] == {"LeNet5_BN": "lenet5-bn"}.get(model, model)


def test_a_network_that_is_none_is_refused_with_the_nearest(lra_bench: Callable[..., Any]) -> None:
    refused = lra_bench("increment", "--model", "resnet81")
    assert refused.code == 2
    assert "unknown --model 'resnet81'" in refused.err


def test_a_run_leaves_what_every_run_leaves(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--strategy", "generative", *TINY, "--experiences", 2, "--out", tmp_path)
    tried = json.loads(lra_bench("increment", *options, "--dry-run", "--json").out)
    assert tried["cost"] == {"student_steps": 4, "experiences": 2}
    assert tried["estimate"]["seconds"] > 0
    assert not list(tmp_path.iterdir()), "a dry run writes nothing"
    folder = Path(json.loads(lra_bench("increment", *options, "--json").out)["run_dir"])
    names = {"config.yaml", "env.json", "identity.json", "log.txt", "metrics.jsonl", "report.html", "result.json"}
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == names
    assert "after 2/2 experiences" in (folder / "log.txt").read_text()
    page = (folder / "report.html").read_text()
    assert "What is left of each experience" in page
    assert re.search(r"<dt>time</dt><dd>[\d.]+ s<", page), "numbers have their units"
    again = lra_bench("increment", "--config", folder / "config.yaml", "--out", tmp_path)
    assert again.err == f"lra-bench: finished before, nothing to train: {folder}\n"
    others = [
        (("run", "--config", folder / "config.yaml", "--dry-run", "--no-timing"), "is for lra-bench increment"),
        (("export", folder), "is a run of lra-bench increment"),
    ]
    for other, reason in others:
        refused = lra_bench(*other)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert reason in refused.err


def test_a_published_protocol_is_what_its_papers_set(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    def of(*arguments: str) -> dict[str, Any]:
        done = lra_bench("increment", "--preset", *arguments, "--dry-run", "--no-timing", "--json", "--out", tmp_path)
        config: dict[str, Any] = json.loads(done.out)["config"]
        return config | config.pop("options") | {"said": done.err}

    abd, rdfcil = of("split-cifar100/10", "--strategy", "abd"), of("split-cifar100/10", "--strategy", "r-dfcil")
    same = {"benchmark": "split-cifar100", "experiences": 10, "model": "resnet32", "lr": 0.1, "minibatch": 128}
    assert same.items() <= abd.items()
    assert same.items() <= rdfcil.items()
    assert [round(abd["steps"] * part) for part in abd["milestones"]] == [39 * epoch for epoch in (100, 150, 200)]
    assert [round(rdfcil["steps"] * part) for part in rdfcil["milestones"]] == [39 * epoch for epoch in (80, 120)]
    assert round(rdfcil["steps"] * (1 - rdfcil["head_share"])) == 39 * 160
    assert (abd["weight_decay"], rdfcil["weight_decay"]) == (2e-4, 5e-4)
    assert (abd["generator_steps"], rdfcil["generator_steps"]) == (10_000, 5_000)
    assert "published: 33.7 ± 1.2 % accuracy at the end" in abd["said"]
    assert of("split-cifar100/20", "--strategy", "naive", "--set", "lr=0.2")["lr"] == 0.2
    for parts, images in ((5, 10_000), (20, 2_500)):
        assert of(f"split-cifar100/{parts}")["steps"] == 250 * (images // 128)


@pytest.mark.parametrize(("seed", "first"), [(0, [23, 8, 11, 7, 48]), (1, [53, 37, 65]), (2, [0, 76, 61])])
def test_orders_of_classes_are_those_of_the_releases(seed: int, first: list[int]) -> None:
    tree = {"benchmark": "split-cifar100", "seed": seed}
    found = order_of(100, restored(tree | {"options": {"class_order": "python"}}))
    assert found[: len(first)] == first
    ours = order_of(100, restored(tree))
    assert sorted(ours) == sorted(found) == [*range(100)]
    assert ours != found


def test_milestones_and_whole_minibatches(benchmark: CLScenario) -> None:
    rates: list[tuple[float, int]] = []
    options = IncrementOptions(lr=0.5, milestones=(0.75, 0.5), drop_last=True, minibatch=14)
    protocol = ClassIncrementalProtocol(drop_last=True)
    plan = Plan(network(nn.Linear(32, 4)), (1, 8, 8), 4, options, protocol.evaluator, torch.device("cpu"))
    spy = Spy(lambda s: rates.append((s.optimizer.param_groups[0]["lr"], len(s.mb_x))))
    protocol.train_and_test(plan.build(Naive, [spy]), benchmark, lambda row: None)
    images = len(benchmark.train_stream[0].dataset)
    assert images % 14, "there is something to leave out"
    assert [size for _, size in rates] == [14] * 8
    assert [rate for rate, _ in rates] == pytest.approx([0.5, 0.5, 0.05, 0.005] * 2)


def test_a_data_sets_published_normalisation_is_taken_if_asked_for() -> None:
    data = data_set("cifar100")
    assert normalisation(data, restored({"benchmark": "split-cifar100"})) == ([0.5] * 3, [0.5] * 3)
    config = restored({"benchmark": "split-cifar100", "options": {"normalisation": "published"}})
    assert normalisation(data, config)[0] == pytest.approx((0.5071, 0.4865, 0.4409), abs=1e-3)


class Killed(BaseException):
    """As if by SIGKILL."""


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    lra_bench: Callable[..., Any],
    whole: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    append = MetricsFile.append

    def dying(self: MetricsFile, record: dict[str, Any]) -> None:
        append(self, record)
        if record["experience"] == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "append", dying)
        with pytest.raises(Killed):
            lra_bench("increment", *options_of(name), "--out", tmp_path / "killed")
    (file,) = (tmp_path / "killed").rglob("metrics.jsonl")
    done = lra_bench("resume", file.parent, "--json")
    assert done.code == 0, done.err
    assert ("the run begins again" in done.err) is (name not in RESUMABLE)
    assert ("resumed after experience 3 of 5" in (file.parent / "log.txt").read_text()) is (name in RESUMABLE)
    found, straight = json.loads(done.out), whole(name)
    assert found["accuracy_matrix"] == straight["accuracy_matrix"]
    assert found["cost"]["generator_steps"] == straight["cost"]["generator_steps"]
    assert file.read_bytes() == (Path(straight["run_dir"]) / "metrics.jsonl").read_bytes()


def test_a_grid_of_increments_is_compared_with_several_baselines(
    lra_bench: Callable[..., Any], tmp_path: Path, forked: object
) -> None:
    grid = {"kind": "increment", "strategy": ["naive", "lwf"], "experiences": 2, "steps": 1, "model": "lenet5"}
    grid |= {"seed": [0, 1], "also": [{"strategy": "joint", "meta": [False, True], "set": {"augment": 1}}]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert len(plan(grid)) == 6, "the LRA step is left out where nothing is replayed without data"
    done = lra_bench("sweep", tmp_path / "grid.yaml", "--out", tmp_path / "out", "--workers", 1)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "report.html").is_file()
    against = ("--against", "strategy=naive", "--against", "strategy=lwf")
    found = json.loads(lra_bench("compare", tmp_path / "out", *against, "--format", "json").out)["rows"]
    ends = [(row["configuration"], row["against"]) for row in found if row["column"] == "accuracy"]
    wanted = [(row, None if row == one else one) for one in ("naive", "lwf") for row in ("joint", "lwf", "naive")]
    assert ends == wanted
    assert {row["column"] for row in found} >= {"accuracy", "average_incremental", "forgetting"}
    page = lra_bench("compare", tmp_path / "out", *against, "--format", "md").out
    assert page.count("| naive |") == 2, "a table for each"
