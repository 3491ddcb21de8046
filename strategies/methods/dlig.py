"""DLIG: each image has two latents: its content, and a style that the content queries by cross-attention.

"Dual-Latent Interactive Generation for Data-Free Knowledge Distillation", https://github.com/yangshunzhi1994/DLIG;
from the released code, which builds on NAYER's: no paper was at hand.

Twice in every experience, with teacher T, student S, a generator G that is rebuilt from time to time, a = shift and
flip:

    z = (content, style) ~ N(0, I);  y = every class equally often, as far as the batch allows
    40 times, x = G(z), decoded from the map h:
        G, z <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                         + adversarial·(-KL_1(S ‖ T), where T predicts y)
                         + spread·(-mean_c std_b φ(mean over pixels of h))
    the best x enters the pool
    then 400 times:  S <- SGD on D of images from the pool (``--replay pool``)

φ scales each sample to unit length. Only the losses ask for classes; G is not told them. NAYER's adversarial term is
masked to images on which S and T agree, this one to images on which T predicts the target class.

The release cannot take a second step on a current PyTorch, since it halves z outside the loop; here G halves it. Its
G ends in a Tanh whose output is taken for images in [0, 1], so that half of the range is lost; here G ends in a
sigmoid, and there is no option for the Tanh. Ours: a smaller z for smaller images, and fewer than 4 heads where a
narrow G has too few channels.

Before the student's first step come 20·10 batches without the adversarial term. G's lifetime is counted in batches:
20 are the ten epochs of the release, whose warm-up has ten batches an epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lra.options import AdversarialOptions, Count, NonNegative, Positive, Whole
from lra.strategies.method import BatchNormOptions, GeneratorOptions, OptimisedMethod, Parts, published

if TYPE_CHECKING:
    from torch import nn

    from lra.networks.composed import TwoLatentGenerator


class DLIGOptions(AdversarialOptions, BatchNormOptions, GeneratorOptions):
    """Defaults are those of the released scripts, the same for CIFAR-10 and CIFAR-100."""

    images: Count = 400
    steps: Count = 40
    rounds: Count = 2
    warmup: Whole = 200
    lr: Positive = 4e-3
    """Learning rate of synthesis: Adam's, for G and the latents."""
    latent: Count | None = None
    """Latent dimensions, content and style together: 512, fewer for smaller images, if not given."""
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of earlier batches in the BatchNorm statistics that are compared."""
    one_hot: NonNegative = 0.5
    adversarial: NonNegative = 1.33
    spread: NonNegative = 1.0
    """Weight of the standard deviation, over a batch, of the map that images are decoded from."""
    life: Count = 20
    """Batches until G is rebuilt."""
    heads: Count | None = None
    """Attention heads: 4, if G is wide enough, unless given."""
    tokens: Count = 16
    """Tokens into which the style is split."""


class DLIG(OptimisedMethod):
    """A generator of two latents, and a loss that makes the images of a batch differ."""

    name = "dlig"
    paper = "released code only"
    Options = DLIGOptions
    defaults = published(batch_size=512, epochs=300, lr=0.2)

    def build(self, student: nn.Module) -> Parts:
        """G and its four terms.

        Raises:
            ValueError: if a batch is a single image, or G's sizes do not fit together.
        """
        from lra.synthesis import labels
        from lra.synthesis.sources import RenewedSource
        from lra.synthesis.terms import BNStat, OneHot, Spread

        o, problem = self.options, self.setup.problem
        if o.images < 2:
            raise ValueError(f"synthesis.images = {o.images}: a single image has no spread; make at least 2")
        terms = [
            BNStat(o.bn, o.bn_momentum),
            OneHot(o.one_hot),
            self.masked_adversary(o.adversarial, "asked"),
            Spread(o.spread),
        ]
        source = RenewedSource(self.two_latents, o.lr, o.life, problem.device)
        return self.parts(self.batches(source, terms, labels.full_sets(problem.classes)))

    def two_latents(self) -> TwoLatentGenerator:
        """A new G, on the CPU."""
        from lra.networks.composed import TwoLatentGenerator
        from lra.networks.generators import sized_for

        o, problem = self.options, self.setup.problem
        width, latent = sized_for(problem.image)
        latent, width = o.latent or min(latent, 512), o.width or width
        return TwoLatentGenerator(latent, problem.image, width=width, heads=o.heads, tokens=o.tokens)
