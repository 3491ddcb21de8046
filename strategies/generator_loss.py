"""The loss of every inner step of synthesis, for methods whose convergence is to be looked at."""

from typing import Any

from lra.state import State
from lra.strategies.evaluation import Measure
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import BatchSynthesizer


class GeneratorLoss(Measure):
    """What each inner step since the last evaluation minimised, one number a step.

    Args:
        synthesizer: optimises batches.
    """

    def __init__(self, synthesizer: BatchSynthesizer):
        super().__init__()
        self._synthesizer = synthesizer
        self._losses: list[float] = []

    def note(self, strategy: DataFreeDistillation) -> None:
        """The inner steps that opened an experience."""
        self._losses += self._synthesizer.losses

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """The losses, in order."""
        losses, self._losses = self._losses, []
        return {"generator_loss": losses}

    def state_dict(self) -> State:
        """The losses since the last evaluation."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._losses = list(state["losses"])
