"""The options of what the student learns by, declared apart from what they set: reading them needs no torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import Count, Fraction, NonNegative, Options, Positive

if TYPE_CHECKING:
    from lra.distances import Distance

Swap = Literal["exchange", "copy", "none"]
Compared = Literal["global", "features", "logits"]


class LossOptions(Options):
    """The distance that the student minimises (and that an adversarial generator maximises)."""

    kind: Literal["l1", "kl"] = "l1"
    """l1 on raw logits (PRE-DFKD, LRA) or kl at a temperature (most others)."""
    temperature: Positive = 1.0
    """τ, used by kl; that loss carries the factor τ²."""

    def distance(self) -> Distance:
        """The distance these options describe."""
        from lra.distances import kl, l1

        return l1 if self.kind == "l1" else partial(kl, temperature=self.temperature)


class AttackOptions(Options):
    """How images are attacked; the released forms are options."""

    enabled: bool = True
    """Attack images at all."""
    probability: Fraction = 0.001
    """pa, of an image to be replaced by its attacked one."""
    delta: Literal["linf", "released"] = "linf"
    """The perturbation: at most ``budget`` in each pixel; or, as released, the network's output in (-1, 1) through
    the inverse of the normalisation, then taken for a normalised image: always positive, without a bound."""
    budget: Positive = 10 / 255
    """Largest change of a pixel in [0, 1]."""
    swap: Swap = "exchange"
    """Where the attacked image is the one the teacher is surer of, in the same class, the two change places; or, as
    released, the attacked one takes both; or nothing happens, and only chosen images are attacked, which is cheap."""
    renormalise: bool = False
    """Augment and normalise the attacked images a second time, as the release does."""
    floor: NonNegative = 1e-3
    """Least cross-entropy whose logarithm the network still lowers; released without, where it goes to -∞."""
    lr: Positive = 2e-4
    """Adam's, of the perturbation network."""
    width: Count | None = None
    """Width of the perturbation network: 64 for CIFAR as published, less for smaller images."""
