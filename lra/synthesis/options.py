"""The options of synthesis, declared apart from what they set: reading them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lra.options import Count, NonNegative, Options, Positive, Whole

if TYPE_CHECKING:
    from torch import Tensor

    from lra.synthesis.augmentation import Augmentation
    from lra.synthesis.terms.term import Term

Reuse = Literal["anew", "common", "finetune", "fix"]
Branch = Literal["features", "first"]
Layers = Literal["batchnorm", "stages"]

Strength = Annotated[float, Field(ge=0, le=4)]
"""Strength of `wobbled`. Beyond 4, where a digit turns by up to 40 degrees and leaves a quarter of its frame, it may be
another."""


class AugmentationOptions(Options):
    """How stored and synthetic images are shaken before a network sees them."""

    shift: Whole | None = None
    """Largest shift in pixels; an eighth of the shorter side if not given (4 at 32 pixels, as published)."""
    flip: bool = True
    """Mirror half of the images; not for digits and letters."""

    def reach(self, side: int) -> int:
        """The largest shift for images whose shorter side this is."""
        return side // 8 if self.shift is None else self.shift

    def crop_and_flip(self) -> Augmentation:
        """Shift and flip, each image on its own: the training augmentation of every pool method."""
        from lra.synthesis.augmentation import flipped, shifted

        def augment(images: Tensor) -> Tensor:
            moved = shifted(images, self.reach(min(images.shape[2:])))
            return flipped(moved) if self.flip else moved

        return augment

    def jitter(self) -> Augmentation:
        """Roll and flip the batch as one: DeepInversion's jitter."""
        from lra.synthesis.augmentation import flipped_together, rolled

        def augment(images: Tensor) -> Tensor:
            moved = rolled(images, self.reach(min(images.shape[2:])))
            return flipped_together(moved) if self.flip else moved

        return augment

    def local_view(self) -> Augmentation:
        """Enlarge a part and flip: CMI's local views."""
        from lra.synthesis.augmentation import flipped, zoomed

        return lambda images: flipped(zoomed(images)) if self.flip else zoomed(images)


class BatchOptions(AugmentationOptions):
    """How batches are made and shown, for every method that optimises them."""

    images: Count = 256
    """Images made at a time."""
    steps: Count = 200
    """Gradient steps on each batch."""
    rounds: Count = 1
    """Batches per experience."""
    warmup: Whole = 0
    """Batches before the student's first step, all of which the first experience brings; without the student."""
    keep: Literal["best", "last"] = "best"
    """The iterate of the lowest loss, or the last one (what aliasing made of "best" in ADI's and ZSKD's releases)."""
    rounding: Literal["nearest", "down"] = "nearest"
    """How images become bytes; ``down`` as released."""


class OneHotOptions(Options):
    """The term of a confident teacher."""

    one_hot: NonNegative = 1.0
    """Weight of the cross-entropy of the teacher's answer, with its own class or the class asked for."""


class BalanceOptions(Options):
    """The term of all classes alike."""

    balance: NonNegative = 20.0
    """Weight of the entropy of the mean prediction, in nats."""


class ActivationOptions(Options):
    """The term of strong features."""

    activation: NonNegative = 0.0
    """Weight of the size of the teacher's features."""


class AdversarialOptions(Options):
    """The term of the student's adversary."""

    adversarial: NonNegative = 1.0
    """Weight of the student's distance to the teacher, which the samples are to raise."""


class TripletOptions(Options):
    """The triplet term in any method's synthesis; off by default."""

    triplet: NonNegative = 0.0
    """Weight (RGAL: 0.1)."""
    triplet_swap: bool = True
    """Oppose the student; ``false`` is the released form, which helps it."""
    triplet_margin: Positive = 0.2
    """Margin between the distances to the near and to the far image."""
    triplet_low: NonNegative = 0.5
    """The window of distances, on the unit sphere, that negatives are drawn from: RGAL's focal one is (0.5, 1.0)."""
    triplet_high: Positive = 1.0
    """Upper end of that window."""
    triplet_start: Whole = 2
    """The first of the student's stages to compare, from 0."""

    def triplet_term(self) -> Term:
        """The term these options describe."""
        from lra.relations import TripletSampler
        from lra.synthesis.terms import Triplet

        sampler = TripletSampler(self.triplet_low, self.triplet_high, floor=0.0)
        return Triplet(self.triplet, sampler, self.triplet_margin, self.triplet_swap, self.triplet_start)
