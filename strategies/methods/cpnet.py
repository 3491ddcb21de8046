"""CPNet: a generator coupled to the teacher, map by map, and images with parts of one another.

Chen et al., "CPNet", ICCV 2025, https://github.com/LannCX/CPNet; from the released code and notes on the paper. The
release stops at its first step, over a name that nothing defines.

For every experience, with teacher T, student S, a generator G of labels whose maps x_i have the shapes of what chosen
BatchNorm layers i of T take in, f_i; a = shift, flip, and colours a little other:

    W ~ N(0, I), the weights of G's noisy layers;  y = all classes as often as they fit
    30 times, x = G(embedding of y):  x', y' = a(x), y, of every other batch mixed: a part of x_j, its share λ of y_j
        G, W <- Adam on  bn·R_bn(T; x', with momentum) + one_hot·CE(T(x'), y') + coupling·Σ_i mean (x_i - f̃_i)²
                         + adversarial·(-KL_1(S ‖ T), where S and T agree, + prior·mean |cos(a, u)|)
    the best x enters the pool
    then 400 times:  S <- SGD on D of images from the pool (``--replay pool``)

f̃ is f without gradient, brought from the batch's mean and variance to the running ones. a and u tell how far T's
features lie from those that say y with 0.9 (see `PriorFeature`): the student is not in it. KL_1 is Σ q (log q - log p),
q the student's answer and p the teacher's, as released (``divergence: reverse``); ``forward`` has the two change
places, as in NAYER, from which the method descends.

Inferred: what weighs the feature adversary. The release adds it with 1 in every cell (``prior: 1``) and never reads the
option ``dist`` of its scripts, which is 0 in most cells; here ``prior`` is that. Mixed images have no part in it
(ours); the release compares them with their first class.

Layers are the last BatchNorm of each resolution, at most the four deepest (ours), or ``nodes``, as the release names
them. Maps are enlarged to whatever is the next size, also where that is no multiple (ours). Without ``coupling`` the
generator is NAYER's. The release's embeddings are CLIP's of class names, see NAYER; its colours are turned in HSV. Left
out: what it does otherwise on ImageNet (its labels, rolled images).

Before the student's first step come 20·10 batches without the adversaries. Lives are counted in batches: ten epochs of
the release are 100 in its warm-up, and 20 after it.
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
    """How much brightness, contrast, saturation and hue of four in ten images change in synthesis."""
    coupling: NonNegative = 1.0
    """Weight of the distance of G's maps to the teacher's."""
    nodes: list[str] | None = None
    """BatchNorm layers to couple, the deepest first; the last of each resolution, at most four, if not given."""
    divergence: Literal["reverse", "forward"] = "reverse"
    """The adversary's: from the student's answer to the teacher's, as released, or NAYER's."""
    prior: NonNegative = 0.0
    """Weight of the feature adversary within the adversarial term; 1 as released, 0 to 1 in the scripts."""
    smoothing: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the class prior leaves to all other classes."""
    warmup_life: Count = 100
    """Batches until G is drawn anew, in the warm-up."""
    without_batchnorm: ClassVar[str] = "synthesis.bn=0 and synthesis.coupling=0"

    @property
    def needs_batchnorm(self) -> bool:
        """Whether R_bn or the coupling needs it."""
        return super().needs_batchnorm or self.coupling > 0


class CPNet(LabelMethod):
    """A generator whose maps are the teacher's, and mixed classes."""

    name = "cpnet"
    paper = "Chen et al., ICCV 2025"
    Options = CPNetOptions
    defaults = published(batch_size=512, epochs=100, lr=0.2)

    def build(self, student: nn.Module) -> Parts:
        """G and its five terms.

        Raises:
            ValueError: if a node to couple is no BatchNorm of maps; if the teacher's last layer is not linear.
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
