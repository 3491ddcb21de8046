"""Sources whose generator outlives a batch: it learns to be a good start, or is re-initialised from time to time.

Or it is reused from task to task: two fused generators and a decoder, some of them an earlier task's (AEAHL-RG).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lra.anatomy import penultimate
from lra.features import FeatureTap
from lra.networks.composed import FusedGenerator, TwoLatentGenerator
from lra.networks.conditional import LabelGenerator
from lra.networks.generators import UpsamplingGenerator
from lra.options import Branch, Reuse
from lra.problem import Teacher
from lra.randomness import normal, sent, uniform
from lra.state import State, untouched
from lra.synthesis.sources.source import BETAS, LatentSource, Source, descend
from lra.synthesis.synthesizer import load_reused


class LastingSource(LatentSource):
    """Latents for each batch, and a generator that outlives it: the common part of such sources."""

    def generator_to_reuse(self) -> nn.Module | None:
        """The generator."""
        return self.generator

    @torch.no_grad()
    def imagine(self, labels: Tensor) -> Tensor:
        """Images of fresh latents; the labels only say how many."""
        device = next(self.generator.parameters()).device
        return self.generator.eval()(normal(len(labels), self.generator.latent, device=device))

    def state_dict(self) -> State:
        """The generator and the count."""
        return super().state_dict() | {"generator": self.generator.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])


class RenewedSource(LastingSource):
    """A generator of two latents, optimised together with the latents of each batch, for ``life`` batches (DLIG).

    Args:
        make: builds the generator, on the CPU.
        lr: Adam's learning rate for the generator and the latents; each batch has a new Adam.
        life: batches until the generator is rebuilt.
        device: where it runs.
    """

    generator: TwoLatentGenerator

    def __init__(
        self, make: Callable[[], TwoLatentGenerator], lr: float, life: int, device: torch.device | None = None
    ):
        super().__init__(make().to(device), lr)
        self.make, self.life = make, life

    def prepared(self) -> nn.Module:
        """The generator, a new one every ``life`` batches."""
        if self.batches > 1 and (self.batches - 1) % self.life == 0:
            new = self.make().state_dict()
            for name, value in self.generator.state_dict().items():
                value.copy_(sent(new[name], value.device))
        return self.generator

    def made(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Images, and the map that they are decoded from."""
        assert self._latents is not None
        fused = self.generator.fused(self._latents)
        return self.generator.decoded(fused), [fused]


class MetaSource(LastingSource):
    """A persistent generator, from which each batch starts (Fast-Datafree; Fang et al., AAAI 2022).

    With ``meta="none"`` a batch optimises the generator itself. Otherwise it optimises a copy G', and the generator G
    then learns to be a good start: ``"fomaml"`` uses the summed gradients of G' over the inner steps, ``"reptile"``
    67·(G - G'), each in one Adam step with ``lr`` times the number of inner steps.

    Args:
        generator: G.
        lr: inner learning rate of the generator.
        latent_lr: inner learning rate of the latents.
        steps: inner steps per batch.
        meta: how G learns.
        renew_first_at: re-initialise G's first layer before this batch (counted from 1); 0 for never.
        renew_scale: that first layer's BatchNorm scales are drawn from N(this, 0.02): 1, or 0 as released.
    """

    def __init__(
        self,
        generator: UpsamplingGenerator | FusedGenerator,
        lr: float,
        latent_lr: float,
        steps: int,
        meta: Literal["fomaml", "reptile", "none"] = "fomaml",
        renew_first_at: int = 0,
        renew_scale: float = 1.0,
    ):
        super().__init__(generator, lr, latent_lr)
        self.meta = meta
        self.renew_first_at, self.renew_scale = renew_first_at, renew_scale
        outer = [group | {"lr": group["lr"] * steps} for group in self.groups(generator)]
        self.outer = torch.optim.Adam(outer, betas=BETAS)
        self.fast: nn.Module = generator
        """G' while a batch is made."""

    def prepared(self) -> nn.Module:
        """A copy of G, or G itself."""
        if self.batches == self.renew_first_at:
            assert isinstance(self.generator, UpsamplingGenerator)
            nn.init.normal_(self.generator.linear.weight, 0.0, 0.02)
            nn.init.zeros_(self.generator.linear.bias)
            nn.init.normal_(self.generator.norm.weight, self.renew_scale, 0.02)
            nn.init.zeros_(self.generator.norm.bias)
        self.outer.zero_grad()
        self.fast = self.generator if self.meta == "none" else copy.deepcopy(self.generator)
        return self.fast

    def images(self) -> Tensor:
        """(n, C, H, W), of G'."""
        return self.fast(self._latents)

    def update(self, loss: Tensor) -> None:
        """An inner step; its gradient is added to G's."""
        assert self._optimiser is not None
        self._optimiser.zero_grad()
        loss.backward()
        if self.meta == "fomaml":
            self._collect(lambda slow, fast: torch.zeros_like(slow) if fast.grad is None else fast.grad)
        self._optimiser.step()

    def end(self) -> None:
        """The outer step."""
        if self.meta == "reptile":
            self._collect(lambda slow, fast: 67 * (slow - fast).detach())
        if self.meta != "none":
            self.outer.step()
        self.fast = self.generator

    def _collect(self, gradient: Callable[[Tensor, Tensor], Tensor]) -> None:
        for slow, fast in zip(self.generator.parameters(), self.fast.parameters(), strict=True):
            found = gradient(slow, fast).clone()
            slow.grad = found if slow.grad is None else slow.grad + found

    def state_dict(self) -> State:
        """G, the outer optimiser, the count."""
        return super().state_dict() | {"outer": self.outer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.outer.load_state_dict(state["outer"])


class NoisyLayerSource(Source):
    """NAYER's generator: label embeddings through noisy layers that are re-initialised for every batch (CVPR 2024).

    Args:
        generator: labels (n,) -> images (n, C, H, W).
        lr: Adam's learning rate.
        life: batches until the whole generator is re-initialised.
        warmup: batches at the start with a different ``life``.
        warmup_life: that value; the generator is re-initialised at the end of the warm-up, too.
    """

    def __init__(self, generator: LabelGenerator, lr: float, life: int, warmup: int = 0, warmup_life: int = 1):
        super().__init__()
        self.generator = generator
        self.lr, self.life = lr, life
        self.warmup, self.warmup_life = warmup, warmup_life
        self._labels: Tensor | None = None
        self._optimiser: torch.optim.Optimizer | None = None

    def begin(self, labels: Tensor) -> None:
        """New noisy layers, a new optimiser, and from time to time a new generator."""
        since = self.batches - self.warmup
        if self.batches and (self.batches % self.warmup_life if since < 0 else since % self.life) == 0:
            for module in self.generator.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d, nn.modules.batchnorm._BatchNorm)):
                    module.reset_parameters()
        self.batches += 1
        self.generator.train()
        self.generator.reset_noise()
        self._labels = labels
        self._optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.lr, betas=BETAS)

    def images(self) -> Tensor:
        """(n, C, H, W)."""
        assert self._labels is not None
        return self.generator(self._labels)

    def made(self) -> tuple[Tensor, Sequence[Tensor]]:
        """Images, and the maps that are coupled to a teacher's, if any."""
        assert self._labels is not None
        return self.generator.made(self._labels)

    def update(self, loss: Tensor) -> None:
        """An Adam step of the generator, noisy layers included."""
        descend(self._optimiser, loss)

    def generator_to_reuse(self) -> nn.Module | None:
        """The generator, as it was at the end of the last batch."""
        return self.generator

    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    @torch.no_grad()
    def imagine(self, labels: Tensor) -> Tensor:
        """Images of ``labels``, by the noisy layers of the last batch."""
        return self.generator.eval()(labels)

    def state_dict(self) -> State:
        """The generator and the count."""
        return super().state_dict() | {"generator": self.generator.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])


RATES: Mapping[Reuse, tuple[float, float, float]] = {
    "anew": (1.0, 1.0, 1.0),
    "common": (1.0, 1.0, 1.0),
    "finetune": (1.0, 0.1, 0.1),
    "fix": (1.0, 0.0, 0.0),
}
"""Learning rates of first generator, second generator and decoder, inner and outer, as multiples of the source's."""


class ReusableSource(MetaSource):
    """A persistent fused generator, as in Fast, whose second generator and decoder may be an earlier task's.

    Args:
        generator: first and second generator, and decoder.
        teacher: used to compare the two at the end of a task.
        lr: inner learning rate of the generator.
        latent_lr: inner learning rate of the latents.
        steps: inner steps per batch.
        reuse: what an earlier task provides: nothing; or second generator and decoder, to be trained at the same rate,
            ten times slower, or not at all.
        meta: see `MetaSource`.
        branch: which of the two generators a later task gets: the one whose decoded images move the teacher's
            features less (see `calmer`), or always the ``"first"``, as released.
        follow: update the BatchNorm statistics of the generator with its weights. Without this, as released, the saved
            ones are useless in evaluation mode.

    Raises:
        HeadNotFound: if the branch is chosen by the teacher's features and these cannot be located.
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
        """One group for each part that learns."""
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
        """Whether it still needs parts of an earlier task: in every mode except ``"anew"``, until it has them."""
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
        """The generator, with its two branches ordered so that the second is the one for a later task.

        Their order does not affect the images, which are decoded from the average.
        """
        first, second = self.generator.first, self.generator.second
        if self.branch == "first" or calmer(self.generator, self.teacher) == "first":
            first, second = second, first
        return FusedGenerator(first, second, self.generator.decoder)


def calmer(generator: FusedGenerator, teacher: Teacher, n: int = 256) -> Literal["first", "second"]:
    """The branch that, fused with noise and decoded, moves the teacher's penultimate features less.

    It compares Σ|features| of d((g(z) + u) / 2) with u ~ U(0, 1), z ~ N(0, I), without side effects. This is the rule
    of AEAHL-RG's paper, which its release contains but does not call.

    Args:
        generator: with the two branches.
        teacher: its queries here are not counted.
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
    """The generator with ``second`` a copy of ``first``, as released: they stay equal, at twice the cost of one."""
    return FusedGenerator(generator.first, copy.deepcopy(generator.first), generator.decoder)


def _parts(generator: FusedGenerator) -> tuple[nn.Module, nn.Module, nn.Module]:
    return generator.first, generator.second, generator.decoder
