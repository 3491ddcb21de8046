"""What a run measures of itself, as Avalanche metrics: each works in any `EvaluationPlugin`.

All speak at the end of an evaluation, as scalars for Avalanche's loggers and as a dictionary (`result`) for
`Recorder`, and can be saved and resumed.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from avalanche.evaluation.metric_definitions import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor, nn

from lra.alignment import gradient_alignment
from lra.evolution import evolution
from lra.features import Tap, penultimate
from lra.fidelity import agreement, class_histogram, loyalty, loyalty_reference
from lra.forgetting import AgreementMatrix
from lra.objective import Objective
from lra.preservation import in_mode, untouched
from lra.problem import Batch
from lra.state import State
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesizer import Synthesizer
from lra.teacher import Teacher


class Measure(PluginMetric[dict[str, Any]]):
    """A metric that measures once per evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, Any] = {}

    @abstractmethod
    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """What there is to say at the end of an evaluation, ready for JSON."""

    def after_eval(self, strategy: DataFreeDistillation) -> list[MetricValue]:
        """Measure, and hand the scalars to the loggers."""
        self._last = self.measure(strategy)
        step = strategy.clock.train_iterations
        return [MetricValue(self, name, value, step) for name, value in _scalars(self._last)]

    def result(self) -> dict[str, Any]:
        """The last measurement."""
        return self._last

    def reset(self) -> None:
        """Forget the last measurement."""
        self._last = {}

    def state_dict(self) -> State:
        """What a resumed run needs to go on measuring."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a record, under its path."""
    for name, value in record.items():
        if isinstance(value, float):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")


class TestFidelity(Measure):
    """Accuracy on a real test set, agreement with and loyalty to the teacher there, and the accuracy's evolution.

    For monitoring only: nothing in a run depends on it. Silent where there is no test set.
    """

    __test__ = False

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.curve: list[float] = []
        self._teacher = teacher
        self._answers: list[Tensor] = []
        self._seen: list[tuple[Tensor, Tensor]] = []

    def before_eval(self, strategy: DataFreeDistillation) -> None:
        """Start afresh."""
        self._seen = []

    def after_eval_iteration(self, strategy: DataFreeDistillation) -> None:
        """Keep the student's answers; ask the teacher once in the run, outside the count of its queries."""
        if len(self._answers) == len(self._seen):
            self._answers.append(self._teacher.network(strategy.mb_x))
        self._seen.append((strategy.mb_output, strategy.mb_y))

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Percentages, and loyalty in [0, 1]."""
        if not self._seen:
            return {"accuracy": None, "agreement": None, "loyalty": None, "loyalty_reference": None}
        student = torch.cat([output for output, _ in self._seen])
        classes = torch.cat([classes for _, classes in self._seen])
        teacher = torch.cat(self._answers)
        self._seen = []
        self.curve.append(100 * (student.argmax(dim=1) == classes).double().mean().item())
        summary = evolution(self.curve)
        return {
            "accuracy": summary.final,
            "accuracy_mean": summary.mean,
            "accuracy_variance": summary.variance,
            "agreement": 100 * agreement(student, teacher),
            "loyalty": loyalty(student, teacher),
            "loyalty_reference": loyalty_reference(student, teacher),
        }

    def state_dict(self) -> State:
        """The curve so far."""
        return {"curve": list(self.curve)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.curve = list(state["curve"])


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


class GradientAlignment(Measure):
    """cos(∇L_acq, ∇L_ret) and both losses, on the last step's new and replayed samples."""

    def __init__(self, objective: Objective):
        super().__init__()
        self._objective = objective

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """The cosine in [-1, 1], ``None`` without replay."""
        new, replayed = strategy.acquired, strategy.replayed
        if new is None or replayed is None:
            return {"alignment": None}
        with torch.enable_grad():
            aligned = gradient_alignment(strategy.model, self._objective, new, replayed)
        return {
            "alignment": aligned.cosine,
            "losses": {"acquisition": aligned.acquisition, "retention": aligned.retention},
        }


class Plasticity(Measure):
    """How an experience is learnt: the loss on fresh samples of it before and after its student steps.

    Also how far the teacher's features of fresh samples have moved since the last evaluation ("drift": distance
    of their means over the root mean square of their spread).

    Args:
        synthesizer: draws the fresh samples, without a trace.
        teacher: labels them.
        objective: the loss.
        every: experiences between evaluations, as given to `EvaluationCadence`.
        size: images per measurement.
    """

    def __init__(self, synthesizer: Synthesizer, teacher: Teacher, objective: Objective, every: int, size: int = 64):
        super().__init__()
        self._synthesizer = synthesizer
        self._teacher = teacher
        self._objective = objective
        self._every = every
        self._size = size
        self._opened = 0
        self._fresh: Batch | None = None
        self._before: float | None = None
        self._features: Tensor | None = None

    def before_training_exp(self, strategy: DataFreeDistillation) -> None:
        """Measure the student before it learns the experience that an evaluation will follow."""
        self._opened += 1
        if self._opened % self._every == 0:
            images = self._synthesizer.peek(self._size)
            self._fresh = Batch(images, self._teacher.network(images))
            self._before = self._loss(strategy.model, self._fresh)

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Losses on fresh samples, and drift."""
        if self._fresh is None:
            return {}
        after = self._loss(strategy.model, self._fresh)
        drift = self._drift(self._fresh)
        self._fresh = None
        return {"losses": {"acquisition_before": self._before, "acquisition_after": after}, "drift": drift}

    @torch.no_grad()
    def _loss(self, student: nn.Module, batch: Batch) -> float:
        with untouched(student):
            student.eval()
            return self._objective(student(batch.images), batch).item()

    @torch.no_grad()
    def _drift(self, batch: Batch) -> float | None:
        with Tap(self._teacher.network, [penultimate(self._teacher.network)]) as tap:
            self._teacher.network(batch.images)
        features, before = tap.values[0].flatten(1), self._features
        self._features = features
        if before is None:
            return None
        spread = (features.var(dim=0).sum() + before.var(dim=0).sum()).div(2).sqrt()
        return ((features.mean(dim=0) - before.mean(dim=0)).norm() / spread.clamp_min(1e-12)).item()

    def state_dict(self) -> State:
        """Count of experiences, features and the open measurement."""
        return {"opened": self._opened, "features": self._features}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._opened = state["opened"]
        self._features = state["features"]


class TrainingLosses(Measure):
    """Means since the last evaluation: the student's objective, each synthesis term, and what was generated."""

    def __init__(self) -> None:
        super().__init__()
        self._objective = torch.zeros(())
        self._steps = 0
        self._terms: dict[str, Tensor] = {}
        self._experiences = 0
        self._classes: Tensor | None = None

    def before_training_exp(self, strategy: DataFreeDistillation) -> None:
        """Note the loss terms of the update that opened the experience."""
        if strategy.synthesis is not None:
            self._experiences += 1
            for name, value in strategy.synthesis.terms.items():
                pair = torch.stack([torch.as_tensor(value.raw), torch.as_tensor(value.weighted)])
                self._terms[name] = self._terms[name] + pair if name in self._terms else pair

    def after_training_iteration(self, strategy: DataFreeDistillation) -> None:
        """Note the step's loss and the classes of its new samples."""
        self._objective = self._objective + strategy.loss.detach()
        self._steps += 1
        if strategy.acquired is not None:
            classes = class_histogram(strategy.acquired.logits)
            self._classes = classes if self._classes is None else self._classes + classes

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Means, and counts per class."""
        means = {name: pair / max(1, self._experiences) for name, pair in self._terms.items()}
        measured = {
            "losses": {"objective": (self._objective / max(1, self._steps)).item()},
            "synthesis": {name: {"raw": m[0].item(), "weighted": m[1].item()} for name, m in means.items()},
            "classes": None if self._classes is None else self._classes.tolist(),
        }
        self._objective, self._steps = torch.zeros(()), 0
        self._terms, self._experiences, self._classes = {}, 0, None
        return measured

    def state_dict(self) -> State:
        """The sums so far."""
        return {
            "objective": self._objective,
            "steps": self._steps,
            "terms": self._terms,
            "experiences": self._experiences,
            "classes": self._classes,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._objective, self._steps = state["objective"], state["steps"]
        self._terms, self._experiences = dict(state["terms"]), state["experiences"]
        self._classes = state["classes"]
