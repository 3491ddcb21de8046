"""Accuracy evolution: how good a student was on the way, not only at the end (PRE-DFKD, LRA)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 2
"""Evaluations that have a mean and a variance to speak of."""


@dataclass(frozen=True)
class Evolution:
    """Summary of a curve of test accuracies, all in the unit of the curve (percent) and its square."""

    final: float
    max: float
    mean: float | None
    """μ over every evaluation from the first; ``None`` of a single one, of which it would be another name."""
    variance: float | None
    """σ², the population variance (ddof 0) over every evaluation from the first; ``None`` of a single one."""
    tail_mean: float | None
    """μ over the last half of the evaluations (the larger half of an odd number); ``None`` if that is a single one."""
    tail_variance: float | None


def evolution(curve: Sequence[float]) -> Evolution:
    """Summarise accuracies in the order they were measured.

    Raises:
        ValueError: for an empty curve.
    """
    if not len(curve):
        raise ValueError("an accuracy evolution needs at least one evaluation")
    values = np.asarray(curve, dtype=np.float64)
    mean, variance = _moments(values)
    tail_mean, tail_variance = _moments(values[len(values) // 2 :])
    return Evolution(float(values[-1]), float(values.max()), mean, variance, tail_mean, tail_variance)


def too_short(evaluations: int) -> str | None:
    """Why a curve of so many evaluations lacks some of `Evolution`, in a few words; ``None`` if it lacks nothing."""
    if evaluations < FEWEST:
        return "one evaluation: μ and σ² are of two or more"
    return "two evaluations: their last half is a single one" if evaluations - evaluations // 2 < FEWEST else None


def evolution_record(curve: Sequence[float | None]) -> dict[str, Any]:
    """The `Evolution` of the values that are there, and as ``reason`` why it lacks some of it, if it does.

    Empty without any value.
    """
    there = [value for value in curve if value is not None]
    reason = {"reason": why} if there and (why := too_short(len(there))) else {}
    return asdict(evolution(there)) | reason if there else {}


def by_step(curve: Sequence[Sequence[float]]) -> tuple[float, float] | tuple[None, None]:
    """μ and σ² of a curve of points (student step, value), each weighted by the student steps since the one before.

    ``None`` of a curve too short to have them.
    """
    if len(curve) < FEWEST:
        return None, None
    steps, values = np.array(curve, dtype=np.float64).T
    weights = np.diff(steps, prepend=0)
    mean = np.average(values, weights=weights)
    return float(mean), float(np.average((values - mean) ** 2, weights=weights))


def _moments(values: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    return (float(values.mean()), float(values.var())) if len(values) >= FEWEST else (None, None)
