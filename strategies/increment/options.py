"""The options of class-incremental learning, declared apart from what they set: reading them needs no torch."""

from typing import Literal

from lra.options import (
    BalanceOptions,
    Count,
    Fraction,
    NonNegative,
    OneHotOptions,
    Options,
    Positive,
    Strength,
    TripletOptions,
    Whole,
)


class HeadFitOptions(Options):
    """Options of the head's fit to the features of all classes."""

    align_steps: Whole = 0
    """Steps of the head's fit after an experience (300 are plenty); 0 leaves it as training does, and keeps no
    statistics of features."""
    align_lr: Positive = 0.01
    """Rate of the fit's Adam, annealed to 0."""
    align_each: Count = 32
    """Features per class and step."""


class FeCAMOptions(Options):
    """Options of FeCAM, the control without training."""

    fecam_power: Positive = 0.5
    """Power that FeCAM takes of features, which must not be negative then; 1 leaves them as they are."""
    fecam_shrink: Positive = 1.0
    """γ, how far covariances are shrunk towards equal ones."""
    fecam_shrinkings: Whole = 2
    """How often they are: twice, as released."""
    fecam_prototype: Literal["mean-of-roots", "root-of-mean"] = "mean-of-roots"
    """Where a class is: the mean of powers, or as released the power of the mean."""


class GeneratorOptions(OneHotOptions, BalanceOptions):
    """Options of a generator trained from a frozen model."""

    generator_steps: Count = 1000
    """Steps of the generator before an experience."""
    generator_batch: Count = 64
    """Images per generator step."""
    generator_lr: Positive = 3e-3
    """Rate of the generator's Adam."""
    one_hot: NonNegative = 1.0
    one_hot_temperature: Positive = 1.0
    """Temperature of that cross-entropy; at ABD's 1000 it has hardly a gradient."""
    bn: NonNegative = 1.0
    """Weight of the distance to the BatchNorm statistics, with the weights all that the generator learns from; 0 for a
    model without any."""
    balance: NonNegative = 5.0
    smooth: NonNegative = 0.0
    """Weight of the squared difference of generated images from themselves blurred."""
    latent: Count | None = None
    """Numbers that an image is generated from; by the size of the images unless set, as is ``width``."""
    width: Count | None = None
    """Width of the generator, in channels."""


class RecollectionOptions(GeneratorOptions, TripletOptions):
    """Options of a generator told which class to make; with ``triplet`` it works against the learner (RGAL)."""

    persistent: bool = False
    """Go on from the generator of the experience before, but for its embedding of classes (ABD: with its optimiser)."""
    bn_gap: Literal["l2", "kl"] = "l2"
    """Distance to the BatchNorm statistics: norms, summed over layers, or the divergence of normal distributions, their
    mean (ABD, with ``bn`` 50)."""


class InversionOptions(GeneratorOptions):
    """Options of the generator of ABD and of what is compared with it there, as published."""

    generator_steps: Count = 10_000
    generator_batch: Count = 128
    generator_lr: Positive = 1e-3
    one_hot_temperature: Positive = 1000.0
    bn: NonNegative = 50.0
    balance: NonNegative = 1.0
    smooth: NonNegative = 1e-3


class DeepInversionTerms(Options):
    """Options of the distillation in DeepInversion's increments."""

    deepinversion_weight: NonNegative = 1.0
    """μ, weight of DeepInversion's distillation."""
    deepinversion_temperature: Positive = 2.0
    """Its temperature; there is no factor τ²."""
    deepinversion_padded: bool = True
    """Its answer on synthetic images is 0 for new classes; otherwise of old ones alone (with weight 0.1 and an LwF)."""


class DeepInversionOptions(InversionOptions, DeepInversionTerms):
    """Options of DeepInversion in increments."""


class DeepInversionLwFOptions(DeepInversionOptions):
    """Options of DeepInversion with learning without forgetting on its images."""

    deepinversion_weight: NonNegative = 0.1
    deepinversion_padded: bool = False


class ABDOptions(InversionOptions):
    """Options of ABD."""

    distil_importance: NonNegative = 0.1
    """μ, weight of the features' distance through the old model's head."""


class BalancedHeadOptions(Options):
    """Options of the steps in which the head learns alone (R-DFCIL)."""

    head_share: Fraction = 0.0
    """Part of an experience's steps, the last, in which the head learns alone, with balanced classes (R-DFCIL: 0.2)."""
    head_lr: Positive = 0.005
    """Rate of that head's SGD."""
    relation_width: Count = 128
    """Width of the projections that angles between images are taken in."""


class RDFCILTerms(BalancedHeadOptions):
    """Options of R-DFCIL beside those of its generator."""

    rdfcil_ce: NonNegative = 0.5
    """Weight of R-DFCIL's cross-entropy of the new classes among themselves."""
    rdfcil_hkd: NonNegative = 0.15
    """Weight of the absolute difference of logits on synthetic images."""
    rdfcil_rkd: NonNegative = 0.5
    """Weight of the difference of angles between real images."""


class RDFCILOptions(InversionOptions, RDFCILTerms):
    """Options of R-DFCIL."""

    generator_steps: Count = 5_000
    head_share: Fraction = 0.2


class DataFreeReplayOptions(RecollectionOptions, HeadFitOptions, BalancedHeadOptions):
    """Options of the generator, and of the steps that its samples take part in."""

    size: Count | None = None
    """Replayed images per step; as many as there are real ones unless set."""
    balanced: bool = False
    """Unless ``size`` is set, replay as many images of each old class as there are real ones of each new class."""
    temperature: Positive = 1.0
    """τ of the distillation, which carries the factor τ²."""
    distil_new: NonNegative = 1.0
    """Weight of the old model's answer on new images: what is real must not come to mean what is new, where all that is
    old is synthetic."""
    distil_features: NonNegative = 0.0
    """Weight of the squared distance of penultimate features from the old model's, of all images."""
    distil_importance: NonNegative = 0.0
    """Weight of the squared distance of penultimate features as the old model's head sees them, of all images (ABD:
    0.1)."""
    relation: NonNegative = 0.0
    """Weight of the difference of angles between real images from the old model's (R-DFCIL)."""
    head_ce: NonNegative = 0.0
    """Weight of the cross-entropy of all images, over all classes, that the head alone learns from (ABD: 1)."""
    local: bool = False
    """Tell new classes apart by themselves, which leaves the logits of the old ones alone (ABD, R-DFCIL); old from new
    the head then learns from what is replayed, from ``head_ce`` and from ``head_share``."""
    distil: Literal["soft", "hard"] = "soft"
    """Distil the old model's probabilities on replayed images, 0 for the new classes; or its logits of old classes, by
    their absolute difference (R-DFCIL)."""
    alpha: Positive | None = None
    """α of the LRA step, of the acquisition loss by its share; without one, replay is plain."""
    alpha_rate: NonNegative = 0.02
    """Learn α in every experience, one for each parameter tensor, from ``alpha`` on: the step of log α (see
    `LearnedRates`). 0 keeps it constant."""


class IncrementOptions(DataFreeReplayOptions, FeCAMOptions, DeepInversionTerms, RDFCILTerms):
    """Options of all strategies; each takes what concerns it."""

    lr: Positive = 0.05
    """Rate of SGD with momentum 0.9, annealed to 0 in every experience unless there are ``milestones``."""
    weight_decay: NonNegative = 1e-4
    """Weight decay of the learner's SGD."""
    minibatch: Count = 32
    """Real images per step."""
    augment: Strength = 0.0
    """Strength of random turns, shears, scales and shifts of the real images; 1 is up to 10 degrees and a 16th of the
    side, 4 the most."""
    photographs: bool = False
    """Show real images mirrored half of the time, moved by up to an eighth of their side, and in another brightness and
    contrast: ABD's changes for CIFAR."""
    normalisation: Literal["grey", "published"] = "grey"
    """What the model subtracts from images and divides them by: 0.5 and 0.5, or the data set's published mean and
    deviation, which know of classes still to come."""
    class_order: Literal["torch", "python"] = "torch"
    """Whose permutation the order of classes is: of the seed alone either way; Python's is that of ABD and R-DFCIL."""
    milestones: tuple[Fraction, ...] = ()
    """Parts of an experience's steps after which the rate is a tenth of what it was; annealed to 0 without any."""
    drop_last: bool = False
    """Leave out what is left of an epoch's images behind its last whole minibatch."""
    student_triplet: NonNegative = 0.0
    """Weight of the triplets of the model's features (RGAL: 0.1)."""
    memory: Count = 200
    """Images that buffered replay keeps."""
    lwf_alpha: NonNegative = 1.0
    """Weight of LwF's distillation."""
    lwf_temperature: Positive = 2.0
    """Temperature of the distillation in Learning without Forgetting."""
    vae_latent: Count = 2
    """Latents of the autoencoder that Avalanche's generative replay learns from the real data; its default is 2."""
    vae_lr: Positive = 0.01
    """Rate of that autoencoder's Adam."""
