"""What methods with an online generator have in common: its options, its size, its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lra.options import Count, Fraction, Positive
from lra.strategies.method import Method, SynthesisOptions

if TYPE_CHECKING:
    from torch import nn

    from lra.synthesis.online import OnlineGenerator
    from lra.synthesis.terms import Term


class OnlineOptions(SynthesisOptions):
    """Of the generator and its Adam."""

    lr: Positive = 1e-3
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    steps: Count = 1
    """Generator steps per experience."""
    latent: Count | None = None
    """As published, if the images are as large as CIFAR's; smaller for smaller ones."""
    width: Count | None = None
    """128 for CIFAR; follows the image size unless set."""


class OnlineMethod(Method):
    """A method whose samples come fresh from a generator that is trained along with the student.

    Class attributes:
        latent: the published number of latents.
    """

    latent: ClassVar[int]

    def online(
        self,
        terms: Sequence[Term],
        make: Callable[..., nn.Module] | None = None,
        source: type[OnlineGenerator] | None = None,
        **settings: Any,
    ) -> OnlineGenerator:
        """The sample source that minimises ``terms``.

        Args:
            terms: losses of a generator step.
            make: builds the generator from latent, image and width; by default that of DAFL, ZSKT and DFQ.
            source: the class of the source, if not that one.
            settings: further arguments of ``source``.

        Raises:
            ValueError: if all weights are 0.
        """
        import torch

        from lra.networks.generator_presets import gen_l, sized_for
        from lra.synthesis.online import OnlineGenerator

        if not any(term.weight for term in terms):
            raise ValueError("every weight in synthesis is 0, so the generator has nothing to learn: raise one")
        o, problem = self.options, self.setup.problem
        width, latent = sized_for(problem.image)
        latent = o.latent or min(latent, self.latent)
        generator = (make or gen_l)(latent, problem.image, width=o.width or width).to(problem.device)
        return (source or OnlineGenerator)(
            generator,
            torch.optim.Adam(generator.parameters(), lr=o.lr, betas=o.betas),
            terms,
            self.setup.teacher,
            latent=latent,
            batch_size=self.setup.batch_size,
            steps=o.steps,
            **settings,
        )
