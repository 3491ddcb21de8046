"""Accuracy evolution: how good a student was on the way, not only at the end (PRE-DFKD, LRA)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Evolution:
    """Summary of a curve of test accuracies, all in the unit of the curve (percent) and its square."""

    final: float
    max: float
    mean: float
    """μ over every evaluation from the first."""
    variance: float
    """σ², the population variance (ddof 0) over every evaluation from the first."""
    tail_mean: float
    """μ over the last half of the evaluations (the larger half of an odd number)."""
    tail_variance: float


def evolution(curve: Sequence[float]) -> Evolution:
    """Summarise accuracies in the order they were measured.

    Raises:
        ValueError: for an empty curve.
    """
    if not len(curve):
        raise ValueError("an accuracy evolution needs at least one evaluation")
    values = np.asarray(curve, dtype=np.float64)
    tail = values[len(values) // 2 :]
    return Evolution(
        final=float(values[-1]),
        max=float(values.max()),
        mean=float(values.mean()),
        variance=float(values.var()),
        tail_mean=float(tail.mean()),
        tail_variance=float(tail.var()),
    )
