"""Measures that look at fresh samples of the open experience, and leave no trace in the run."""

from typing import Any

import torch
from torch import Tensor, nn

from lra.anatomy import HeadNotFound
from lra.distillation.objective import Objective
from lra.features import FeatureTap
from lra.metrics.fidelity import agreement
from lra.metrics.forgetting import AgreementMatrix
from lra.preservation import in_mode, untouched
from lra.problem import Batch
from lra.state import State
from lra.strategies.metrics import Measure
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.synthesizer import Synthesizer
from lra.teacher import Teacher


class ProbeForgetting(Measure):
    """Agreement with the teacher on frozen probes of earlier experiences.

    At every ``every``-th evaluation a fresh batch is drawn from the open experience and frozen; the student is
    scored on all probes at every evaluation, on a new one at once. Probes are never trained on and drawing them
    leaves no trace in the run.

    Args:
        synthesizer: where probes come from.
        teacher: whose answers are kept with them.
        every: evaluations from one probe to the next.
        size: images per probe.
    """

    def __init__(self, synthesizer: Synthesizer, teacher: Teacher, every: int = 1, size: int = 64):
        super().__init__()
        self.matrix = AgreementMatrix()
        self._synthesizer = synthesizer
        self._teacher = teacher
        self._every = every
        self._size = size
        self._probes: list[Batch] = []
        self._births: list[int] = []
        self._evaluations = 0

    @torch.no_grad()
    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Agreement (percent) and L1 gap on every probe, and the forgetting they show."""
        step = strategy.clock.train_iterations
        if self._evaluations % self._every == 0:
            images = self._synthesizer.peek(self._size)
            self._probes.append(Batch(images, self._teacher.network(images)))
            self._births.append(step)
        self._evaluations += 1
        scores, gaps = self._score(strategy.model)
        self.matrix.add(step, self._births, scores)
        forgetting = self.matrix.summary()
        return {
            "probes": {"birth": list(self._births), "agreement": scores, "l1": gaps},
            "forgetting": None if forgetting is None else forgetting.average,
            "bwt": None if forgetting is None else forgetting.bwt,
        }

    def _score(self, student: nn.Module) -> tuple[list[float], list[float]]:
        with in_mode(student, training=False):
            outputs = student(torch.cat([probe.images for probe in self._probes])).split(self._size)
        pairs = list(zip(outputs, (probe.logits for probe in self._probes), strict=True))
        return (
            [100 * agreement(output, logits) for output, logits in pairs],
            [(output - logits).abs().mean().item() for output, logits in pairs],
        )

    def state_dict(self) -> State:
        """Probes, their births and all scores."""
        return {
            "probes": [[probe.images, probe.logits] for probe in self._probes],
            "births": self._births,
            "evaluations": self._evaluations,
            "checkpoints": self.matrix.checkpoints,
            "rows": self.matrix.rows,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._probes = [Batch(images, logits) for images, logits in state["probes"]]
        self._births = list(state["births"])
        self._evaluations = state["evaluations"]
        self.matrix.births = list(state["births"])
        self.matrix.checkpoints = list(state["checkpoints"])
        self.matrix.rows = [list(row) for row in state["rows"]]


class Plasticity(Measure):
    """How an experience is learnt: the loss on fresh samples of it before and after its student steps.

    Also what that loss is made of afterwards (`Objective.parts`), and how far the teacher's features of fresh samples
    have moved since the last evaluation ("drift": distance of their means over the root mean square of their spread;
    none where the teacher does not show where its features are).

    Args:
        synthesizer: draws the fresh samples, without a trace.
        teacher: labels them.
        objective: the loss.
        size: images per measurement.
    """

    def __init__(self, synthesizer: Synthesizer, teacher: Teacher, objective: Objective, every: int, size: int = 64):
        super().__init__()
        self._synthesizer = synthesizer
        self._teacher = teacher
        self._objective = objective
        self._size = size
        self._fresh: Batch | None = None
        self._before: float | None = None
        self._features: Tensor | None = None

    def anticipate(self, strategy: DataFreeDistillation) -> None:
        """Measure the student before it learns the experience."""
        images = self._synthesizer.peek(self._size)
        self._fresh = Batch(images, self._teacher.network(images))
        self._before = self._losses(strategy.model, self._fresh)["objective"]

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Losses on fresh samples, and drift."""
        if self._fresh is None:
            return {}
        after = self._losses(strategy.model, self._fresh)
        drift = self._drift(self._fresh)
        self._fresh = None
        losses = {"acquisition_before": self._before, "acquisition_after": after.pop("objective")}
        return {"losses": losses, "parts": after, "drift": drift}

    @torch.no_grad()
    def _losses(self, student: nn.Module, batch: Batch) -> dict[str, float]:
        with untouched(student):
            student.eval()
            logits = student(batch.images)
            parts = {"objective": self._objective(logits, batch)} | self._objective.parts(logits, batch)
            return {name: value.item() for name, value in parts.items()}

    @torch.no_grad()
    def _drift(self, batch: Batch) -> float | None:
        try:
            tap = FeatureTap(self._teacher.network, batch.images.shape[1:])
        except HeadNotFound:
            return None
        with tap:
            self._teacher.network(batch.images)
        features, before = tap.values[0].flatten(1), self._features
        self._features = features
        if before is None:
            return None
        spread = (features.var(dim=0).sum() + before.var(dim=0).sum()).div(2).sqrt()
        return ((features.mean(dim=0) - before.mean(dim=0)).norm() / spread.clamp_min(1e-12)).item()

    def state_dict(self) -> State:
        """The features of the last evaluation."""
        return {"features": self._features}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._features = state["features"]
