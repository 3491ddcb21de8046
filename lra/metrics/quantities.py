"""What is known of a run in numbers: each quantity is declared once, here, and everything that shows it reads this.

A `lra.strategies.metrics.Measure` names the quantities that it gives. The columns of ``lra-bench compare``, the tables
and tiles of reports, what progress says, model cards and the documentation are made from their declarations, so that a
number has one name, one unit and as many digits wherever it stands. Nothing here needs torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lra.metrics.evolution import by_step

Bounds = tuple[float, float]
"""The least and the greatest that a number can be."""
ANY: Bounds = (-math.inf, math.inf)
Curve = Sequence[Sequence[float]]
"""Points (student step, value)."""


@dataclass(frozen=True)
class Need:
    """Something that not every run has.

    Attributes:
        words: what it is, after "it needs".
        shown_by: where ``result.json`` has something if the run has it.
        other_kind: whether those without it are another kind of run, of which nothing is said for want of it.
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
        name: by which a user asks for it.
        path: where it stands in ``result.json``, as keys with dots between them; so are all places here.
        title: what tables call it.
        unit: of its value; none where the title says it.
        digits: after the point, in a table of many.
        digits_alone: where one run is shown in full; as many if not given.
        signed: write a plus there too.
        better: +1 where more is better, -1 where less is, 0 where neither is.
        needs: what a run must have for it, the first of them first.
        meaning: what it is, in a few words.
        title_alone: what it is called outside of tables; as in tables if not given.
        record: where it stands in the record of an evaluation, if it does.
        mean_of_records: whether a run has the mean of its records for it, and not the last.
        minus: where the number stands that is taken from that at ``path``.
        of_curve: what computes it from the curve at ``path``.
        cost: whether it is what a run was given, or took: compared without an interval.
        bounds: the least and the greatest that it can be, where its unit does not say; see `within`.
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
        """The least and the greatest that it can be: no interval goes beyond."""
        if self.bounds is not None:
            return self.bounds
        return {"%": PERCENT, "points": (-100.0, 100.0)}.get(self.unit, (0.0, math.inf) if self.cost else ANY)

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def usual(self) -> bool:
        """Whether any run that distils could have it."""
        return not any(need.other_kind for need in self.needs)

    @property
    def derived(self) -> bool:
        """Whether ``result.json`` has it only as what it is computed from."""
        return bool(self.minus or self.of_curve)


PERCENT: Bounds = (0.0, 100.0)
SQUARED: Bounds = (0.0, 2500.0)
"""Of the variance of percentages."""
_FINAL = "accuracy.final"
_UNTRAINED = "quantization.post_training.accuracy"
_TESTED = (TEST_SET,)
_EVOLVED = (TEST_SET, SEVERAL_EVALUATIONS)

# fmt: off
_DECLARED = (
    Quantity("accuracy", _FINAL, "accuracy, final", "%", better=1, needs=_TESTED, record="accuracy",
             title_alone="final accuracy", meaning="at the last evaluation; of tasks in sequence their mean"),
    Quantity("max", "accuracy.max", "max", "%", better=1, needs=_TESTED, title_alone="best, max",
             meaning="best of all evaluations"),
    Quantity("mean", "accuracy.mean", "μ", "%", better=1, needs=_EVOLVED, title_alone="mean over the run, μ",
             meaning="mean over every evaluation from the first"),
    Quantity("variance", "accuracy.variance", "σ²", better=-1, needs=_EVOLVED, title_alone="variance over the run, σ²",
             bounds=SQUARED, meaning="population variance over every evaluation from the first, in squared points; the "
             "rise counts as well, so that it is larger where more is learnt"),
    Quantity("tail_mean", "accuracy.tail_mean", "μ, last half", "%", better=1, needs=_EVOLVED,
             meaning="the same without the rise at the start"),
    Quantity("tail_variance", "accuracy.tail_variance", "σ², last half", better=-1, needs=_EVOLVED, bounds=SQUARED,
             meaning="how much the student swings once it has learnt"),
    Quantity("step_mean", "accuracy.curve", "μ by student step", "%", better=1, needs=_EVOLVED,
             of_curve=lambda curve: by_step(curve)[0],
             meaning="mean with each evaluation weighted by the student steps since the one before"),
    Quantity("step_variance", "accuracy.curve", "σ² by student step", better=-1, needs=_EVOLVED, bounds=SQUARED,
             of_curve=lambda curve: by_step(curve)[1], meaning="variance weighted likewise, in squared points"),
    Quantity("average_accuracy", "average.accuracy", "average’s accuracy, final", "%", better=1,
             needs=(AVERAGE, TEST_SET), record="average.accuracy",
             title_alone="final accuracy of the student’s average",
             meaning="of the moving average of the student’s weights, at the last evaluation"),
    Quantity("average_mean", "average.mean", "average’s μ", "%", better=1, needs=(AVERAGE, TEST_SET),
             meaning="mean accuracy of that over every evaluation from the first"),
    Quantity("average_max", "average.max", "average’s max", "%", better=1, needs=(AVERAGE, TEST_SET),
             meaning="its best of all evaluations"),
    Quantity("lost", "teacher.accuracy", "below the teacher", "points", minus=_FINAL, better=-1, needs=_TESTED,
             meaning="the teacher’s accuracy minus the student’s final one"),
    Quantity("forgetting", "forgetting.average", "forgetting", "points", better=-1, needs=(PROBES,),
             record="forgetting", title_alone="average forgetting",
             meaning="forgetting of probe e = best agreement at any earlier checkpoint minus agreement now (Chaudhry "
             "et al. 2018), averaged over probes"),
    Quantity("forgetting_maximum", "forgetting.maximum", "forgetting, maximum", "points", better=-1, needs=(PROBES,),
             meaning="of the probe that was forgotten most"),
    Quantity("bwt", "forgetting.bwt", "BWT", "points", signed=True, better=1, needs=(PROBES,), record="bwt",
             title_alone="backward transfer",
             meaning="backward transfer: agreement now minus agreement when the probe was taken, averaged over probes"),
    Quantity("average_incremental", "average_incremental_accuracy", "average incremental", "%", better=1,
             needs=(INCREMENT,), title_alone="average incremental accuracy",
             meaning="mean over experiences of the accuracy on all classes met"),
    Quantity("forgetting_from_best", "forgetting_from_best", "forgetting from the best", "points", better=-1,
             needs=(INCREMENT,), meaning="best accuracy on an experience at any earlier time minus that at the end"),
    Quantity("later_accuracy", "later.accuracy", "accuracy, later tasks", "%", better=1, needs=(TASKS, TEST_SET),
             meaning="mean over the tasks of a chain but the first, into which nothing is carried"),
    Quantity("later_steps", "later.student_steps", "steps to 90 %, later tasks", digits=0, better=-1,
             needs=(TASKS, TEST_SET), meaning="student steps until the agreement is first at 90 % of the final one"),
    Quantity("early_loss", "later.early_loss", "generator loss, early", better=-1, needs=(TASKS, GENERATOR_LOSS),
             meaning="mean over the first 100 inner steps of synthesis of each later task"),
    Quantity("late_loss", "later.late_loss", "generator loss, late", better=-1, needs=(TASKS, GENERATOR_LOSS),
             meaning="mean over the last 100 of them"),
    Quantity("agreement", "agreement", "agreement", "%", better=1, needs=_TESTED, record="agreement",
             title_alone="agreement with the teacher",
             meaning="share of images on which student and teacher name the same class"),
    Quantity("loyalty", "loyalty", "loyalty", digits=3, digits_alone=4, better=1, needs=_TESTED, record="loyalty",
             bounds=(0, 1), meaning="closeness of the student’s class probabilities to the teacher’s"),
    Quantity("loyalty_reference", "loyalty_reference", "loyalty, reference", digits=3, digits_alone=4, better=1,
             needs=_TESTED, record="loyalty_reference", bounds=(0, 1),
             meaning="the form that the published code computes"),
    Quantity("alignment", "alignment.mean", "alignment", digits=3, digits_alone=4, signed=True, needs=(REPLAY,),
             record="alignment", mean_of_records=True, bounds=(-1, 1), title_alone="gradient alignment",
             meaning="mean cosine of acquisition and retention gradient"),
    Quantity("student_steps", "cost.student_steps", "student steps", digits=0, cost=True, record="student_step",
             meaning="updates of the student"),
    Quantity("experiences", "cost.experiences", "experiences", digits=0, cost=True, record="experience",
             meaning="one for each generator update"),
    Quantity("generator_steps", "cost.generator_steps", "generator steps", digits=0, cost=True,
             meaning="updates of the synthesizer"),
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
             meaning="of the process"),
    Quantity("post_training", _UNTRAINED, "post-training, on noise", "%", better=1, needs=(QUANTIZED, TEST_SET),
             meaning="accuracy of the quantised student by min-max on noise, before it is trained"),
    Quantity("gained", _FINAL, "above post-training", "points", minus=_UNTRAINED, better=1,
             needs=(QUANTIZED, TEST_SET), meaning="the final accuracy minus that"),
    Quantity("bits", "quantization.bits_per_weight", "bits per weight", better=-1, needs=(QUANTIZED,), cost=True,
             meaning="all that must be stored, in bits, over the number of parameters"),
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
"""What a comparison shows that names nothing; of what only another kind of run has, what some run has."""
COMPARED_INCREMENTS = (
    *("accuracy", "average_incremental", "forgetting", "forgetting_from_best", "generator_steps"),
    *("class_statistics", "seconds"),
)
"""The same of runs of increments."""
COMPARED_TASKS = (
    *("accuracy", "later_accuracy", "later_steps", "early_loss", "late_loss"),
    *("student_steps", "seconds", "teacher_queries"),
)
"""The same of tasks in sequence."""
TILES = ("accuracy", "mean", "tail_variance", "max", "forgetting", "agreement", "student_steps", "seconds")
"""What heads the report of a run."""
FOLLOWED = ("accuracy", "agreement", "forgetting")
"""What progress says of an evaluation."""
ON_CARDS = ("accuracy", "average_accuracy", "agreement", "mean", "tail_variance", "forgetting")
"""What a model card has."""


def at(record: object, path: str) -> Any:
    """What stands at a place in a record; ``None`` if nothing does."""
    for key in path.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def quantities(*names: str) -> tuple[Quantity, ...]:
    """The quantities of these names, in this order."""
    return tuple(QUANTITIES[name] for name in names)
