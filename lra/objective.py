"""What the student minimises on a batch: its distance to the teacher, named and explicit."""

from functools import partial
from typing import Literal

from torch import Tensor

from lra.distances import Distance, kl, l1
from lra.options import Options, Positive
from lra.problem import Batch


class Objective:
    """Mean distance of student and teacher logits over a batch.

    Methods extend it: a weight per sample (`per_sample`), further terms (`__call__`). It is asked with the logits
    of whatever weights the student has at the moment, those of a look-ahead too, so it must not keep any.

    Args:
        distance: per-sample distance of logits.
    """

    def __init__(self, distance: Distance):
        self.distance = distance

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Scalar loss of the student's logits (n, K) of ``batch``."""
        return self.per_sample(logits, batch).mean()

    def per_sample(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss (n,) of each sample."""
        return self.distance(logits, batch.logits)


class LossOptions(Options):
    """The distance that the student minimises (and that an adversarial generator maximises)."""

    kind: Literal["l1", "kl"] = "l1"
    """l1 on raw logits (PRE-DFKD, LRA) or kl at a temperature (most others)."""
    temperature: Positive = 1.0
    """τ, used by kl; that loss carries the factor τ²."""

    def distance(self) -> Distance:
        """The distance these options describe."""
        return l1 if self.kind == "l1" else partial(kl, temperature=self.temperature)
