"""The adversarial-example attack of AEAHL-RG on what a student step learns from, and the count of it."""

from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin

from lra.distillation.attack import Attacker
from lra.problem import Batch
from lra.state import State
from lra.strategies.evaluation import Measure
from lra.strategies.strategy import DataFreeDistillation


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
