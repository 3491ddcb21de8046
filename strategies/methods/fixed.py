"""Fixed sources: the sample source never learns, so it cannot drift; the control for every claim about forgetting.

Ours, and not a method to recommend: forgetting is said to come from a generator that drifts, and here there is none.
Whatever ``forgetting`` still shows is the noise of evaluation and the fluctuation of the student itself, and the
accuracy is the floor for "no generator learns".

For every experience, with teacher T, student S:

    10 times:  x ~ the family,  S <- SGD on D(S(x), T(x))

The families: ``generator``, CMI's GenS with its initial weights; ``noise``, each pixel from N(mean, std) of the data's
normalisation, clipped to [0, 1]; ``deadleaves``, opaque shapes that fall on top of each other, after Baradad et al.,
"Learning to See by Looking at Noise", NeurIPS 2021, https://arxiv.org/abs/2106.05963. Each is drawn afresh for every
step, or once and for all (``distinct``).

The teacher's predictions are usually far from balanced over classes: see ``classes`` in the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lra.options import Count, Seed
from lra.strategies.method import LATENT, Method, Parts, SynthesisOptions

if TYPE_CHECKING:
    from torch import nn

    from lra.synthesis.fixed import Family


class FixedOptions(SynthesisOptions):
    """What the images are drawn from."""

    family: Literal["generator", "noise", "deadleaves"] = "generator"
    """A random generator's images, noise, or dead leaves."""
    distinct: Count | None = None
    """Number of images in all, the same in every experience; unlimited if not given. Dead leaves are slow to draw."""
    source_seed: Seed = 0
    """Seed of the generator's weights and of the distinct images, the same whatever the seed of the run."""
    latent: Count | None = None
    """Latent dimensions of the generator; by the size of the images if not given."""
    width: Count | None = None
    """Width of the generator; by the size of the images if not given."""


class Fixed(Method):
    """Images of a random generator, noise or dead leaves: the control that cannot drift."""

    name = "fixed"
    paper = "a control of ours"
    Options = FixedOptions
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "loss": {"kind": "l1"}},
        "schedule": {"batch_size": 256, "steps_per_experience": 10, "experiences_per_epoch": 40, "epochs": 200},
    }

    def build(self, student: nn.Module) -> Parts:
        """The source; the student's loss is the distance of the setup.

        Raises:
            ValueError: for a synthesis term, since the source does not learn, or for fewer images than a step takes.
        """
        from lra.distillation.objective import Objective
        from lra.synthesis.fixed import FixedSource

        o, setup = self.options, self.setup
        if o.triplet:
            raise ValueError(f"synthesis.triplet = {o.triplet:g}: a fixed source does not learn; leave it out")
        if o.distinct is not None and o.distinct < setup.batch_size:
            raise ValueError(
                f"synthesis.distinct = {o.distinct}: give at least {setup.batch_size}, the images of a step"
            )
        source = FixedSource(self._family(), setup.teacher, o.source_seed, o.distinct)
        return Parts(source, Objective(setup.distance))

    def _family(self) -> Family:
        from lra.networks.generators import gen_s, sized_for
        from lra.synthesis.fixed import DeadLeaves, Noise, RandomGenerator

        o, problem = self.options, self.setup.problem
        if o.family == "noise":
            return Noise(problem.image, problem.mean, problem.std, problem.device)
        if o.family == "deadleaves":
            return DeadLeaves(problem.image, problem.device)
        width, latent = sized_for(problem.image)
        latent = o.latent or min(latent, LATENT)
        return RandomGenerator(
            lambda: gen_s(latent, problem.image, width=o.width or width).to(problem.device), latent, o.source_seed
        )
