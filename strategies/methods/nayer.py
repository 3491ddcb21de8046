"""NAYER: randomness comes from a layer re-initialised for every batch, whose input is an embedding of the label.

Tran et al., "NAYER: Noisy Layer Data Generation for Efficient and Effective Data-free Knowledge Distillation", CVPR
2024, https://arxiv.org/abs/2310.00258.

Twice in every experience, with teacher T, student S, a generator G that is re-initialised from time to time, a = shift
and flip:

    W ~ N(0, I), the weights of G's noisy layers;  y = every class equally often, as far as the batch allows
    30 times, x = G(embedding of y):  G, W <- Adam on  bn·R_bn(T; a(x), with momentum) + one_hot·CE(T(a(x)), y)
                                                       + adversarial·(-KL_1(S ‖ T), where S and T agree)
    the best x enters the pool
    then 400 times:  S <- SGD on D of images from the pool (``--replay pool``)

The paper embeds class names with CLIP's text encoder, an external model that was trained on images with captions, so
that it is not strictly data-free. Here the embeddings are unit vectors (``one-hot``), or K random orthogonal ones;
embeddings made elsewhere can be given in a configuration file, as a table with one row per class.

Before the student's first step come 20·10 batches without the adversarial term. G's lifetime is counted in batches:
20 are the ten epochs of the release, whose warm-up has ten batches an epoch.
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
    """Options of a label-conditional generator with NAYER's three terms."""

    images: Count = 400
    steps: Count = 30
    rounds: Count = 2
    warmup: Whole = 200
    lr: Positive = 4e-3
    bn: NonNegative = 10.0
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of earlier batches in the BatchNorm statistics that are compared."""
    one_hot: NonNegative = 0.5
    adversarial: NonNegative = 1.33
    life: Count = 20
    """Batches until G is re-initialised."""
    embedding: Literal["one-hot", "orthogonal"] | list[list[float]] = "one-hot"
    """Embeddings of the classes; a table gives them directly, one row per class."""
    dimension: Count | None = None
    """Length of orthogonal embeddings, K or more; the number of classes K if not given."""
    latent: Count | None = None
    """Outputs of each noisy layer: 1000 as published, fewer for smaller images, if not given."""


class NAYEROptions(LabelOptions, GeneratorOptions):
    """Defaults are those of the paper's scripts for CIFAR-10; 40 steps for CIFAR-100."""


class LabelMethod(OptimisedMethod):
    """A method with a label-conditional generator."""

    def embedding(self) -> Tensor:
        """The embeddings of the classes (K, d)."""
        import torch

        given, classes = self.options.embedding, self.setup.problem.classes
        if given == "one-hot":
            return torch.eye(classes)
        if given == "orthogonal":
            return orthogonal(classes, self.options.dimension or classes)
        if len({len(row) for row in given}) != 1 or len(given) != classes:
            raise ValueError(
                f"synthesis.embedding needs {classes} rows of equal length, one per class; got {len(given)}"
            )
        return torch.tensor(given)


class NAYER(LabelMethod):
    """A label-conditional generator whose noisy layers take the place of latents."""

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
        ValueError: if the dimension is smaller than the number of rows.
    """
    import torch

    if dimension < rows:
        raise ValueError(f"synthesis.dimension = {dimension}: {rows} orthogonal embeddings need as many or more")
    return torch.linalg.qr(torch.randn(dimension, rows)).Q.T.contiguous()
