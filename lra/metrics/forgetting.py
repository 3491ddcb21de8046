"""Forgetting without classes or tasks: agreement with the teacher on frozen probes of earlier experiences.

A probe is a small batch drawn from an experience when it was open, kept with the teacher's answers, never
trained on. A[c, e] is the student's agreement at checkpoint c on the probe of experience e.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Forgetting:
    """Summary of an agreement matrix, in its unit (percent points)."""

    average: float
    """Mean over probes of best earlier agreement minus agreement now (Chaudhry et al. 2018, eq. 3)."""
    maximum: float
    """The largest of them."""
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
            ValueError: if a known probe is missing or counts differ.
        """
        if list(births[: len(self.births)]) != self.births or len(births) != len(agreements):
            raise ValueError(f"probes {list(births)} do not continue the probes {self.births} seen before")
        self.births = list(births)
        self.checkpoints.append(checkpoint)
        self.rows.append(list(agreements))

    def array(self) -> NDArray[np.float64]:
        """(checkpoints, probes), NaN where a probe was not born yet."""
        matrix = np.full((len(self.rows), len(self.births)), np.nan)
        for row, values in enumerate(self.rows):
            matrix[row, : len(values)] = values
        return matrix

    def record(self) -> dict[str, list[Any]]:
        """``checkpoints``, ``probes`` by their births and ``agreement``, ready for JSON: ``None`` before a birth."""
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
