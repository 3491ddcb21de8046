"""NAYER: the randomness of synthesis lies in a layer that is drawn anew, the start in an embedding of the label.

Tran et al., "NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free Knowledge Distillation", CVPR
2024, https://arxiv.org/abs/2310.00258.

For every experience, with teacher T, student S, a generator G that is drawn anew now and then, a = shift and flip,
twice:

    W ~ N(0, I), the weights of G's noisy layers;  y = all classes as often as they fit
    30 times, x = G(embedding of y):  G, W <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                                                       + adversarial·(-KL_1(S ‖ T), where S and T agree)
    the best x enters the pool
    then 400 times:  S <- SGD on D of images from the pool (``--replay pool``)

The paper embeds the names of classes with CLIP's text encoder, a model from outside that has seen images with their
names, so that it is not strictly data-free. Here a class is a unit vector (``one-hot``), or one of K random orthogonal
ones; embeddings made elsewhere can be given in a configuration file, as a table with one row a class.

Before the student's first step come 20·10 batches without the adversarial term. G's life is counted in batches: 20
are the ten epochs of the release, whose warm-up has ten batches an epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lra.options import AdversarialOptions, Count, NonNegative, Positive, Whole
from lra.strategies.method import (
    BatchNormOptions,
    GeneratorOptions,
    OptimisedMethod,
    OptimisedOptions,
    Parts,
    published,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


class LabelOptions(AdversarialOptions, BatchNormOptions, OptimisedOptions):
    """Options of a generator that is told labels, with NAYER's three terms."""

    images: Count = 400
    steps: Count = 30
    rounds: Count = 2
    warmup: Whole = 200
    lr: Positive = 4e-3
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of earlier batches in the statistics compared."""
    one_hot: NonNegative = 0.5
    adversarial: NonNegative = 1.33
    life: Count = 20
    """Batches until G is drawn anew."""
    embedding: Literal["one-hot", "orthogonal"] | list[list[float]] = "one-hot"
    """Embeddings of the classes; a table gives them as they are."""
    dimension: Count | None = None
    """Length of orthogonal embeddings, K or more; as many as classes if not given."""
    latent: Count | None = None
    """Outputs of each noisy layer, 1000 as published; fewer for smaller images."""


class NAYEROptions(LabelOptions, GeneratorOptions):
    """Defaults are those of the paper's scripts for CIFAR-10; 40 steps for CIFAR-100."""


class LabelMethod(OptimisedMethod):
    """A method whose generator is told labels."""

    def embedding(self) -> Tensor:
        """(K, d)."""
        import torch

        given, classes = self.options.embedding, self.setup.problem.classes
        if given == "one-hot":
            return torch.eye(classes)
        if given == "orthogonal":
            return orthogonal(classes, self.options.dimension or classes)
        if len({len(row) for row in given}) != 1 or len(given) != classes:
            raise ValueError(f"synthesis.embedding needs {classes} rows of equal length, one a class; got {len(given)}")
        return torch.tensor(given)


class NAYER(LabelMethod):
    """A generator of labels whose noisy layers take the place of latents."""

    name = "nayer"
    paper = "Tran et al., CVPR 2024"
    Options = NAYEROptions
    defaults = published(batch_size=512, epochs=300, lr=0.2)

    def build(self, student: nn.Module) -> Parts:
        """G and its three terms."""
        from lra.networks.conditional import LabelGenerator
        from lra.networks.generators import sized_for
        from lra.synthesis import labels
        from lra.synthesis.sources import NoisyLayerSource
        from lra.synthesis.terms import BNStat, OneHot

        o, problem = self.options, self.setup.problem
        width, latent = sized_for(problem.image)
        generator = LabelGenerator(
            problem.classes,
            problem.image,
            o.images,
            embedding=self.embedding(),
            latent=o.latent or latent,
            width=o.width or width,
        ).to(problem.device)
        terms = [BNStat(o.bn, o.bn_momentum), OneHot(o.one_hot), self.masked_adversary(o.adversarial)]
        source = NoisyLayerSource(generator, o.lr, o.life)
        return self.parts(self.batches(source, terms, labels.full_sets(problem.classes)))


def orthogonal(rows: int, dimension: int) -> Tensor:
    """Random orthogonal unit vectors (rows, dimension).

    Raises:
        ValueError: if there is no room for so many.
    """
    import torch

    if dimension < rows:
        raise ValueError(f"synthesis.dimension = {dimension}: {rows} orthogonal embeddings need as many or more")
    return torch.linalg.qr(torch.randn(dimension, rows)).Q.T.contiguous()
