"""CPNet: a generator whose feature maps are coupled to the teacher's, and images mixed by CutMix.

Chen et al., "CPNet", ICCV 2025, https://github.com/LannCX/CPNet; from the released code and notes on the paper. The
release stops at its first step, because of an undefined name.

Twice in every experience, with teacher T, student S, a label-conditional generator G whose maps x_i have the shapes of
the inputs f_i of chosen BatchNorm layers i of T; a = shift, flip and slight colour jitter:

    W ~ N(0, I), the weights of G's noisy layers;  y = every class equally often, as far as the batch allows
    30 times, x = G(embedding of y):  x', y' = a(x), y;  in every other batch mixed: a part of x_j, its share λ of y_j
        G, W <- Adam on  bn·R_bn(T; x', with momentum) + one_hot·CE(T(x'), y') + coupling·Σ_i mean (x_i - f̃_i)²
                         + adversarial·(-KL_1(S ‖ T), where S and T agree, + prior·mean |cos(a, u)|)
    the best x enters the pool
    then 400 times:  S <- SGD on D of images from the pool (``--replay pool``)

f̃ is f without gradient, shifted and scaled from the batch's mean and variance to the running ones. In the cosine, a
and u measure how far T's features are from those that give y a probability of 0.9 (see `PriorFeature`); the student
plays no part in it. KL_1 is Σ q (log q - log p), with q the student's prediction and p the teacher's, as released
(``divergence: reverse``); ``forward`` exchanges the two, as in NAYER, on which the method builds.

Inferred: the weight of the feature adversary. The release adds it with weight 1 in every setting (``prior: 1``) and
never reads the option ``dist`` of its scripts, which is 0 in most of them; here ``prior`` is that option. Mixed images
are left out of this term (ours); the release compares them with their first class.

The coupled layers are the last BatchNorm of each resolution, at most the four deepest (ours), or ``nodes``, named as
in the release. Maps are enlarged to the next size even where that is no multiple (ours). Without ``coupling`` the
generator is NAYER's. The release's embeddings are CLIP's of the class names, see NAYER; its colour jitter works in HSV.
Left out: what it does differently on ImageNet (its labels, rolled images).

Before the student's first step come 20·10 batches without the adversarial terms. Lifetimes are counted in batches: ten
epochs of the release are 100 batches in its warm-up, and 20 after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lra.options import Count, Fraction, NonNegative
from lra.strategies.method import Parts, published
from lra.strategies.methods.nayer import LabelMethod, LabelOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lra.synthesis.terms import Term


class CPNetOptions(LabelOptions):
    """Defaults are those of the released scripts for CIFAR-10; 40 steps for CIFAR-100."""

    cutmix: Fraction = 0.5
    colour: Fraction = 0.1
    """Strength of colour jitter (brightness, contrast, saturation, hue) in synthesis, for four images in ten."""
    coupling: NonNegative = 1.0
    """Weight of the distance between G's maps and the teacher's."""
    nodes: list[str] | None = None
    """BatchNorm layers to couple, deepest first; if not given, the last of each resolution, at most four."""
    divergence: Literal["reverse", "forward"] = "reverse"
    """Direction of the adversarial KL: from the student's prediction to the teacher's, as released, or NAYER's."""
    prior: NonNegative = 0.0
    """Weight of the feature adversary within the adversarial term; 1 as released, 0 to 1 in the scripts."""
    smoothing: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Probability that the class prior leaves to all other classes together."""
    warmup_life: Count = 100
    """Batches until G is re-initialised, in the warm-up."""
    without_batchnorm: ClassVar[str] = "synthesis.bn=0 and synthesis.coupling=0"

    @property
    def needs_batchnorm(self) -> bool:
        """Whether R_bn or the coupling needs it."""
        return super().needs_batchnorm or self.coupling > 0


class CPNet(LabelMethod):
    """A label-conditional generator whose feature maps match the teacher's, and mixed images."""

    name = "cpnet"
    paper = "Chen et al., ICCV 2025"
    Options = CPNetOptions
    defaults = published(batch_size=512, epochs=100, lr=0.2)

    def build(self, student: nn.Module) -> Parts:
        """G and its five terms.

        Raises:
            ValueError: if a node to couple is not a BatchNorm of feature maps, or the teacher's last layer not linear.
        """
        from lra.anatomy import batchnorm_nodes, classifier
        from lra.networks.conditional import LabelGenerator, Ladder
        from lra.networks.generators import sized_for
        from lra.synthesis import labels
        from lra.synthesis.augmentation import jittered
        from lra.synthesis.sources import NoisyLayerSource
        from lra.synthesis.terms import BNStat, CoupledMaps, OneHot, PriorFeature

        o, problem, network = self.options, self.setup.problem, self.setup.teacher.network
        width, latent = sized_for(problem.image)
        latent, shaken = o.latent or latent, o.crop_and_flip()
        statistics = BNStat(o.bn, o.bn_momentum)
        terms: list[Term] = [statistics, OneHot(o.one_hot)]
        ladder = None
        if o.coupling:
            nodes = batchnorm_nodes(network, problem.image, o.nodes)
            ladder = Ladder(latent, problem.image, [node.map for node in nodes])
            terms.append(CoupledMaps(o.coupling, [node.place for node in nodes], statistics))
        terms.append(self.masked_adversary(o.adversarial, reverse=o.divergence == "reverse"))
        if o.adversarial * o.prior:
            terms.append(PriorFeature(o.adversarial * o.prior, classifier(network, problem.image), o.smoothing))
        generator = LabelGenerator(
            problem.classes,
            problem.image,
            o.images,
            embedding=self.embedding(),
            latent=latent,
            width=width,
            images=ladder,
        ).to(problem.device)
        source = NoisyLayerSource(generator, o.lr, o.life, o.warmup, o.warmup_life)

        def augment(images: Tensor) -> Tensor:
            return jittered(shaken(images), o.colour) if o.colour else shaken(images)

        return self.parts(self.batches(source, terms, labels.full_sets(problem.classes), augment))
