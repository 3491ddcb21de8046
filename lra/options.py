"""The options of the core, declared without torch, so that commands that only describe them need not import it.

Options are typed, bounded, immutable, and strict about unknown names. Those of the LRA step are in
`lra.meta.options`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

    from lra.distances import Distance
    from lra.synthesis.augmentation import Augmentation
    from lra.synthesis.terms.term import Term

LARGEST = 2**31 - 1
"""The largest count accepted: what 32-bit counters can hold."""


def _counted(number: int) -> int:
    if number > LARGEST:
        raise ValueError(f"{number} is more than can be counted: {LARGEST:,} at most")
    return number


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1), AfterValidator(_counted)]
Whole = Annotated[int, Field(ge=0), AfterValidator(_counted)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Options(BaseModel):
    """A frozen group of options; an unknown name, wrong type or value raises ``pydantic.ValidationError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Reuse = Literal["anew", "common", "finetune", "fix"]
Branch = Literal["features", "first"]
Layers = Literal["batchnorm", "stages"]

Strength = Annotated[float, Field(ge=0, le=4)]
"""Strength of `wobbled`. Beyond 4, where a digit turns by up to 40 degrees and moves by a quarter of its frame, it may
become another digit."""


class AugmentationOptions(Options):
    """How stored and synthetic images are augmented before a network sees them."""

    shift: Whole | None = None
    """Largest shift in pixels; an eighth of the shorter side if not given (4 at 32 pixels, as published)."""
    flip: bool = True
    """Mirror half of the images; turn this off for digits and letters."""

    def reach(self, side: int) -> int:
        """The largest shift for images with a shorter side of ``side`` pixels."""
        return side // 8 if self.shift is None else self.shift

    def crop_and_flip(self) -> Augmentation:
        """Shift and flip each image independently: the training augmentation of every pool method."""
        from lra.synthesis.augmentation import flipped, shifted

        def augment(images: Tensor) -> Tensor:
            moved = shifted(images, self.reach(min(images.shape[2:])))
            return flipped(moved) if self.flip else moved

        return augment

    def crop_and_flip_together(self) -> Augmentation:
        """Shift and flip all images of a batch alike, as TA-DFKD's release does."""
        from lra.synthesis.augmentation import flipped_together, shifted_together

        def augment(images: Tensor) -> Tensor:
            moved = shifted_together(images, self.reach(min(images.shape[2:])))
            return flipped_together(moved) if self.flip else moved

        return augment

    def jitter(self) -> Augmentation:
        """Roll and flip all images of a batch alike: DeepInversion's jitter."""
        from lra.synthesis.augmentation import flipped_together, rolled

        def augment(images: Tensor) -> Tensor:
            moved = rolled(images, self.reach(min(images.shape[2:])))
            return flipped_together(moved) if self.flip else moved

        return augment

    def local_view(self) -> Augmentation:
        """Enlarge a crop and flip: CMI's local views."""
        from lra.synthesis.augmentation import flipped, zoomed

        return lambda images: flipped(zoomed(images)) if self.flip else zoomed(images)


class BatchOptions(AugmentationOptions):
    """How batches are made and shown, for all methods that optimise batches."""

    images: Count = 256
    """Images made at a time."""
    steps: Count = 200
    """Gradient steps on each batch."""
    rounds: Count = 1
    """Batches per experience."""
    warmup: Whole = 0
    """Batches before the student's first step, made without terms that oppose it; all are in the first experience."""
    keep: Literal["best", "last"] = "best"
    """Keep the iterate with the lowest loss, or the last one (which aliasing made of "best" in ADI's and ZSKD's
    releases)."""
    cutmix: Fraction = 0.0
    """Fraction of the synthesis steps that see images mixed by CutMix, with labels mixed accordingly."""
    rounding: Literal["nearest", "down"] = "nearest"
    """How pixels are rounded to bytes; ``down`` as released."""


class OneHotOptions(Options):
    """The term for confident predictions of the teacher."""

    one_hot: NonNegative = 1.0
    """Weight of the teacher's cross-entropy with the class it predicts itself, or with the target class."""


class BalanceOptions(Options):
    """The term for balanced classes."""

    balance: NonNegative = 20.0
    """Weight of the entropy of the mean prediction, in nats."""


class ActivationOptions(Options):
    """The term for strong activations."""

    activation: NonNegative = 0.0
    """Weight of the mean absolute value of the teacher's penultimate features."""


class AdversarialOptions(Options):
    """The adversarial term."""

    adversarial: NonNegative = 1.0
    """Weight of the distance between student and teacher, which synthesis maximises."""


class TripletOptions(Options):
    """RGAL's triplet term, for the synthesis of any method; off by default."""

    triplet: NonNegative = 0.0
    """Weight of the triplet term (RGAL: 0.1)."""
    triplet_swap: bool = True
    """Swap positives and negatives, to oppose the student; ``false`` is the released form, which helps it."""
    triplet_margin: Positive = 0.2
    """Margin between the distances to the positive and to the negative."""
    triplet_low: NonNegative = 0.5
    """Lower end of the window of distances, on the unit sphere, that negatives are drawn from; RGAL's focal window is
    (0.5, 1.0)."""
    triplet_high: Positive = 1.0
    """Upper end of that window."""
    triplet_start: Whole = 2
    """The first of the student's stages to compare, counted from 0."""

    def triplet_term(self) -> Term:
        """The term these options describe."""
        from lra.relations import TripletSampler
        from lra.synthesis.terms import Triplet

        sampler = TripletSampler(self.triplet_low, self.triplet_high, floor=0.0)
        return Triplet(self.triplet, sampler, self.triplet_margin, self.triplet_swap, self.triplet_start)


class PoolOptions(Options):
    """Which images a pool keeps."""

    policy: Literal["unbounded", "reservoir", "fifo", "useful"] = "unbounded"
    """All images, as published; or a uniform sample of them; or the latest; or the most useful: images of rare classes
    that the teacher finds hard replace others (ours, after SSD-KD)."""
    capacity: Count = 51200
    """Most images held; ignored by ``unbounded``, which keeps whatever the run makes."""
    useful_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """For ``useful``: the fraction of an experience's images that may replace others."""
    useful_focus: NonNegative = 2.0
    """For ``useful``: γ in (1 - p)^γ, where p is the teacher's largest probability; 0 looks at the class alone."""


class MemoryGeneratorOptions(Options):
    """How the memory generator is trained and sampled."""

    lr: Positive = 5e-4
    """Adam's learning rate for memory generator and encoder (published: the generator's rate / 40)."""
    latent_lr: Positive = 0.02
    """Adam's learning rate for the self-inference steps on the latents."""
    latent_steps: Whole = 1
    """Self-inference steps: 1 as published, 0 to draw latents straight from the prior."""
    one_hot: NonNegative = 1.0
    """Weight of the teacher's cross-entropy with the class it predicts itself."""
    balance: NonNegative = 2.171472409516259
    """Weight of the entropy of the mean prediction, in nats; the published 5 is for log10, which is 5 / ln 10 here."""
    kl: NonNegative = 1e-5
    """Weight of the latents' KL divergence from the prior."""
    leak_latent_grad: bool = False
    """Leave the self-inference gradient in the memory generator, where it enters the next update, as released."""


Swap = Literal["exchange", "copy", "none"]
Compared = Literal["global", "features", "logits"]


class LossOptions(Options):
    """The distance that the student minimises (and an adversarial generator maximises)."""

    kind: Literal["l1", "kl"] = "l1"
    """l1 on raw logits (PRE-DFKD, LRA), or kl at a temperature (most others)."""
    temperature: Positive = 1.0
    """Temperature τ of kl, whose loss carries the factor τ²."""

    def distance(self) -> Distance:
        """The distance these options describe."""
        from lra.distances import kl, l1

        return l1 if self.kind == "l1" else partial(kl, temperature=self.temperature)


class AttackOptions(Options):
    """How images are attacked; the released forms are options."""

    enabled: bool = True
    """Whether images are attacked at all."""
    probability: Fraction = 0.001
    """Probability pa that an image is replaced by its attacked version."""
    delta: Literal["linf", "released"] = "linf"
    """The perturbation: at most ``budget`` in each pixel; or, as released, the network's output in (-1, 1), passed
    through the inverse of the normalisation and then treated as a normalised image: always positive and unbounded."""
    budget: Positive = 10 / 255
    """Largest change of a pixel, for pixels in [0, 1]."""
    swap: Swap = "exchange"
    """Where the teacher predicts the same class for the attacked image with more confidence, the two change places; as
    released, the attacked one takes both; or nothing happens, and only chosen images are attacked, which is cheap."""
    renormalise: bool = False
    """Augment and normalise the attacked images a second time, as the release does."""
    floor: NonNegative = 1e-3
    """Cross-entropy below which the perturbation network no longer lowers its logarithm; the release has no such floor,
    and its loss goes to -∞."""
    lr: Positive = 2e-4
    """Adam's learning rate for the perturbation network."""
    width: Count | None = None
    """Width of the perturbation network: 64 for CIFAR as published, less for smaller images."""


Bits = Annotated[int, Field(ge=2, le=8)]


class Precision(Options):
    """The bit widths of a quantised network."""

    weight_bits: Bits = 4
    """Bits of each weight."""
    activation_bits: Bits = 4
    """Bits of each layer's input; the image itself always has 8, since it is stored in bytes."""
    edge_bits: Bits | None = None
    """Bits of the weights of the first and last layers, and of the last layer's input; if not given, the same as for
    all others, as in GDFQ. Many papers use 8 bits for these and do not say so in their W4A4."""
    symmetric: bool = False
    """Quantise weights symmetrically: 0 is stored as 0."""
