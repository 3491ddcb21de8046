"""The columns of a comparison: what is read from each run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lra.benchmarks.errors import UsageError, suggestion
from lra.benchmarks.records import Run, number, pick, table
from lra.metrics.evolution import FEWEST

Reading = Callable[[Run], float | None]
"""A measure of a run; ``None`` where the run has none."""


@dataclass(frozen=True)
class Column:
    """One measure of a run.

    Attributes:
        title: heading, with its unit.
        value: reads it from a run; ``None`` where the run has none.
        digits: after the point.
        better: +1 where more is better, -1 where less is, 0 where neither is.
        cost: what a run was given, or took: shown without an interval.
    """

    title: str
    value: Reading
    digits: int = 2
    better: int = 0
    cost: bool = False


def _at(*keys: str) -> Reading:
    return lambda run: number(pick(run.result, *keys))


def _by_step(run: Run) -> tuple[float, float] | None:
    """Mean and variance of accuracy with each evaluation weighted by the student steps since the one before."""
    curve = [point for point in table(pick(run.result, "accuracy", "curve")) if None not in point]
    if len(curve) < FEWEST:
        return None
    steps, values = np.array(curve, dtype=np.float64).T
    weights = np.diff(steps, prepend=0)
    mean = np.average(values, weights=weights)
    return float(mean), float(np.average((values - mean) ** 2, weights=weights))


def _beyond(higher: Reading, lower: Reading) -> Reading:
    """How much more the first is than the second."""

    def read(run: Run) -> float | None:
        more, less = higher(run), lower(run)
        return None if more is None or less is None else more - less

    return read


def _part(index: int) -> Reading:
    def read(run: Run) -> float | None:
        found = _by_step(run)
        return None if found is None else found[index]

    return read


_FINAL = _at("accuracy", "final")
_POST_TRAINING = _at("quantization", "post_training", "accuracy")

COLUMNS = {
    "accuracy": Column("accuracy, final (%)", _at("accuracy", "final"), better=1),
    "mean": Column("μ (%)", _at("accuracy", "mean"), better=1),
    "variance": Column("σ²", _at("accuracy", "variance"), better=-1),
    "max": Column("max (%)", _at("accuracy", "max"), better=1),
    "tail_mean": Column("μ, last half (%)", _at("accuracy", "tail_mean"), better=1),
    "tail_variance": Column("σ², last half", _at("accuracy", "tail_variance"), better=-1),
    "step_mean": Column("μ by student step (%)", _part(0), better=1),
    "step_variance": Column("σ² by student step", _part(1), better=-1),
    "forgetting": Column("forgetting (points)", _at("forgetting", "average"), better=-1),
    "bwt": Column("BWT (points)", _at("forgetting", "bwt"), better=1),
    "agreement": Column("agreement (%)", _at("agreement"), better=1),
    "loyalty": Column("loyalty", _at("loyalty"), 3, better=1),
    "alignment": Column("alignment", _at("alignment", "mean"), 3),
    "student_steps": Column("student steps", _at("cost", "student_steps"), 0, cost=True),
    "images": Column("images generated", _at("cost", "images_generated"), 0, cost=True),
    "teacher_queries": Column("teacher queries", _at("cost", "teacher_queries"), 0, better=-1, cost=True),
    "seconds": Column("seconds", _at("cost", "seconds"), 1, better=-1, cost=True),
    "memory": Column("peak memory (MB)", _at("cost", "peak_memory_mb"), 0, better=-1, cost=True),
    "lost": Column("below the teacher (points)", _beyond(_at("teacher", "accuracy"), _FINAL), better=-1),
    "post_training": Column("post-training, on noise (%)", _POST_TRAINING, better=1),
    "gained": Column("above post-training (points)", _beyond(_FINAL, _POST_TRAINING), better=1),
    "bits": Column("bits per weight", _at("quantization", "bits_per_weight"), better=-1, cost=True),
}

SHOWN = (
    *("accuracy", "mean", "variance", "max", "tail_mean", "tail_variance", "forgetting", "agreement", "loyalty"),
    *("alignment", "student_steps", "seconds", "teacher_queries"),
)
"""Columns of a comparison that names none."""


TESTED = (
    *("accuracy", "mean", "variance", "max", "tail_mean", "tail_variance", "step_mean", "step_variance"),
    *("agreement", "loyalty", "lost"),
)
"""Columns that need a test set."""

OF_CURVES = ("mean", "variance", "tail_mean", "tail_variance", "step_mean", "step_variance")
"""Columns that say nothing of a single evaluation."""


def chosen(names: str | None) -> dict[str, Column]:
    """The columns of a comma-separated list, in its order.

    Raises:
        UsageError: for an unknown one.
    """
    wanted = list(SHOWN) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in COLUMNS:
            raise UsageError(
                f"--columns: unknown column {name!r}; {suggestion(name, COLUMNS)} Known: {', '.join(COLUMNS)}"
            )
    if not wanted:
        raise UsageError(f"--columns is empty; known: {', '.join(COLUMNS)}")
    return {name: COLUMNS[name] for name in wanted}


def measured(columns: dict[str, Column], runs: Sequence[Run], asked: bool) -> tuple[dict[str, Column], list[str]]:
    """The columns that any run has a value for, and a note on each that some or all lack.

    Raises:
        UsageError: if a column was asked for by name and no run has it.
    """
    kept, notes = {}, []
    for name, column in columns.items():
        lacking = [run for run in runs if column.value(run) is None]
        if len(lacking) < len(runs):
            kept[name] = column
        elif asked:
            raise UsageError(f"none of {len(runs)} runs has a value for {name!r}: {_why(name, runs)}")
        if lacking:
            share = "no run has" if name not in kept else f"{len(lacking)} of {len(runs)} runs have no"
            notes.append(f"{share} {name}: {_why(name, lacking)}")
    if not kept:
        raise UsageError(f"none of {len(runs)} runs has any of {', '.join(columns)}")
    return kept, notes


def _why(name: str, lacking: Sequence[Run]) -> str:
    if name in OF_CURVES and any(number(pick(run.result, "accuracy", "final")) is not None for run in lacking):
        return "it needs a curve of several evaluations"
    if name == "alignment":
        return "it needs a replay"
    if name in ("forgetting", "bwt"):
        return "it needs several evaluations with probes"
    return "it needs a test set" if name in TESTED else "their results lack it"
