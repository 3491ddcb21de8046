"""Generators made of generators: the fused pair of AEAHL-RG, and those of GDFQ and NAYER that are told a class."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lra.images import Image
from lra.networks.generators import UpsamplingGenerator, gen_s


class FusedGenerator(nn.Module):
    """Two generators on the same latents, averaged, then a small convolutional decoder.

    For tasks in sequence one of the two can be kept from an earlier task ("reusable generators", AEAHL-RG).
    Started from equal weights they would stay equal for ever, so ``second`` is never a copy of ``first``.
    """

    def __init__(
        self, first: UpsamplingGenerator, second: UpsamplingGenerator, decoder: nn.Module | None = None
    ) -> None:
        """Fuse generators of the same latent and image size, with ``decoder`` or a fresh `decoder_of_fusion`.

        Raises:
            ValueError: if the generators' sizes differ, or both are one object.
        """
        super().__init__()
        if first is second or (first.latent, first.image) != (second.latent, second.image):
            raise ValueError("a fusion needs two distinct generators with the same latent and image size")
        self.latent, self.image = first.latent, first.image
        self.first, self.second = first, second
        self.decoder = decoder_of_fusion(first.image[0]) if decoder is None else decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, latent) to images (n,C,H,W) in (0,1)."""
        return self.decoder((self.first(latents) + self.second(latents)) / 2)


def decoder_of_fusion(channels: int) -> nn.Sequential:
    """Build the decoder of AEAHL-RG, C-8-16-8-C channels and a sigmoid, for images of any size."""
    widths = (channels, 8, 16, 8)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, channels, 3, padding=1), nn.Sigmoid())


class ConditionedGenerator(nn.Module):
    """Any generator on latents that are multiplied by a learnt embedding of the class wanted (GDFQ, ECCV 2020).

    Its forward takes the product of the two, see `latents`.
    """

    def __init__(self, generator: UpsamplingGenerator, classes: int) -> None:
        """Build it around ``generator``, with an embedding of its number of latents for each class."""
        super().__init__()
        self.generator: nn.Module = generator
        self.embedding = nn.Embedding(classes, generator.latent)

    def latents(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise (n, z) for the classes (n,), with a graph to the embedding."""
        return noise * self.embedding(labels)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, z) to images (n,C,H,W)."""
        return self.generator(latents)


class LabelGenerator(nn.Module):
    """Generator of NAYER (Tran et al., CVPR 2024): label embeddings through re-drawn noisy layers, then GenS.

    The randomness lies in the noisy layers, one for each K samples, which replace the latents. The paper
    embeds label texts with CLIP, an external model; any embedding of classes will do, by default one-hot.
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
    ) -> None:
        """Build it for batches of at most ``batch`` samples.

        Args:
            classes: K.
            image: channels, height and width.
            batch: the largest number of samples in a forward; ceil(batch / K) noisy layers serve them.
            embedding: (K, d), or ``None`` for one-hot.
            latent: outputs of each noisy layer.
            width: of the convolutional part.

        Raises:
            ValueError: if the embedding has another number of rows than there are classes.
        """
        super().__init__()
        embedding = torch.eye(classes) if embedding is None else embedding
        if len(embedding) != classes:
            raise ValueError(f"the embedding needs {classes} rows, one a class; got {len(embedding)}")
        self.register_buffer("embedding", embedding.detach().clone())
        self.norm = nn.BatchNorm1d(embedding.shape[1])
        layers = (nn.Linear(embedding.shape[1], latent) for _ in range(-(-batch // classes)))
        self.noisy = nn.ModuleList(layers)
        self.images = gen_s(latent, image, width=width)
        self.reset_noise()

    def reset_noise(self) -> None:
        """Draw the noisy layers' weights anew from N(0,1) with zero biases: the next latents, so to speak."""
        for layer in self.noisy.children():
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels (n,) to images (n,C,H,W) in (0,1); each K samples in a row share a noisy layer.

        Raises:
            ValueError: if there are more labels than the noisy layers serve.
        """
        chunks = self.norm(self.embedding[labels]).split(len(self.embedding))
        if len(chunks) > len(self.noisy):
            raise ValueError(f"at most {len(self.noisy) * len(self.embedding)} labels at once; got {len(labels)}")
        latents = [layer(chunk) for layer, chunk in zip(self.noisy, chunks, strict=False)]
        return self.images(torch.cat(latents))
