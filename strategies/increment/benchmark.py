"""Class-incremental benchmarks from tensors, networks whose head grows with them, and how both are measured.

The state of a strategy between two experiences can be captured as plain data, so that another process can continue
identically.
"""

from collections.abc import Callable, Iterable
from statistics import mean
from typing import NamedTuple

from avalanche.benchmarks import CLExperience, CLScenario, class_incremental_benchmark
from avalanche.evaluation.metrics.acc_matrix import AccuracyMatrixPluginMetric
from avalanche.models import IncrementalClassifier
from avalanche.models.utils import avalanche_model_adaptation
from avalanche.training.plugins import LRSchedulerPlugin, LwFPlugin
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lra.anatomy import classifier
from lra.state import State, random_states, restore_random_states
from lra.strategies.checkpoint import CLOCK
from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.plugins import CarryingPlugin
from lra.strategies.stream import with_classes


def split(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], order: list[int], experiences: int) -> CLScenario:
    """Streams ``train`` and ``test`` of ``experiences`` experiences, each with the next few classes in ``order``.

    Args:
        train: images (n, C, H, W) float in [0, 1] and classes (n,).
        test: likewise.
        order: every class, once.
        experiences: how many; must divide the number of classes.

    Raises:
        ValueError: if it does not divide them.
    """
    if experiences < 1 or len(order) % experiences:
        raise ValueError(f"{len(order)} classes do not split into {experiences} experiences of equal size")
    parts = {"train": train, "test": test}
    return class_incremental_benchmark(
        {name: with_classes(TensorDataset(*pair), pair[1].tolist()) for name, pair in parts.items()},
        class_order=order,
        num_classes_per_exp=[len(order) // experiences] * experiences,
    )


def growing(network: nn.Module, classes: int, image: tuple[int, int, int]) -> nn.Module:
    """``network`` with its last linear layer replaced by a head of ``classes`` units that grows with the classes met.

    Args:
        network: takes images of the shape ``image``.
        classes: number of classes in the first experience.
        image: (C, H, W).

    Raises:
        ValueError: if the network does not end in a linear layer.
    """
    head = classifier(network, image)
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(network).__name__} has no linear layer for a growing head to replace")
    name = next(name for name, module in network.named_modules() if module is head)
    network.set_submodule(name, IncrementalClassifier(head.in_features, classes))
    return network


class Scores(NamedTuple):
    """What a strategy achieved, in percent and points."""

    matrix: list[list[float]]
    """a_tj, accuracy on the test data of experience j after training on t, for j ≤ t."""
    accuracy: float
    """Mean of the last row."""
    average_incremental: float
    """Mean over t of the mean of row t."""
    forgetting: float
    """Mean over all but the last experience of a_jj - a_Tj, as Avalanche's StreamForgetting."""
    forgetting_from_best: float
    """Mean over all but the last experience j of the best a_tj before the last minus a_Tj (Chaudhry et al. 2018)."""


class ClassIncrementalProtocol:
    """Trains on one experience after another, and tests on all so far after each, with Avalanche's accuracy.

    Args:
        drop_last: drop the last minibatch of an epoch if it is incomplete.

    Attributes:
        evaluator: to build the strategy with.
        rows: of the accuracy matrix so far, in percent.
    """

    def __init__(self, drop_last: bool = False) -> None:
        self.drop_last = drop_last
        self._matrix = AccuracyMatrixPluginMetric()
        self.evaluator = QuietEvaluation(self._matrix, collect_all=False)
        self.rows: list[list[float]] = []

    def take_up(self, rows: list[list[float]]) -> None:
        """Continue after experiences that gave these ``rows``."""
        self.rows = rows
        self._matrix.num_training_steps = len(rows) - 1

    def train_and_test(
        self, strategy: SupervisedTemplate, benchmark: CLScenario, tell: Callable[[list[float]], object]
    ) -> Scores:
        """Run the rest of the ``benchmark``; each new row of the matrix is passed to ``tell``."""
        for index, experience in enumerate(benchmark.train_stream):
            if index < len(self.rows):
                continue
            strategy.train(experience, eval_streams=[], drop_last=self.drop_last)
            strategy.eval(benchmark.test_stream[: index + 1])
            self.rows.append([100 * value for value in self._matrix.result()[index, : index + 1].tolist()])
            tell(self.rows[-1])
        return self.scores()

    def scores(self) -> Scores:
        """The scores of all rows so far."""
        rows, last = self.rows, self.rows[-1]
        averages, early = [mean(row) for row in rows], range(len(rows) - 1)
        first_minus_last = [rows[j][j] - last[j] for j in early]
        best_minus_last = [max(row[j] for row in rows[j:-1]) - last[j] for j in early]
        return Scores(
            rows,
            averages[-1],
            mean(averages),
            mean(first_minus_last) if first_minus_last else 0.0,
            mean(best_minus_last) if best_minus_last else 0.0,
        )


def capture(strategy: SupervisedTemplate) -> State:
    """The state of one of the strategies in `RESUMABLE`, after an experience and its test."""
    parts = [_state(plugin) for plugin in strategy.plugins]
    return {
        "model": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "clock": {name: getattr(strategy.clock, name) for name in CLOCK},
        "plugins": {str(index): part for index, part in enumerate(parts) if part is not None},
        "random": random_states(),
    }


def restore(state: State, strategy: SupervisedTemplate, experiences: Iterable[CLExperience]) -> None:
    """Bring a freshly built strategy to a state of `capture`, made after ``experiences``.

    Raises:
        KeyError, RuntimeError, ValueError: if the state is of another run.
    """
    experiences = list(experiences)
    strategy.make_optimizer(reset_optimizer_state=True)
    for experience in experiences:  # the head grows, and the optimiser has it
        avalanche_model_adaptation(strategy.model, experience)
        strategy.model.to(strategy.device)
        strategy.make_optimizer()
    strategy.model.load_state_dict(state["model"])
    strategy.optimizer.load_state_dict(state["optimizer"])
    for name in CLOCK:
        setattr(strategy.clock, name, state["clock"][name])
    for index, plugin in enumerate(strategy.plugins):
        if isinstance(plugin, LwFPlugin):
            for experience in experiences:
                plugin.lwf.post_adapt(strategy, experience)  # it keeps a copy of the current model
        elif isinstance(plugin, LRSchedulerPlugin):
            plugin.scheduler.load_state_dict(state["plugins"][str(index)])
        elif isinstance(plugin, CarryingPlugin):
            plugin.load_state_dict(state["plugins"][str(index)])
    if isinstance(strategy, Cumulative):
        for experience in experiences:
            strategy.experience = experience
            strategy.train_dataset_adaptation()
    restore_random_states(state["random"])


def _state(plugin: object) -> State | None:
    if isinstance(plugin, LRSchedulerPlugin):
        return {name: value for name, value in plugin.scheduler.state_dict().items() if not callable(value)}
    return plugin.state_dict() if isinstance(plugin, CarryingPlugin) else None
