"""What a run measures of itself, as Avalanche metrics: each works in any `EvaluationPlugin`.

All speak at the end of an evaluation, as scalars for Avalanche's loggers and as a dictionary (`result`) for
`Recorder`, and can be saved and resumed.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from avalanche.evaluation.metric_definitions import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor

from lra.distillation.objective import Objective
from lra.metrics.alignment import gradient_alignment
from lra.metrics.evolution import evolution
from lra.metrics.fidelity import agreement, class_accuracy, class_histogram, loyalty, loyalty_reference
from lra.state import State
from lra.strategies.strategy import DataFreeDistillation
from lra.teacher import Teacher


class Measure(PluginMetric[dict[str, Any]]):
    """A metric that measures once per evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, Any] = {}

    @abstractmethod
    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """What there is to say at the end of an evaluation, ready for JSON."""

    def anticipate(self, strategy: DataFreeDistillation) -> None:
        """Look at the student before it learns the experience that this evaluation will follow."""

    def note(self, strategy: DataFreeDistillation) -> None:
        """Take note of an experience that has just been learnt, at next to no cost."""

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

    Args:
        teacher: asked once in the run, outside the count of its queries.
        answers: its logits (n, K) for the test set in order, if it has been asked already.

    Attributes:
        by_class: of the last evaluation, class by class: how many images there are, and the percentages of them that
            the teacher and the student get right, ``None`` where there are none.
    """

    __test__ = False

    def __init__(self, teacher: Teacher, answers: Tensor | None = None):
        super().__init__()
        self.curve: list[float] = []
        self.by_class: dict[str, list[Any]] | None = None
        self._teacher = teacher
        self._known = answers
        self._answers: list[Tensor] = []
        self._seen: list[tuple[Tensor, Tensor]] = []

    def before_eval(self, strategy: DataFreeDistillation) -> None:
        """Start afresh."""
        self._seen = []

    def after_eval_iteration(self, strategy: DataFreeDistillation) -> None:
        """Keep the student's answers, and the teacher's if they are not known yet."""
        if self._known is None and len(self._answers) == len(self._seen):
            self._answers.append(self._teacher.network(strategy.mb_x))
        self._seen.append((strategy.mb_output, strategy.mb_y))

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Percentages, and loyalty in [0, 1]."""
        if not self._seen:
            return {"accuracy": None, "agreement": None, "loyalty": None, "loyalty_reference": None}
        student = torch.cat([output for output, _ in self._seen])
        classes = torch.cat([classes for _, classes in self._seen])
        if self._known is None:
            self._known, self._answers = torch.cat(self._answers), []
        teacher = self._known = self._known.to(student.device)
        self._seen = []
        self.by_class = _by_class(student, teacher, classes)
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
        """The curve so far, and the classes of its end."""
        return {"curve": list(self.curve), "by_class": self.by_class}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.curve = list(state["curve"])
        self.by_class = state.get("by_class")


def _by_class(student: Tensor, teacher: Tensor, classes: Tensor) -> dict[str, list[Any]]:
    def percent(logits: Tensor) -> list[float | None]:
        shares = class_accuracy(logits, classes).tolist()
        return [None if math.isnan(share) else 100 * share for share in shares]

    images = torch.bincount(classes, minlength=student.shape[1]).tolist()
    return {"images": images, "teacher": percent(teacher), "student": percent(student)}


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


class TrainingLosses(Measure):
    """Means over the experiences since the last evaluation: objective, synthesis terms, and what was generated.

    Of each experience, the opening update's terms and the last student step's loss and samples are noted: one
    callback per experience is what keeps a long stream cheap.
    """

    def __init__(self) -> None:
        super().__init__()
        self._objective = torch.zeros(())
        self._terms: dict[str, Tensor] = {}
        self._experiences = 0
        self._classes: Tensor | None = None

    def note(self, strategy: DataFreeDistillation) -> None:
        """Note an experience: its opening update's terms, the last step's loss and its new samples' classes."""
        self._experiences += 1
        self._objective = self._objective + strategy.loss.detach()
        if strategy.synthesis is not None:
            for name, value in strategy.synthesis.terms.items():
                pair = torch.stack([torch.as_tensor(value.raw), torch.as_tensor(value.weighted)])
                self._terms[name] = self._terms[name] + pair if name in self._terms else pair
        if strategy.acquired is not None:
            classes = class_histogram(strategy.acquired.logits)
            self._classes = classes if self._classes is None else self._classes + classes

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Means, and counts per class."""
        means = {name: pair / max(1, self._experiences) for name, pair in self._terms.items()}
        measured = {
            "losses": {"objective": (self._objective / max(1, self._experiences)).item()},
            "synthesis": {name: {"raw": m[0].item(), "weighted": m[1].item()} for name, m in means.items()},
            "classes": None if self._classes is None else self._classes.tolist(),
        }
        self._objective, self._experiences = torch.zeros(()), 0
        self._terms, self._classes = {}, None
        return measured

    def state_dict(self) -> State:
        """The sums so far."""
        return {
            "objective": self._objective,
            "terms": self._terms,
            "experiences": self._experiences,
            "classes": self._classes,
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._objective, self._experiences = state["objective"], state["experiences"]
        self._terms = dict(state["terms"])
        self._classes = state["classes"]
