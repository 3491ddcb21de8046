"""An online generator that is told which classes to draw (GDFQ)."""

import torch
from torch import Tensor, nn

from lra.networks.conditioned import ConditionedGenerator
from lra.synthesis.synthesizer import OnlineGenerator
from lra.synthesis.terms import TermValue


class ConditionedSource(OnlineGenerator):
    """`OnlineGenerator` with a `ConditionedGenerator`: each image is asked to be of a class drawn uniformly.

    Attributes:
        warmup: experiences' worth of further generator steps before the first experience opens.
    """

    generator: ConditionedGenerator
    warmup = 0

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """As `OnlineGenerator.step`; the first time after the warm-up."""
        for _ in range(0 if self.generator_steps else self.warmup):
            super().step(student)
        return super().step(student)

    def updates(self, index: int) -> int:
        """Those of the warm-up too, in the first."""
        return self.steps * (1 if index else 1 + self.warmup)

    def latents(self, n: int) -> Tensor:
        """(n, z), for classes that are ``asked`` from now on."""
        noise = super().latents(n)
        self.asked = torch.randint(self.generator.embedding.num_embeddings, (n,)).to(noise.device)
        return self.generator.latents(noise, self.asked)
