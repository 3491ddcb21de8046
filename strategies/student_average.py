"""The moving average of the student's weights, kept beside the student: updated every step, evaluated and saved.

The cheapest retention there is (Polyak averaging; used as a teacher in Tarvainen and Valpola, NeurIPS 2017): it needs
no forward pass, is part of no loss and changes nothing in training.
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
"""The network's name among those of a run."""


class StudentAverage(SupervisedPlugin, Owner):
    """Updates the average with the student after every step: weights and BatchNorm statistics.

    Args:
        student: the network that learns.
        decay: α in [0, 1]; the average has a half-life of ln ½ / ln α steps.

    Raises:
        ValueError: if the decay is out of range.

    Attributes:
        average: the average, in evaluation mode.
    """

    def __init__(self, student: nn.Module, decay: float):
        super().__init__()
        self.average = Average(student, decay)
        self.average.network.eval()

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Update the average; it starts from the student after the first step."""
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
    """Accuracy of the average on the test images of every evaluation, in percent; ``None`` without any.

    Args:
        average: of the student, in evaluation mode.
    """

    gives = quantities("average_accuracy", "average_mean", "average_max")

    def __init__(self, average: nn.Module):
        super().__init__()
        self._average = average
        self._right: list[Tensor] = []

    def before_eval(self, strategy: DataFreeDistillation) -> None:
        """Start again."""
        self._right = []

    @torch.no_grad()
    def after_eval_iteration(self, strategy: DataFreeDistillation) -> None:
        """Evaluate the average on the student's test batch."""
        self._right.append(self._average(strategy.mb_x).argmax(dim=1) == strategy.mb_y)

    def measure(self, strategy: DataFreeDistillation) -> Record:
        """The accuracy in percent."""
        right, self._right = self._right, []
        return {"average": {"accuracy": 100 * torch.cat(right).double().mean().item() if right else None}}

    def outcome(self, records: Sequence[Record]) -> Record:
        """The last, mean and best accuracy of all evaluations, and their curve."""
        curve = [(record["student_step"], record["average"]["accuracy"]) for record in records]
        curve = [point for point in curve if point[1] is not None]
        if not curve:
            return {"average": None}
        values = [value for _, value in curve]
        summary = {"accuracy": values[-1], "mean": float(np.mean(values)), "max": max(values)}
        return {"average": summary | {"curve": curve}}
