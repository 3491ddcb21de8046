"""What AEAHL-RG adds to a strategy: its attack on what a student step learns from, and what it alone measures."""

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin

from lra.distillation.attack import Attacker
from lra.problem import Batch
from lra.state import State
from lra.strategies.evaluation import Measure
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import BatchSynthesizer


class AdversarialExamples(SupervisedPlugin):
    """Attacks new and replayed images before each step; their labels stay those of the clean ones.

    What buffers are offered (``strategy.acquired``) stays clean.

    Args:
        attacker: learns during synthesis.
    """

    def __init__(self, attacker: Attacker):
        super().__init__()
        self.attacker = attacker
        self.counts = {"images": 0, "swapped": 0, "attacked": 0, "queries": 0}

    def before_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Replace images and soft targets."""
        strategy.alter(self._applied)

    def _applied(self, batch: Batch) -> Batch:
        before = self.attacker.teacher.queries
        result = self.attacker.applied(batch)
        found = {"images": len(batch.images), "swapped": result.swapped, "attacked": result.attacked}
        found["queries"] = self.attacker.teacher.queries - before
        self.counts = {name: count + found[name] for name, count in self.counts.items()}
        return result.batch

    def state_dict(self) -> State:
        """The counts; the attacker's state is kept where it learns."""
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.counts = dict(state["counts"])


class AttackCount(Measure):
    """How many images were shown, swapped and attacked so far, and the teacher queries it took.

    Args:
        plugin: does it.
    """

    def __init__(self, plugin: AdversarialExamples):
        super().__init__()
        self._plugin = plugin

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Counts from the start of the run."""
        return {"attack": dict(self._plugin.counts)}

    def outcome(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The counts at the end."""
        return {"attack": records[-1]["attack"]}


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
