"""A strategy's way through a class-incremental benchmark, measured by Avalanche's metrics."""

from collections.abc import Callable
from statistics import mean
from typing import NamedTuple

from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import StreamForgetting
from avalanche.evaluation.metrics.acc_matrix import AccuracyMatrixPluginMetric
from avalanche.training.templates import SupervisedTemplate

from lra.strategies.evaluation import QuietEvaluation
from lra.strategies.increment.datafree import DataFreeReplayPlugin


class Marks(NamedTuple):
    """What a strategy achieved, in percent and points."""

    matrix: list[list[float]]
    """a_tj, accuracy on the test data of experience j after training on t, for j ≤ t."""
    accuracy: float
    """Mean of the last row."""
    average_incremental: float
    """Mean over t of the mean of row t."""
    forgetting: float
    """Avalanche's StreamForgetting: mean over all but the last experience of a_jj - a_Tj."""
    forgetting_from_best: float
    """Likewise, of the best a_tj before the last experience minus a_Tj (Chaudhry et al. 2018)."""
    generator_steps: int
    """Of data-free replay."""


class Course:
    """Trains on one experience after the other, and tests on all so far after each.

    Attributes:
        evaluator: to build the strategy with.
    """

    def __init__(self) -> None:
        self._matrix = AccuracyMatrixPluginMetric()
        self._forgetting = StreamForgetting()
        self.evaluator = QuietEvaluation(self._matrix, self._forgetting, collect_all=False)

    def follow(
        self, strategy: SupervisedTemplate, benchmark: CLScenario, tell: Callable[[list[float]], object]
    ) -> Marks:
        """Go through the ``benchmark``; each new row of the matrix is told as it comes."""
        rows: list[list[float]] = []
        for index, experience in enumerate(benchmark.train_stream):
            strategy.train(experience, eval_streams=[])
            strategy.eval(benchmark.test_stream[: index + 1])
            rows.append([100 * value for value in self._matrix.result()[index, : index + 1].tolist()])
            tell(rows[-1])
        averages = [mean(row) for row in rows]
        lost = [max(row[j] for row in rows[j:-1]) - rows[-1][j] for j in range(len(rows) - 1)]
        steps = sum(plugin.generator_steps for plugin in strategy.plugins if isinstance(plugin, DataFreeReplayPlugin))
        first_minus_last = 100 * (self._forgetting.result() or 0.0)
        return Marks(rows, averages[-1], mean(averages), first_minus_last, mean(lost) if lost else 0.0, steps)
