"""A generator that is told which class to draw."""

from torch import Tensor, nn

from lra.networks.generators import UpsamplingGenerator


class ConditionedGenerator(nn.Module):
    """Any generator on latents that are multiplied by a learnt embedding of the class wanted (GDFQ, ECCV 2020).

    Its forward takes the product of the two, see `latents`.
    """

    def __init__(self, generator: UpsamplingGenerator, classes: int) -> None:
        """Build it around ``generator``, with an embedding of its number of latents for each class."""
        super().__init__()
        self.generator = generator
        self.embedding = nn.Embedding(classes, generator.latent)

    def latents(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Noise (n, z) for the classes (n,), with a graph to the embedding."""
        return noise * self.embedding(labels)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (n, z) to images (n,C,H,W)."""
        return self.generator(latents)
