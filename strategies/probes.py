"""What is measured on samples of the stream: forgetting on frozen probes, and plasticity on fresh samples."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from lra.anatomy import HeadNotFound
from lra.distillation.objective import Objective
from lra.features import FeatureTap
from lra.metrics.evolution import AgreementMatrix
from lra.metrics.quantities import quantities
from lra.metrics.student import agreement
from lra.problem import Batch, Teacher
from lra.state import State, in_mode, untouched
from lra.strategies.evaluation import Measure, Record
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.synthesizer import Synthesizer


class ProbeForgetting(Measure):
    """Agreement with the teacher on frozen probes of earlier experiences.

    At every ``every``-th evaluation a fresh batch is drawn from the open experience and frozen; at every evaluation the
    student is scored on all probes, including a new one. Probes are never trained on, and drawing them does not affect
    the run.

    Args:
        synthesizer: draws the probes.
        teacher: whose answers are kept with them.
        every: evaluations from one probe to the next.
        size: images per probe.

    Attributes:
        matrix: agreement of every checkpoint on every probe.
    """

    gives = quantities("forgetting", "forgetting_maximum", "bwt")
    _file = "forgetting.json"

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
    def measure(self, strategy: DataFreeDistillation) -> Record:
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

    def outcome(self, records: Sequence[Record]) -> Record:
        """The forgetting at the end, or the reason why there is none to report."""
        forgetting = self.matrix.summary()
        few = "one evaluation" if len(records) == 1 else "no probe was evaluated twice"
        told = {"reason": f"{few}: what is forgotten shows from the second on"}
        return {"forgetting": (told if forgetting is None else asdict(forgetting)) | {"matrix_file": self._file}}

    def files(self) -> dict[str, Record]:
        """Agreement on every probe at every checkpoint."""
        return {self._file: self.matrix.record()}

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
    """How well an experience is learnt: the loss on fresh samples of it before and after its student steps.

    It also gives the parts of the loss afterwards (`Objective.parts`), and how far the teacher's features of fresh
    samples have moved since the last evaluation ("drift": the distance of their means over the root mean square of
    their spread; ``None`` where the teacher's features cannot be located).

    Args:
        synthesizer: draws the fresh samples, without affecting the run.
        teacher: labels them.
        objective: the loss.
        size: images per measurement.
    """

    def __init__(self, synthesizer: Synthesizer, teacher: Teacher, objective: Objective, size: int = 64):
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

    def measure(self, strategy: DataFreeDistillation) -> Record:
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
        with untouched(student), self._teacher.uncounted():
            student.eval()
            view = self._objective.view(student, batch)
            parts = {"objective": self._objective.loss(view)} | self._objective.parts(view)
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
