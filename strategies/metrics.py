"""The standard measures of every run; taking them does not affect the run.

The quantities of a whole run are declared in `lra.metrics.quantities`; a measure names those that it gives.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lra.distillation.objective import Objective
from lra.metrics.evolution import evolution, evolution_record
from lra.metrics.quantities import quantities
from lra.metrics.student import (
    agreement,
    class_accuracy,
    class_histogram,
    confusion,
    gradient_alignment,
    loyalties,
)
from lra.problem import Teacher
from lra.state import State
from lra.strategies.evaluation import Measure, Record
from lra.strategies.lra import LRA
from lra.strategies.probes import Plasticity, ProbeForgetting
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream

MOST_CLASSES = 100
"""Most classes for which a confusion matrix is kept."""


class TestFidelity(Measure):
    """Accuracy on a real test set, its evolution, and agreement with and loyalty to the teacher there.

    For monitoring only: nothing in a run depends on it. All values are ``None`` without a test set.

    Args:
        teacher: queried once per run; these queries are not counted.
        answers: its logits (n, K) for the test set in order, if they are known already.

    Attributes:
        by_class: at the last evaluation, for each class: the number of images, and the percentages of them that the
            teacher and the student classify correctly, ``None`` where there are none.
        confusion: the confusion matrix of the last evaluation, in images: true classes down, the student's across;
            ``None`` for more than `MOST_CLASSES` classes.
    """

    __test__ = False
    gives = quantities(
        *("accuracy", "max", "mean", "variance", "tail_mean", "tail_variance", "step_mean", "step_variance"),
        *("agreement", "loyalty", "loyalty_reference"),
    )

    def __init__(self, teacher: Teacher, answers: Tensor | None = None):
        super().__init__()
        self.curve: list[float] = []
        self.by_class: dict[str, list[Any]] | None = None
        self.confusion: list[list[int]] | None = None
        self._teacher = teacher
        self._known = answers
        self._answers: list[Tensor] = []
        self._seen: list[tuple[Tensor, Tensor]] = []

    def before_eval(self, strategy: DataFreeDistillation) -> None:
        """Start again."""
        self._seen = []

    def after_eval_iteration(self, strategy: DataFreeDistillation) -> None:
        """Keep the student's logits, and the teacher's if they are not known yet."""
        if self._known is None and len(self._answers) == len(self._seen):
            self._answers.append(self._teacher.network(strategy.mb_x))
        self._seen.append((strategy.mb_output, strategy.mb_y))

    def measure(self, strategy: DataFreeDistillation) -> Record:
        """Percentages, and loyalty in [0, 1]."""
        if not self._seen:
            return {quantity.record: None for quantity in self.gives if quantity.record}
        student = torch.cat([output for output, _ in self._seen])
        classes = torch.cat([classes for _, classes in self._seen])
        if self._known is None:
            self._known, self._answers = torch.cat(self._answers), []
        teacher = self._known = self._known.to(student.device)
        self._seen = []
        self.by_class = _by_class(student, teacher, classes)
        few = student.shape[1] <= MOST_CLASSES
        self.confusion = confusion(student, classes).tolist() if few else None
        self.curve.append(100 * (student.argmax(dim=1) == classes).double().mean().item())
        summary = evolution(self.curve)
        loyal, loyal_reference = loyalties(student, teacher)
        return {
            "accuracy": summary.final,
            "accuracy_mean": summary.mean,
            "accuracy_variance": summary.variance,
            "agreement": 100 * agreement(student, teacher),
            "loyalty": loyal,
            "loyalty_reference": loyal_reference,
        }

    def outcome(self, records: Sequence[Record]) -> Record:
        """The evolution of the accuracy with its curve, the last values by class, and the last of everything else."""
        curve = [(record["student_step"], record["accuracy"]) for record in records if record["accuracy"] is not None]
        evolved = evolution_record([accuracy for _, accuracy in curve]) | {"curve": curve} if curve else None
        return super().outcome(records) | {"accuracy": evolved, "by_class": self.by_class}

    def files(self) -> dict[str, Record]:
        """The confusion matrix at the end."""
        return {} if self.confusion is None else {"confusion.json": {"images": self.confusion}}

    def state_dict(self) -> State:
        """The curve so far, and the last values by class."""
        return {"curve": list(self.curve), "by_class": self.by_class, "confusion": self.confusion}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.curve = list(state["curve"])
        self.by_class, self.confusion = state.get("by_class"), state.get("confusion")


def _by_class(student: Tensor, teacher: Tensor, classes: Tensor) -> dict[str, list[Any]]:
    def percent(logits: Tensor) -> list[float | None]:
        shares = class_accuracy(logits, classes).tolist()
        return [None if math.isnan(share) else 100 * share for share in shares]

    images = torch.bincount(classes, minlength=student.shape[1]).tolist()
    return {"images": images, "teacher": percent(teacher), "student": percent(student)}


class GradientAlignment(Measure):
    """cos(∇L_acq, ∇L_ret) and both losses, on the last step's new and replayed samples."""

    gives = quantities("alignment")

    def __init__(self, objective: Objective, teacher: Teacher):
        super().__init__()
        self._objective = objective
        self._teacher = teacher

    def measure(self, strategy: DataFreeDistillation) -> Record:
        """The cosine in [-1, 1], ``None`` without replay."""
        new, replayed = strategy.acquired, strategy.replayed
        if new is None or replayed is None:
            return {"alignment": None}
        with torch.enable_grad(), self._teacher.uncounted():
            aligned = gradient_alignment(strategy.model, self._objective, new, replayed)
        return {
            "alignment": aligned.cosine,
            "losses": {"acquisition": aligned.acquisition, "retention": aligned.retention},
        }

    def outcome(self, records: Sequence[Record]) -> Record:
        """Mean of the cosines, also over their last half, and their number."""
        cosines = [record["alignment"] for record in records if record.get("alignment") is not None]
        tail = cosines[len(cosines) // 2 :]
        means = {"mean": cosines, "tail_mean": tail}
        found = {name: float(np.mean(values)) if values else None for name, values in means.items()}
        return {"alignment": found | {"count": len(cosines)}}


class LearnedRates(Measure):
    """α of each parameter of the student, if the LRA step learns them."""

    def measure(self, strategy: DataFreeDistillation) -> Record:
        """α by parameter name; empty where it is not learned."""
        steps = [plugin.lookahead for plugin in strategy.plugins if isinstance(plugin, LRA)]
        rates = [found for step in steps if (found := step.rates(strategy.model))]
        return {"alpha": rates[0]} if rates else {}


class TrainingLosses(Measure):
    """Means of the objective and synthesis terms since the last evaluation, and counts of generated classes.

    For each experience, the terms of the opening update and the loss and samples of the last student step are noted:
    a single callback per experience keeps a long stream cheap.
    """

    def __init__(self) -> None:
        super().__init__()
        self._objective = torch.zeros(())
        self._terms: dict[str, Tensor] = {}
        self._experiences = 0
        self._classes: Tensor | None = None

    def note(self, strategy: DataFreeDistillation) -> None:
        """Note an experience: the terms of its opening update, and the loss and new classes of its last step."""
        self._experiences += 1
        self._objective = self._objective + strategy.loss.detach()
        if strategy.synthesis is not None:
            for name, value in strategy.synthesis.terms.items():
                pair = torch.stack([torch.as_tensor(value.raw), torch.as_tensor(value.weighted)])
                self._terms[name] = self._terms[name] + pair if name in self._terms else pair
        if strategy.acquired is not None:
            classes = class_histogram(strategy.acquired.logits)
            self._classes = classes if self._classes is None else self._classes + classes

    def measure(self, strategy: DataFreeDistillation) -> Record:
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


def standard(
    stream: SynthesisStream,
    objective: Objective,
    answers: Tensor | None = None,
    probe_every: int = 1,
    probe_size: int = 64,
) -> list[Measure]:
    """The measures of every run.

    Args:
        stream: of the run.
        objective: what its student minimises.
        answers: the teacher's logits (n, K) for the test set in order, if they are known already.
        probe_every: evaluations from one probe to the next.
        probe_size: images per probe, and fresh images on which to measure plasticity.
    """
    synthesizer, teacher = stream.synthesizer, stream.teacher
    return [
        TestFidelity(teacher, answers),
        ProbeForgetting(synthesizer, teacher, probe_every, probe_size),
        GradientAlignment(objective, teacher),
        Plasticity(synthesizer, teacher, objective, probe_size),
        LearnedRates(),
        TrainingLosses(),
    ]
