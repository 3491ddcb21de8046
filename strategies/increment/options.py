"""The options of class-incremental learning, declared apart from the code they configure: this needs no torch."""

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
    """Options of fitting the head to the features of all classes."""

    align_steps: Whole = 0
    """Steps of fitting the head after an experience (300 are plenty); 0 leaves the head as trained, and keeps no
    statistics of features."""
    align_lr: Positive = 0.01
    """Adam's learning rate for the fit, annealed to 0."""
    align_each: Count = 32
    """Features per class and step of the fit."""


class FeCAMOptions(Options):
    """Options of FeCAM, the control that does not train after the first experience."""

    fecam_power: Positive = 0.5
    """Power to which FeCAM raises features, which must then be non-negative; 1 leaves them as they are."""
    fecam_shrink: Positive = 1.0
    """γ, how strongly covariances are shrunk towards equal variances and equal covariances."""
    fecam_shrinkings: Whole = 2
    """How many times covariances are shrunk: twice, as released."""
    fecam_prototype: Literal["mean-of-roots", "root-of-mean"] = "mean-of-roots"
    """The prototype of a class: the mean of the powers, or, as released, the power of the mean."""


class GeneratorOptions(OneHotOptions, BalanceOptions):
    """Options of a generator trained from a frozen model."""

    generator_steps: Count = 1000
    """Generator steps before an experience."""
    generator_batch: Count = 64
    """Images per generator step."""
    generator_lr: Positive = 3e-3
    """Adam's learning rate for the generator."""
    one_hot: NonNegative = 1.0
    one_hot_temperature: Positive = 1.0
    """Temperature of that cross-entropy; at ABD's 1000 it has almost no gradient."""
    bn: NonNegative = 1.0
    """Weight of the distance to the BatchNorm statistics, which, with the model's weights, are all that the generator
    learns from; 0 for a model without BatchNorm."""
    balance: NonNegative = 5.0
    smooth: NonNegative = 0.0
    """Weight of the squared difference between generated images and their blurred versions."""
    latent: Count | None = None
    """Latent dimensions of the generator; by the size of the images if not given."""
    width: Count | None = None
    """Width of the generator in channels; by the size of the images if not given."""


class RecollectionOptions(GeneratorOptions, TripletOptions):
    """Options of a class-conditional generator; with ``triplet`` it works against the learner (RGAL)."""

    persistent: bool = False
    """Continue from the previous experience's generator, except for its class embedding (ABD: with its optimiser)."""
    bn_gap: Literal["l2", "kl"] = "l2"
    """Distance to the BatchNorm statistics: norms, summed over layers, or the KL divergence between normal
    distributions, averaged over layers (ABD, with ``bn`` 50)."""


class InversionOptions(GeneratorOptions):
    """Options of the generator of ABD and of the methods compared in its paper, as published."""

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
    """μ, the weight of DeepInversion's distillation."""
    deepinversion_temperature: Positive = 2.0
    """Temperature of DeepInversion's distillation; there is no factor τ²."""
    deepinversion_padded: bool = True
    """On synthetic images, pad the target with 0 for new classes; otherwise distil old classes alone (with weight 0.1,
    an LwF)."""


class DeepInversionOptions(InversionOptions, DeepInversionTerms):
    """Options of DeepInversion in class-incremental learning."""


class DeepInversionLwFOptions(DeepInversionOptions):
    """Options of DeepInversion with learning without forgetting on its images."""

    deepinversion_weight: NonNegative = 0.1
    deepinversion_padded: bool = False


class ABDOptions(InversionOptions):
    """Options of ABD."""

    distil_importance: NonNegative = 0.1
    """μ, the weight of the distance between features as seen by the old model's head."""


class BalancedHeadOptions(Options):
    """Options of the steps in which only the head learns (R-DFCIL)."""

    head_share: Fraction = 0.0
    """Fraction of an experience's steps, at its end, in which only the head learns, with balanced classes (R-DFCIL:
    0.2)."""
    head_lr: Positive = 0.005
    """SGD's learning rate in those steps."""
    relation_width: Count = 128
    """Width of the projections in which angles between images are measured."""


class RDFCILTerms(BalancedHeadOptions):
    """Options of R-DFCIL in addition to those of its generator."""

    rdfcil_ce: NonNegative = 0.5
    """Weight of R-DFCIL's cross-entropy over the new classes alone."""
    rdfcil_hkd: NonNegative = 0.15
    """Weight of the absolute difference of logits on synthetic images (hard distillation)."""
    rdfcil_rkd: NonNegative = 0.5
    """Weight of the difference of angles between real images (relational distillation)."""


class RDFCILOptions(InversionOptions, RDFCILTerms):
    """Options of R-DFCIL."""

    generator_steps: Count = 5_000
    head_share: Fraction = 0.2


class DataFreeReplayOptions(RecollectionOptions, HeadFitOptions, BalancedHeadOptions):
    """Options of the generator, and of the training steps that use its samples."""

    size: Count | None = None
    """Replayed images per step; as many as real ones if not given."""
    balanced: bool = False
    """Unless ``size`` is given, replay as many images of each old class as there are real ones of each new class."""
    temperature: Positive = 1.0
    """Temperature τ of the distillation, which carries the factor τ²."""
    distil_new: NonNegative = 1.0
    """Weight of distilling the old model on new images: where everything old is synthetic, the model must not learn
    that whatever is real is new."""
    distil_features: NonNegative = 0.0
    """Weight of the squared distance between penultimate features and the old model's, for all images."""
    distil_importance: NonNegative = 0.0
    """Weight of the squared distance between penultimate features and the old model's, as seen by the old model's head,
    for all images (ABD: 0.1)."""
    relation: NonNegative = 0.0
    """Weight of the difference between the angles of real images and those in the old model (R-DFCIL)."""
    head_ce: NonNegative = 0.0
    """Weight of the cross-entropy over all classes, on all images, from which only the head learns (ABD: 1)."""
    local: bool = False
    """Take the cross-entropy of new images over the new classes alone, which does not push old logits down (ABD,
    R-DFCIL). Only ``head_ce``, ``head_share`` or ``align_steps`` then teach the head to prefer a new class to an old
    one: with replay alone it hardly ever does."""
    distil: Literal["soft", "hard"] = "soft"
    """On replayed images, distil the old model's probabilities, with 0 for the new classes; or its logits of the old
    classes, by their absolute difference (R-DFCIL)."""
    alpha: Positive | None = None
    """α of the LRA step, for the acquisition loss weighted by its share; plain replay if not given."""
    alpha_rate: NonNegative = 0.02
    """Learn α in every experience, one for each parameter tensor, starting from ``alpha``: the step size for log α (see
    `LearnedRates`). 0 keeps α constant."""


class IncrementOptions(DataFreeReplayOptions, FeCAMOptions, DeepInversionTerms, RDFCILTerms):
    """Options of all strategies; each uses those that concern it."""

    lr: Positive = 0.05
    """Learning rate of SGD with momentum 0.9, annealed to 0 in every experience unless ``milestones`` are given."""
    weight_decay: NonNegative = 1e-4
    """Weight decay of the learner's SGD."""
    minibatch: Count = 32
    """Real images per step."""
    augment: Strength = 0.0
    """Strength of random rotation, shear, scaling and translation of the real images: 1 is up to 10 degrees and a 16th
    of the side, 4 the maximum."""
    photographs: bool = False
    """Augment real images by mirroring half of them, shifting by up to an eighth of the side, and changing brightness
    and contrast, as ABD does for CIFAR."""
    normalisation: Literal["grey", "published"] = "grey"
    """What the model subtracts from images and divides them by: 0.5 and 0.5, or the data set's published mean and
    standard deviation, which contain information on classes still to come."""
    class_order: Literal["torch", "python"] = "torch"
    """Whose random permutation orders the classes, from the seed alone either way; ABD and R-DFCIL use Python's."""
    milestones: tuple[Fraction, ...] = ()
    """Fractions of an experience's steps after which the learning rate is divided by 10; annealed to 0 if none."""
    drop_last: bool = False
    """Drop the last minibatch of an epoch if it is incomplete."""
    student_triplet: NonNegative = 0.0
    """Weight of the triplet loss on the model's features (RGAL: 0.1)."""
    memory: Count = 200
    """Images that buffered replay stores."""
    lwf_alpha: NonNegative = 1.0
    """Weight of LwF's distillation."""
    lwf_temperature: Positive = 2.0
    """Temperature of LwF's distillation."""
    vae_latent: Count = 2
    """Latent dimensions of the autoencoder that Avalanche's generative replay trains on the real data; its default is
    2."""
    vae_lr: Positive = 0.01
    """Adam's learning rate for that autoencoder."""
