"""Every option of the core, declared without torch: what commands say of them must not wait for it.

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
"""What all that is counted with can hold."""


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
    """A frozen group of options; a wrong name, type or bound raises ``pydantic.ValidationError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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

    def crop_and_flip_together(self) -> Augmentation:
        """Shift and flip the batch as one, as TA-DFKD's release does."""
        from lra.synthesis.augmentation import flipped_together, shifted_together

        def augment(images: Tensor) -> Tensor:
            moved = shifted_together(images, self.reach(min(images.shape[2:])))
            return flipped_together(moved) if self.flip else moved

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
    cutmix: Fraction = 0.0
    """Share of the synthesis steps that look at images with parts of one another, and ask for their mixed classes."""
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


class PoolOptions(Options):
    """What a pool keeps."""

    policy: Literal["unbounded", "reservoir", "fifo", "useful"] = "unbounded"
    """Everything, as published; or a uniform sample of it; or the latest; or the most useful: images of rare classes
    that the teacher finds hard take the places of others (ours, after SSD-KD)."""
    capacity: Count = 51200
    """Images held but by ``unbounded``, which grows to what the run makes."""
    useful_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of ``useful``: the share of an experience's images that may take others' places."""
    useful_focus: NonNegative = 2.0
    """Of ``useful``: γ of (1 - p)^γ, for the teacher's largest probability p; 0 looks at classes alone."""


class MemoryGeneratorOptions(Options):
    """How the memory is trained and sampled."""

    lr: Positive = 5e-4
    """Adam rate of memory generator and encoder (published: generator rate / 40)."""
    latent_lr: Positive = 0.02
    """Adam rate of the self-inference steps on the latents."""
    latent_steps: Whole = 1
    """Self-inference steps: 1 as published, 0 to draw latents straight from the prior."""
    one_hot: NonNegative = 1.0
    """Weight of the cross-entropy of the teacher's answer with its own class."""
    balance: NonNegative = 2.171472409516259
    """Weight in nats; the published 5 counts in log10, which is 5 / ln 10 here."""
    kl: NonNegative = 1e-5
    """Weight of the latents' KL divergence from the prior."""
    leak_latent_grad: bool = False
    """Reference behaviour: the self-inference gradient is left in M and enters its next update."""


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


Bits = Annotated[int, Field(ge=2, le=8)]


class Precision(Options):
    """How many bits a network gets."""

    weight_bits: Bits = 4
    """Bits of each weight."""
    activation_bits: Bits = 4
    """Bits of each layer's input; the image itself always has 8, as it is bytes."""
    edge_bits: Bits | None = None
    """Bits of the weights of the first and last layer, and of the last one's input; as all others if not given, as GDFQ
    does. Many papers give these 8 and leave that out of their W4A4."""
    symmetric: bool = False
    """Weights: 0 is stored as 0."""
