"""Class-conditional generators: those of GDFQ, CPSC, NAYER and CPNet."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import Image
from lra.networks.generators import (
    DoublingConvolution,
    Rescale,
    UpsamplingGenerator,
    cropped,
    deepened,
    first_map,
    gen_s,
)


class ClassGenerator(nn.Module, ABC):
    """A generator that is conditioned on a class through the latents that its forward takes.

    Attributes:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        """Initialise what all such generators have."""
        super().__init__()
        self.classes = classes

    @abstractmethod
    def latents(self, noise: Tensor, labels: Tensor) -> Tensor:
        """The input of forward for noise (n, z) and classes (n,)."""


class ConditionedGenerator(ClassGenerator):
    """Any generator, with latents multiplied by a learnt embedding of the target class (GDFQ, ECCV 2020).

    Its forward takes this product, see `latents`.
    """

    def __init__(self, generator: UpsamplingGenerator, classes: int) -> None:
        """Build it around ``generator``, with an embedding of the size of its latents for each class."""
        super().__init__(classes)
        self.generator: nn.Module = generator
        self.embedding = nn.Embedding(classes, generator.latent)

    def latents(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise (n, z) for the classes (n,), with a graph to the embedding."""
        return noise * self.embedding(labels)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, z) to images (n,C,H,W)."""
        return self.generator(latents)


class ConditionalBatchNorm(nn.Module):
    """BatchNorm of maps (n,c,h,w) with a scale and shift for each class; initially plain BatchNorm.

    Source: de Vries et al., NeurIPS 2017.
    """

    def __init__(self, channels: int, classes: int, eps: float) -> None:
        """Build it with scale 1 and shift 0 for every class."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.scale = nn.Parameter(torch.ones(classes, channels))
        self.shift = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, maps: Tensor, given: Tensor) -> Tensor:
        """Normalise maps for ``given`` (n,K), the one-hot classes."""
        return (given @ self.scale)[:, :, None, None] * self.norm(maps) + (given @ self.shift)[:, :, None, None]


class ConditionalNormGenerator(ClassGenerator):
    """Generator of CPSC (Shao et al., Pattern Recognition 2023): GenS conditioned on the class in every BatchNorm.

    It ends in tanh and another such BatchNorm, so that images lie around [0,1] like those of a standardised generator.
    The first normalisation has no activation after it; convolutions have no bias, since a BatchNorm would cancel it.
    """

    def __init__(
        self,
        latent: int,
        image: Image,
        classes: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        width: int = 128,
        bn_eps: float = 1e-3,
    ) -> None:
        """Build it.

        Args:
            latent: size of the noise.
            image: channels, height and width.
            classes: K.
            mean: of the data, one per channel.
            std: as ``mean``.
            width: channels of the first map.
            bn_eps: of every BatchNorm.
        """
        super().__init__(classes)
        channels = deepened((width, width, max(1, width // 2)), image)
        self.noise, self.latent = latent, latent + classes
        self.image, self.first_map = image, first_map(channels, image)
        self.linear = nn.Linear(latent, self.first_map[0] * self.first_map[1] * self.first_map[2])
        self.norm = ConditionalBatchNorm(channels[0], classes, bn_eps)
        self.convolutions = nn.ModuleList(DoublingConvolution(*pair, bias=False) for pair in pairwise(channels))
        self.norms = nn.ModuleList(ConditionalBatchNorm(c, classes, bn_eps) for c in channels[1:])
        self.last = nn.Conv2d(channels[-1], image[0], 3, padding=1)
        self.last_norm = ConditionalBatchNorm(image[0], classes, bn_eps)
        self.rescale = Rescale(image[0], mean, std)

    def latents(self, noise: Tensor, labels: Tensor) -> Tensor:
        """(n, z + K): the noise and the one-hot class."""
        return torch.cat([noise, F.one_hot(labels, self.classes).to(noise.dtype)], dim=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, z + K) to images (n,C,H,W)."""
        noise, given = latents.split([self.noise, self.classes], dim=1)
        maps = self.norm(self.linear(noise).unflatten(1, self.first_map), given)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            maps = F.leaky_relu(norm(convolution(maps), given), 0.2)
        maps = self.last(cropped(maps, self.image)).tanh()
        return self.rescale(self.last_norm(maps, given))


class LabelGenerator(nn.Module):
    """Generator of NAYER (Tran et al., CVPR 2024): label embeddings through re-initialised noisy layers, then GenS.

    The randomness comes from the noisy layers, one for every K samples, which replace the latents. The paper embeds
    label texts with CLIP, an external model; any embedding of classes can be used, by default one-hot.
    """

    embedding: Tensor

    def __init__(
        self,
        classes: int,
        image: Image,
        batch: int,
        *,
        embedding: Tensor | None = None,
        latent: int = 1000,
        width: int = 128,
        images: nn.Module | None = None,
    ) -> None:
        """Build it for batches of at most ``batch`` samples.

        Args:
            classes: K.
            image: channels, height and width.
            batch: the largest number of samples in a forward pass; ceil(batch / K) noisy layers serve them.
            embedding: (K, d), or ``None`` for one-hot.
            latent: outputs of each noisy layer.
            width: of the convolutional part.
            images: another convolutional part, latents (n, latent) -> images.

        Raises:
            ValueError: if the embedding does not have one row per class.
        """
        super().__init__()
        embedding = torch.eye(classes) if embedding is None else embedding
        if len(embedding) != classes:
            raise ValueError(f"the embedding needs {classes} rows, one per class; got {len(embedding)}")
        self.register_buffer("embedding", embedding.detach().clone())
        self.norm = nn.BatchNorm1d(embedding.shape[1])
        layers = (nn.Linear(embedding.shape[1], latent) for _ in range(-(-batch // classes)))
        self.noisy = nn.ModuleList(layers)
        self.images: nn.Module = gen_s(latent, image, width=width) if images is None else images
        self.reset_noise()

    def reset_noise(self) -> None:
        """Re-initialise the noisy layers' weights from N(0,1), with zero biases: the equivalent of new latents."""
        for layer in self.noisy.children():
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels (n,) to images (n,C,H,W) in (0,1); raises ``ValueError`` as `latents`."""
        images: Tensor = self.images(self.latents(labels))
        return images

    def made(self, labels: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Images, and the maps of a `Ladder`; no maps for another convolutional part."""
        latents = self.latents(labels)
        return self.images.climbed(latents) if isinstance(self.images, Ladder) else (self.images(latents), [])

    def latents(self, labels: Tensor) -> Tensor:
        """Map labels (n,) to latents (n, latent); every K consecutive samples share a noisy layer.

        Raises:
            ValueError: if there are more labels than the noisy layers serve.
        """
        chunks = self.norm(self.embedding[labels]).split(len(self.embedding))
        if len(chunks) > len(self.noisy):
            raise ValueError(f"at most {len(self.noisy) * len(self.embedding)} labels at once; got {len(labels)}")
        return torch.cat([layer(chunk) for layer, chunk in zip(self.noisy, chunks, strict=False)])


class Ladder(nn.Module):
    """Convolutional part of CPNet's generator (Chen et al., ICCV 2025): its maps have the shapes of a teacher's.

    A linear layer to the first rung's map and BatchNorm; then, for each further rung, nearest upsampling, a 3x3
    convolution, BatchNorm and LeakyReLU; finally upsampling, a convolution and a sigmoid.
    """

    def __init__(self, latent: int, image: Image, rungs: Sequence[Image]) -> None:
        """Build it.

        Args:
            latent: number of inputs.
            image: channels, height and width.
            rungs: channels, height and width of each map, the smallest first.
        """
        super().__init__()
        self.first_map = rungs[0]
        self.linear = nn.Linear(latent, rungs[0][0] * rungs[0][1] * rungs[0][2])
        self.norm = nn.BatchNorm2d(rungs[0][0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(size=above[1:]),
                nn.Conv2d(below[0], above[0], 3, padding=1, bias=False),
                nn.BatchNorm2d(above[0]),
                nn.LeakyReLU(0.2),
            )
            for below, above in pairwise(rungs)
        )
        last = nn.Conv2d(rungs[-1][0], image[0], 3, padding=1)
        self.last = nn.Sequential(nn.Upsample(size=image[1:]), last, nn.Sigmoid())

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to images (n,C,H,W) in (0,1)."""
        return self.climbed(latents)[0]

    def climbed(self, latents: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Images, and the map of each rung (n,c,h,w)."""
        maps = [self.norm(self.linear(latents).unflatten(1, self.first_map))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return self.last(maps[-1]), maps
