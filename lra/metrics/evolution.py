"""How a student changes over a run: evolution of its accuracy (PRE-DFKD, LRA), and forgetting.

Forgetting is measured without classes or tasks, by agreement with the teacher on frozen probes of earlier experiences.
A probe is a small batch drawn while an experience was open, kept with the teacher's answers and never trained on.
A[c, e] is the student's agreement at checkpoint c on the probe of experience e.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 2
"""The fewest evaluations for which a mean and a variance are reported."""


@dataclass(frozen=True)
class Evolution:
    """Summary of a curve of test accuracies, in the unit of the curve (percent) or its square."""

    final: float
    max: float
    mean: float | None
    """μ over every evaluation from the first; ``None`` for a single one, where it would repeat the final value."""
    variance: float | None
    """σ², the population variance (ddof 0) over every evaluation from the first; ``None`` for a single one."""
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
    """Why a curve of this many evaluations lacks some of `Evolution`, in a few words; ``None`` if it lacks nothing."""
    if evaluations < FEWEST:
        return "one evaluation: μ and σ² are of two or more"
    return "two evaluations: their last half is a single one" if evaluations - evaluations // 2 < FEWEST else None


def evolution_record(curve: Sequence[float | None]) -> dict[str, Any]:
    """The `Evolution` of the values present and, if parts of it are missing, the ``reason``.

    Empty without any value.
    """
    there = [value for value in curve if value is not None]
    reason = {"reason": why} if there and (why := too_short(len(there))) else {}
    return asdict(evolution(there)) | reason if there else {}


def by_step(curve: Sequence[Sequence[float]]) -> tuple[float, float] | tuple[None, None]:
    """μ and σ² of a curve of points (student step, value), each weighted by the student steps since the previous one.

    ``None`` for a curve that is too short.
    """
    if len(curve) < FEWEST:
        return None, None
    steps, values = np.array(curve, dtype=np.float64).T
    weights = np.diff(steps, prepend=0)
    mean = np.average(values, weights=weights)
    return float(mean), float(np.average((values - mean) ** 2, weights=weights))


def _moments(values: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    return (float(values.mean()), float(values.var())) if len(values) >= FEWEST else (None, None)


@dataclass(frozen=True)
class Forgetting:
    """Summary of an agreement matrix, in its unit (percentage points)."""

    average: float
    """Mean over probes of best earlier agreement minus agreement now (Chaudhry et al. 2018, eq. 3)."""
    maximum: float
    """The largest of these differences."""
    bwt: float
    """Backward transfer: mean of agreement now minus agreement when the probe was taken."""


class AgreementMatrix:
    """Rows are checkpoints, columns probes, in order of birth; a probe has no value before its birth."""

    def __init__(self) -> None:
        self.checkpoints: list[int] = []
        self.births: list[int] = []
        self.rows: list[list[float]] = []

    def add(self, checkpoint: int, births: Sequence[int], agreements: Sequence[float]) -> None:
        """Record one checkpoint.

        Args:
            checkpoint: student steps taken.
            births: student step at which each probe held was taken; earlier probes keep their place.
            agreements: agreement on each of them now.

        Raises:
            ValueError: if a known probe is missing or the counts differ.
        """
        if list(births[: len(self.births)]) != self.births or len(births) != len(agreements):
            raise ValueError(f"probes {list(births)} do not continue the probes {self.births} seen before")
        self.births = list(births)
        self.checkpoints.append(checkpoint)
        self.rows.append(list(agreements))

    def array(self) -> NDArray[np.float64]:
        """(checkpoints, probes), NaN where a probe did not exist yet."""
        matrix = np.full((len(self.rows), len(self.births)), np.nan)
        for row, values in enumerate(self.rows):
            matrix[row, : len(values)] = values
        return matrix

    def record(self) -> dict[str, list[Any]]:
        """``checkpoints``, ``probes`` (their births) and ``agreement``, ready for JSON: ``None`` before a birth."""
        agreement = [row + [None] * (len(self.births) - len(row)) for row in self.rows]
        return {"checkpoints": self.checkpoints, "probes": self.births, "agreement": agreement}

    def summary(self) -> Forgetting | None:
        """Forgetting at the last checkpoint, over probes that were scored at least once before it."""
        return forgetting(self.array())


def forgetting(matrix: NDArray[np.float64]) -> Forgetting | None:
    """Forgetting at the last row of an agreement matrix (checkpoints, probes) with NaN before birth.

    Returns:
        ``None`` if no probe was scored at two checkpoints.
    """
    if len(matrix) < 2:
        return None
    old = ~np.isnan(matrix[:-1]).all(axis=0)
    if not old.any():
        return None
    now, earlier = matrix[-1, old], matrix[:-1, old]
    at_birth = earlier[(~np.isnan(earlier)).argmax(axis=0), np.arange(earlier.shape[1])]
    lost = np.nanmax(earlier, axis=0) - now
    return Forgetting(float(lost.mean()), float(lost.max()), float((now - at_birth).mean()))
