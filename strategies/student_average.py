"""The student's own moving average, beside the student: kept step by step, evaluated, saved.

The cheapest retention there is (Polyak averaging; as a teacher of itself in Tarvainen and Valpola, NeurIPS 2017): it
costs no pass, is part of no loss and changes nothing in training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.average import Average
from lra.metrics.quantities import quantities
from lra.state import Owner, State
from lra.strategies.evaluation import Measure, Record
from lra.strategies.strategy import DataFreeDistillation

NAME = "student's average"
"""What the network is called among those of a run."""


class StudentAverage(SupervisedPlugin, Owner):
    """Takes the student into its average after every step: weights, and BatchNorm's statistics.

    Args:
        student: that learns.
        decay: α in [0, 1]; half of the average's memory is of the last ln ½ / ln α steps.

    Raises:
        ValueError: for another decay.

    Attributes:
        average: the average, in evaluation mode.
    """

    def __init__(self, student: nn.Module, decay: float):
        super().__init__()
        self.average = Average(student, decay)
        self.average.network.eval()

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """The student has taken a step: the first is where the average starts."""
        if strategy.clock.train_iterations == 0:
            self.average.restart()
        else:
            self.average.update()

    def networks(self) -> dict[str, nn.Module]:
        """The average."""
        return {NAME: self.average.network}

    def state_dict(self) -> State:
        """The average's weights and buffers."""
        return {"average": self.average.network.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.average.network.load_state_dict(state["average"])


class AverageAccuracy(Measure):
    """The accuracy of the average on the test images of every evaluation, in percent; silent without any.

    Args:
        average: the student's, in evaluation mode.
    """

    gives = quantities("average_accuracy", "average_mean", "average_max")

    def __init__(self, average: nn.Module):
        super().__init__()
        self._average = average
        self._right: list[Tensor] = []

    def before_eval(self, strategy: DataFreeDistillation) -> None:
        """Start afresh."""
        self._right = []

    @torch.no_grad()
    def after_eval_iteration(self, strategy: DataFreeDistillation) -> None:
        """Ask the average about what the student was asked about."""
        self._right.append(self._average(strategy.mb_x).argmax(dim=1) == strategy.mb_y)

    def measure(self, strategy: DataFreeDistillation) -> Record:
        """Percent right."""
        right, self._right = self._right, []
        return {"average": {"accuracy": 100 * torch.cat(right).double().mean().item() if right else None}}

    def outcome(self, records: Sequence[Record]) -> Record:
        """Of all evaluations the last, their mean, the best, and the curve."""
        curve = [(record["student_step"], record["average"]["accuracy"]) for record in records]
        curve = [point for point in curve if point[1] is not None]
        if not curve:
            return {"average": None}
        values = [value for _, value in curve]
        summary = {"accuracy": values[-1], "mean": float(np.mean(values)), "max": max(values)}
        return {"average": summary | {"curve": curve}}
