"""Generators that are reused from task to task: two fused ones and a decoder, some of them old (AEAHL-RG)."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lra.anatomy import penultimate
from lra.features import FeatureTap
from lra.networks.composed import FusedGenerator
from lra.options import Branch, Reuse
from lra.problem import Teacher
from lra.randomness import normal, uniform
from lra.state import untouched
from lra.synthesis.sources.lasting import MetaSource
from lra.synthesis.synthesizer import load_reused

RATES: Mapping[Reuse, tuple[float, float, float]] = {
    "anew": (1.0, 1.0, 1.0),
    "common": (1.0, 1.0, 1.0),
    "finetune": (1.0, 0.1, 0.1),
    "fix": (1.0, 0.0, 0.0),
}
"""Learning rates of first generator, second generator and decoder, as multiples of the source's, inner and outer."""


class ReusableSource(MetaSource):
    """A fused generator that lives on as in Fast, whose second generator and decoder may be an earlier task's.

    Args:
        generator: first and second generator, decoder.
        teacher: judges the two at the end of a task.
        lr: inner learning rate of the generator.
        latent_lr: inner learning rate of the latents.
        steps: inner steps per batch.
        reuse: what an earlier task brings: nothing; second generator and decoder, to be trained like all else, or
            ten times slower, or not at all.
        meta: see `MetaSource`.
        branch: which of the two generators a later task gets: the one whose decoded images move the teacher's
            features less (see `calmer`), or always the ``"first"``, as released.
        follow: bring the BatchNorm statistics of the generator along with its weights. Without, as released, those
            that are saved are of no use in evaluation mode.

    Raises:
        HeadNotFound: if the teacher's features are to choose the branch, and cannot be found.
    """

    generator: FusedGenerator

    def __init__(
        self,
        generator: FusedGenerator,
        teacher: Teacher,
        lr: float,
        latent_lr: float,
        steps: int,
        reuse: Reuse = "anew",
        meta: Literal["fomaml", "reptile"] = "fomaml",
        branch: Branch = "features",
        follow: bool = True,
    ):
        self.reuse: Reuse = reuse
        super().__init__(generator, lr, latent_lr, steps, meta)
        self.teacher = teacher
        self.branch = branch
        if branch == "features":  # Not at the end of the task, when it is learnt.
            penultimate(teacher.network, generator.image)
        self.follow = follow
        self.begun = reuse == "anew"
        for part, rate in zip(_parts(generator), RATES[reuse], strict=True):
            part.requires_grad_(rate > 0)

    def groups(self, generator: nn.Module) -> list[dict[str, Any]]:
        """A group for each part that learns."""
        assert isinstance(generator, FusedGenerator)
        rated = zip(_parts(generator), RATES[self.reuse], strict=True)
        return [{"params": list(part.parameters()), "lr": self.lr * rate} for part, rate in rated if rate]

    def end(self) -> None:
        """The outer step, and the statistics of the copy that was trained."""
        if self.follow:
            for slow, fast in zip(self.generator.buffers(), self.fast.buffers(), strict=True):
                slow.copy_(fast)
        super().end()

    @property
    def awaits_generator(self) -> bool:
        """Parts of an earlier task, in every mode but ``"anew"``, until it has them."""
        return not self.begun

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Take second generator and decoder of an earlier task; the first stays new.

        Raises:
            ValueError: in mode ``"anew"``; or if one of them is missing or of another size.
        """
        if self.reuse == "anew":
            raise ValueError("reuse 'anew' starts from nothing: choose common, finetune or fix")
        for name, part in (("second", self.generator.second), ("decoder", self.generator.decoder)):
            own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
            if not own:
                raise ValueError(f"the generator to reuse has no {name!r} part: it is not one of aeahl-rg's")
            load_reused(part, own)
        self.begun = True

    def generator_to_reuse(self) -> FusedGenerator:
        """The generator, its two branches in such an order that the second is the one for a later task.

        Their order makes no difference to the images, which are decoded from the average.
        """
        first, second = self.generator.first, self.generator.second
        if self.branch == "first" or calmer(self.generator, self.teacher) == "first":
            first, second = second, first
        return FusedGenerator(first, second, self.generator.decoder)


def calmer(generator: FusedGenerator, teacher: Teacher, n: int = 256) -> Literal["first", "second"]:
    """The branch that, fused with noise and decoded, moves the teacher's penultimate features less.

    Σ|features| of d((g(z) + u) / 2) with u ~ U(0, 1), z ~ N(0, I); leaves no trace. The rule of AEAHL-RG's paper,
    which its release has and does not call.

    Args:
        generator: with the two branches.
        teacher: asked outside of its count of queries.
        n: images per branch.
    """
    device = next(generator.parameters()).device
    with untouched(generator), torch.no_grad():
        generator.train()
        latents = normal(n, generator.latent, device=device)
        noise = uniform(n, *generator.image, device=device)
        activity = []
        for branch in (generator.first, generator.second):
            with FeatureTap(teacher.network, generator.image) as tap:
                teacher.network(generator.decoder((branch(latents) + noise) / 2))
            activity.append(tap.features.abs().sum().item())
    return "first" if activity[0] < activity[1] else "second"


def symmetric(generator: FusedGenerator) -> FusedGenerator:
    """The generator with ``second`` a copy of ``first``, as released: equal for ever, at twice the cost of one."""
    return FusedGenerator(generator.first, copy.deepcopy(generator.first), generator.decoder)


def _parts(generator: FusedGenerator) -> tuple[nn.Module, nn.Module, nn.Module]:
    return generator.first, generator.second, generator.decoder
