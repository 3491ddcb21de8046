"""The quantities measured of a run: each is declared once, here, and everything that shows it reads this.

A `lra.strategies.evaluation.Measure` names the quantities that it gives. The columns of ``lra-bench compare``, reports,
progress lines, model cards and the documentation are made from these declarations, so that a quantity has the same
name, unit and number of digits everywhere. Nothing here needs torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lra.metrics.evolution import by_step

Bounds = tuple[float, float]
"""The smallest and the largest possible value."""
ANY: Bounds = (-math.inf, math.inf)
NOT_NEGATIVE: Bounds = (0.0, math.inf)
Curve = Sequence[Sequence[float]]
"""Points (student step, value)."""


@dataclass(frozen=True)
class Need:
    """Something that not every run has.

    Attributes:
        words: what it is, as said after "it needs".
        shown_by: path in ``result.json`` that has a value if the run has it.
        other_kind: whether runs without it are of another kind, so that its absence is not worth reporting.
    """

    words: str
    shown_by: str
    other_kind: bool = False


TEST_SET = Need("a test set", "accuracy.final")
SEVERAL_EVALUATIONS = Need("a curve of several evaluations", "accuracy.mean")
PROBES = Need("several evaluations with probes", "forgetting.average")
REPLAY = Need("a replay", "alignment.mean")
AVERAGE = Need("a student's average (student.ema)", "average.accuracy", other_kind=True)
INCREMENT = Need("a run of increments", "average_incremental_accuracy", other_kind=True)
TASKS = Need("several tasks in sequence", "later", other_kind=True)
GENERATOR_LOSS = Need(
    "the loss of every step of synthesis, which aeahl-rg records", "later.early_loss", other_kind=True
)
QUANTIZED = Need("a quantised student", "quantization", other_kind=True)


@dataclass(frozen=True)
class Quantity:
    """A number that a run has, or could have.

    Attributes:
        name: by which a user selects it.
        path: where it is in ``result.json``, as keys joined by dots; all paths here have this form.
        title: its title in tables.
        unit: of its value; empty where the title implies it.
        digits: decimal places in a table of many quantities.
        digits_alone: decimal places where one run is shown in full; as ``digits`` if not given.
        signed: write a plus sign there too.
        better: +1 where more is better, -1 where less is, 0 where neither is.
        needs: what a run must have for it, in the order in which they are checked.
        meaning: what it is, in a few words.
        title_alone: its title outside of tables; as in tables if not given.
        record: path in the record of an evaluation, if it is there.
        mean_of_records: whether a run's value is the mean of its records, not the last one.
        minus: path of the number that is subtracted from the one at ``path``.
        of_curve: computes it from the curve at ``path``.
        cost: whether it is a budget or a cost of the run, and so is compared without an interval.
        bounds: smallest and largest possible value, where the unit does not imply them; see `within`.
    """

    name: str
    path: str
    title: str
    unit: str = ""
    digits: int = 2
    digits_alone: int | None = None
    signed: bool = False
    better: int = 0
    needs: tuple[Need, ...] = ()
    meaning: str = ""
    title_alone: str = ""
    record: str = ""
    mean_of_records: bool = False
    minus: str = ""
    of_curve: Callable[[Curve], float | None] | None = None
    cost: bool = False
    bounds: Bounds | None = None

    @property
    def within(self) -> Bounds:
        """The smallest and the largest possible value: no interval goes beyond them."""
        if self.bounds is not None:
            return self.bounds
        return {"%": PERCENT, "points": (-100.0, 100.0)}.get(self.unit, NOT_NEGATIVE if self.cost else ANY)

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def usual(self) -> bool:
        """Whether every run of distillation could have it."""
        return not any(need.other_kind for need in self.needs)

    @property
    def derived(self) -> bool:
        """Whether it is computed from other values in ``result.json``."""
        return bool(self.minus or self.of_curve)


PERCENT: Bounds = (0.0, 100.0)
SQUARED: Bounds = (0.0, 2500.0)
"""Bounds of the variance of percentages."""
_FINAL = "accuracy.final"
_UNTRAINED = "quantization.post_training.accuracy"
_TESTED = (TEST_SET,)
_EVOLVED = (TEST_SET, SEVERAL_EVALUATIONS)

# fmt: off
_DECLARED = (
    Quantity("accuracy", _FINAL, "accuracy, final", "%", better=1, needs=_TESTED, record="accuracy",
             title_alone="final accuracy", meaning="at the last evaluation; for tasks in sequence, their mean"),
    Quantity("max", "accuracy.max", "max", "%", better=1, needs=_TESTED, title_alone="best, max",
             meaning="best of all evaluations"),
    Quantity("mean", "accuracy.mean", "μ", "%", better=1, needs=_EVOLVED, title_alone="mean over the run, μ",
             meaning="mean over every evaluation from the first"),
    Quantity("variance", "accuracy.variance", "σ²", better=-1, needs=_EVOLVED, title_alone="variance over the run, σ²",
             bounds=SQUARED, meaning="population variance over every evaluation from the first, in squared points; it "
             "includes the initial rise, so that it is larger where more is learnt"),
    Quantity("tail_mean", "accuracy.tail_mean", "μ, last half", "%", better=1, needs=_EVOLVED,
             meaning="the same without the initial rise"),
    Quantity("tail_variance", "accuracy.tail_variance", "σ², last half", better=-1, needs=_EVOLVED, bounds=SQUARED,
             meaning="how much the accuracy fluctuates once the student has learnt"),
    Quantity("step_mean", "accuracy.curve", "μ by student step", "%", better=1, needs=_EVOLVED,
             of_curve=lambda curve: by_step(curve)[0],
             meaning="mean with each evaluation weighted by the student steps since the one before"),
    Quantity("step_variance", "accuracy.curve", "σ² by student step", better=-1, needs=_EVOLVED, bounds=SQUARED,
             of_curve=lambda curve: by_step(curve)[1], meaning="variance, weighted likewise, in squared points"),
    Quantity("average_accuracy", "average.accuracy", "average’s accuracy, final", "%", better=1,
             needs=(AVERAGE, TEST_SET), record="average.accuracy",
             title_alone="final accuracy of the student’s average",
             meaning="accuracy of the moving average of the student’s weights, at the last evaluation"),
    Quantity("average_mean", "average.mean", "average’s μ", "%", better=1, needs=(AVERAGE, TEST_SET),
             meaning="mean accuracy of that moving average over every evaluation from the first"),
    Quantity("average_max", "average.max", "average’s max", "%", better=1, needs=(AVERAGE, TEST_SET),
             meaning="best accuracy of that moving average over all evaluations"),
    Quantity("lost", "teacher.accuracy", "below the teacher", "points", minus=_FINAL, better=-1, needs=_TESTED,
             meaning="the teacher’s accuracy minus the student’s final one"),
    Quantity("forgetting", "forgetting.average", "forgetting", "points", better=-1, needs=(PROBES,),
             record="forgetting", title_alone="average forgetting",
             meaning="forgetting of probe e = best agreement at any earlier checkpoint minus agreement now (Chaudhry "
             "et al. 2018), averaged over probes"),
    Quantity("forgetting_maximum", "forgetting.maximum", "forgetting, maximum", "points", better=-1, needs=(PROBES,),
             meaning="forgetting of the probe that was forgotten most"),
    Quantity("bwt", "forgetting.bwt", "BWT", "points", signed=True, better=1, needs=(PROBES,), record="bwt",
             title_alone="backward transfer",
             meaning="backward transfer: agreement now minus agreement when the probe was taken, averaged over probes"),
    Quantity("average_incremental", "average_incremental_accuracy", "average incremental", "%", better=1,
             needs=(INCREMENT,), title_alone="average incremental accuracy",
             meaning="mean over experiences of the accuracy on all classes met so far"),
    Quantity("forgetting_from_best", "forgetting_from_best", "forgetting from the best", "points", better=-1,
             needs=(INCREMENT,), meaning="best earlier accuracy on an experience minus that at the end, averaged"),
    Quantity("later_accuracy", "later.accuracy", "accuracy, later tasks", "%", better=1, needs=(TASKS, TEST_SET),
             meaning="mean over the tasks of a chain except the first, which takes nothing over"),
    Quantity("later_steps", "later.student_steps", "steps to 90 %, later tasks", digits=0, better=-1,
             needs=(TASKS, TEST_SET), meaning="student steps until agreement first reaches 90 % of its final value"),
    Quantity("early_loss", "later.early_loss", "generator loss, early", better=-1, needs=(TASKS, GENERATOR_LOSS),
             meaning="mean over the first 100 inner steps of synthesis of each later task"),
    Quantity("late_loss", "later.late_loss", "generator loss, late", better=-1, needs=(TASKS, GENERATOR_LOSS),
             meaning="mean over the last 100 of them"),
    Quantity("agreement", "agreement", "agreement", "%", better=1, needs=_TESTED, record="agreement",
             title_alone="agreement with the teacher",
             meaning="share of images on which student and teacher predict the same class"),
    Quantity("loyalty", "loyalty", "loyalty", digits=3, digits_alone=4, better=1, needs=_TESTED, record="loyalty",
             bounds=(0, 1), meaning="closeness of the student’s class probabilities to the teacher’s"),
    Quantity("loyalty_reference", "loyalty_reference", "loyalty, reference", digits=3, digits_alone=4, better=1,
             needs=_TESTED, record="loyalty_reference", bounds=(0, 1),
             meaning="loyalty in the form that the published code computes"),
    Quantity("alignment", "alignment.mean", "alignment", digits=3, digits_alone=4, signed=True, needs=(REPLAY,),
             record="alignment", mean_of_records=True, bounds=(-1, 1), title_alone="gradient alignment",
             meaning="mean cosine of the acquisition and retention gradients"),
    Quantity("student_steps", "cost.student_steps", "student steps", digits=0, cost=True, record="student_step",
             meaning="updates of the student"),
    Quantity("experiences", "cost.experiences", "experiences", digits=0, cost=True, record="experience",
             meaning="one for each generator update"),
    Quantity("generator_steps", "cost.generator_steps", "generator steps", digits=0, cost=True,
             meaning="updates of the generator, or of optimised images"),
    Quantity("class_statistics", "cost.class_statistics", "class statistics", digits=0, better=-1, cost=True,
             needs=(INCREMENT,), meaning="numbers kept that were measured on the data of earlier classes"),
    Quantity("images", "cost.images_generated", "images generated", digits=0, cost=True),
    Quantity("teacher_queries", "cost.teacher_queries", "teacher queries", digits=0, better=-1, cost=True,
             meaning="images shown to the teacher"),
    Quantity("seconds", "cost.seconds", "seconds", digits=1, better=-1, cost=True, title_alone="time",
             meaning="wall clock"),
    Quantity("processor_seconds", "cost.processor_seconds", "CPU seconds", digits=1, better=-1, cost=True,
             meaning="processor time of all threads of the process, whatever else the machine does"),
    Quantity("memory", "cost.peak_memory_mb", "peak memory", "MB", digits=0, better=-1, cost=True,
             meaning="peak memory of the process"),
    Quantity("post_training", _UNTRAINED, "post-training, on noise", "%", better=1, needs=(QUANTIZED, TEST_SET),
             meaning="accuracy of the quantised student with min-max ranges from noise, before training"),
    Quantity("gained", _FINAL, "above post-training", "points", minus=_UNTRAINED, better=1,
             needs=(QUANTIZED, TEST_SET), meaning="the final accuracy minus that of post-training quantization"),
    Quantity("bits", "quantization.bits_per_weight", "bits per weight", better=-1, needs=(QUANTIZED,), cost=True,
             meaning="bits of everything that must be stored, divided by the number of parameters"),
)
# fmt: on

QUANTITIES = {quantity.name: quantity for quantity in _DECLARED}
"""All quantities by name, in the order of tables."""

COMPARED = (
    "accuracy",
    "average_accuracy",
    "mean",
    "variance",
    "max",
    "tail_mean",
    "tail_variance",
    "forgetting",
    "agreement",
    "loyalty",
    "alignment",
    "student_steps",
    "seconds",
    "processor_seconds",
    "teacher_queries",
)
"""Quantities that a comparison shows by default, as far as some run has them."""
COMPARED_INCREMENTS = (
    *("accuracy", "average_incremental", "forgetting", "forgetting_from_best", "generator_steps"),
    *("class_statistics", "seconds"),
)
"""The same for runs of increments."""
COMPARED_TASKS = (
    *("accuracy", "later_accuracy", "later_steps", "early_loss", "late_loss"),
    *("student_steps", "seconds", "teacher_queries"),
)
"""The same for tasks in sequence."""
TILES = ("accuracy", "mean", "tail_variance", "max", "forgetting", "agreement", "student_steps", "seconds")
"""Quantities at the head of a run's report."""
FOLLOWED = ("accuracy", "agreement", "forgetting")
"""Quantities in a progress line on an evaluation."""
ON_CARDS = ("accuracy", "average_accuracy", "agreement", "mean", "tail_variance", "forgetting")
"""Quantities on a model card."""


def at(record: object, path: str) -> Any:
    """The value at a path in a record; ``None`` if there is none."""
    for key in path.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def quantities(*names: str) -> tuple[Quantity, ...]:
    """The quantities with these names, in this order."""
    return tuple(QUANTITIES[name] for name in names)
