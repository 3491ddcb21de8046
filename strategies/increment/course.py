"""A strategy's way through a class-incremental benchmark, measured by Avalanche's metrics."""

from collections.abc import Callable
from typing import NamedTuple

from avalanche.benchmarks import CLScenario
from avalanche.evaluation.metrics import StreamForgetting
from avalanche.evaluation.metrics.acc_matrix import AccuracyMatrixPluginMetric
from avalanche.training.templates import SupervisedTemplate

from lra.strategies.evaluation import QuietEvaluation


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
        averages = [sum(row) / len(row) for row in rows]
        forgetting = self._forgetting.result()
        return Marks(rows, averages[-1], sum(averages) / len(averages), 100 * (forgetting or 0.0))
