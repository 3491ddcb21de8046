"""The simplest synthesizer, a persistent generator trained a few steps per experience, and its two variants."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lra.networks.conditional import ClassGenerator
from lra.problem import Teacher
from lra.randomness import integers, normal
from lra.state import State, turn, untouched
from lra.synthesis.augmentation import Augmentation
from lra.synthesis.confidence import Filter
from lra.synthesis.synthesizer import Sampler, Synthesizer
from lra.synthesis.terms import Term, TermValue, total
from lra.view import View


class OnlineGenerator(Synthesizer):
    """A persistent generator with fresh latents, trained a few steps per experience (DAFL, DFQ, PRE-DFKD, …).

    Args:
        generator: latents (n, z) -> images (n, C, H, W).
        optimiser: of the generator's parameters.
        terms: what each step minimises.
        teacher: the oracle.
        latent: z.
        batch_size: images per generator step.
        steps: generator steps per experience.
        student_mode: the student's mode during synthesis; "train" uses batch statistics and lets its running ones
            absorb the batch, as PRE-DFKD's release does.
        clip: largest norm of the generator's gradient; unlimited if ``None``.
        sampling_mode: the generator's mode when it draws for the student: "train" normalises by the batch (and
            updates the running statistics), "eval" by running statistics.
        confident: filter that keeps the images the teacher is confident in, if any. The student then sees no others,
            and the generator's terms are computed on the confident images of its batch.
        show: augmentation of images before networks learn from them, in synthesis and for the student; the filter
            judges them unaugmented.
    """

    def __init__(
        self,
        generator: nn.Module,
        optimiser: torch.optim.Optimizer,
        terms: Sequence[Term],
        teacher: Teacher,
        latent: int,
        batch_size: int,
        steps: int = 1,
        student_mode: Literal["eval", "train"] = "eval",
        sampling_mode: Literal["eval", "train"] = "eval",
        clip: float | None = None,
        confident: Filter | None = None,
        show: Augmentation | None = None,
    ):
        super().__init__(terms)
        self.generator = generator
        self.optimiser = optimiser
        self.teacher = teacher
        self.latent = latent
        self.batch_size = batch_size
        self.steps = steps
        self.student_mode = student_mode
        self.sampling_mode = sampling_mode
        self.clip = clip
        self.confident = confident
        self._show = show

    divisible = True
    asked: Tensor | None = None
    """(n,): the target classes of the latest latents, if the generator is conditioned on classes."""

    def updates(self, index: int) -> int:
        """``steps``, for every experience."""
        return self.steps

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """``steps`` optimiser steps, each on fresh latents."""
        self.generator.train()
        values: dict[str, TermValue] = {}
        for _ in range(self.steps):
            images = self.generator(self.latents(self.batch_size))
            view = self._view(images, student)
            loss, values = total(self.terms, view)
            self.optimiser.zero_grad()
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.generator.parameters(), self.clip)
            self.optimiser.step()
            for term in self.terms:
                term.learn()
        for term in self.terms:
            term.settle()
        self.generator_steps += self.steps
        self.images_generated += self.steps * self.batch_size
        if self.confident is not None:
            share = torch.tensor(self.confident.share())
            values |= {"confident": TermValue(share, torch.zeros_like(share))}
        return values

    def _view(self, images: Tensor, student: nn.Module) -> View:
        """What the terms see: a batch, or its confident images together with the whole batch."""
        shown = self._shown(images)
        if self.confident is None:
            return View(shown, self.teacher, student, self.asked, student_mode=self.student_mode)
        kept = self.confident.mask(self.teacher.label(images)).to(images.device)
        # BatchNorm, and what compares samples, needs some.
        chosen = shown[kept] if len(kept) > 1 and kept.sum() > 1 else shown
        asked = self.asked if self.asked is None or len(chosen) == len(images) else self.asked[kept]
        return View(chosen, self.teacher, student, asked, student_mode=self.student_mode, plain=shown)

    def _shown(self, images: Tensor) -> Tensor:
        return images if self._show is None else self._show(images)

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """``n`` fresh images of the current generator; with a filter, the confident ones of more."""
        turn(self.generator, training=self.sampling_mode == "train")
        if self.confident is None:
            return self._shown(self._drawn(n))
        return self.confident(self._drawn, self.teacher.label, n, self._shown)

    def _drawn(self, n: int) -> Tensor:
        self.images_generated += n
        images: Tensor = self.generator(self.latents(n))
        return images

    def imagine(self, n: int) -> Tensor:
        """Images as from `draw`."""
        return self.draw(n)

    def peek(self, n: int) -> Tensor:
        """Fresh images, drawn as for the student, with all state restored."""
        before, counted = self.images_generated, None if self.confident is None else self.confident.state_dict()
        with untouched(self.generator), self.teacher.uncounted():
            images = self.draw(n)
        self.images_generated = before
        if self.confident is not None and counted is not None:
            self.confident.load_state_dict(counted)
        return images

    def latents(self, n: int) -> Tensor:
        """(n, z) standard normal."""
        return normal(n, self.latent, device=next(self.generator.parameters()).device)

    def latents_for(self, generator: nn.Module, n: int) -> Tensor:
        """(n, z): fresh latents, for a copy of the generator at other weights."""
        return OnlineGenerator.latents(self, n)

    def sampler(self) -> Sampler:
        """A sampler with fresh latents, in the mode that the student sees."""
        return Sampler(self.generator, self._drawn_by)

    @torch.no_grad()
    def _drawn_by(self, generator: nn.Module, n: int) -> Tensor:
        generator.train(self.sampling_mode == "train")
        # What train mode moves are copies.
        buffers = {name: buffer.clone() for name, buffer in generator.named_buffers()}
        return self._shown(functional_call(generator, buffers, (self.latents_for(generator, n),)))

    def generator_to_reuse(self) -> nn.Module:
        """The generator."""
        return self.generator

    def networks(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self.generator}

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The generator's optimiser."""
        return [self.optimiser]

    def state_dict(self) -> State:
        """Generator with buffers, optimiser, the state of terms, counters."""
        own = {"generator": self.generator.state_dict(), "optimiser": self.optimiser.state_dict()}
        filtered = {} if self.confident is None else {"confident": self.confident.state_dict()}
        return own | filtered | super().state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.confident is not None:
            self.confident.load_state_dict(state["confident"])


class ConditionedOnlineGenerator(OnlineGenerator):
    """`OnlineGenerator` with a `ClassGenerator`: each image has a target class drawn uniformly (GDFQ, CPSC).

    Args:
        arguments: of `OnlineGenerator`.
        warmup: experiences' worth of additional generator steps before the first experience opens.
        settings: of `OnlineGenerator`.
    """

    generator: ClassGenerator

    def __init__(self, *arguments: Any, warmup: int = 0, **settings: Any):
        super().__init__(*arguments, **settings)
        self.warmup = warmup

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """As `OnlineGenerator.step`; the first time after the warm-up."""
        for _ in range(0 if self.generator_steps else self.warmup):
            super().step(student)
        return super().step(student)

    def updates(self, index: int) -> int:
        """``steps``; for the first experience, including those of the warm-up."""
        return self.steps * (1 if index else 1 + self.warmup)

    def latents(self, n: int) -> Tensor:
        """(n, z), for new target classes, which become ``asked``."""
        noise = super().latents(n)
        self.asked = self._classes(noise)
        return self.generator.latents(noise, self.asked)

    def latents_for(self, generator: nn.Module, n: int) -> Tensor:
        """(n, z): fresh latents for newly drawn classes; the source's ``asked`` stays as it is."""
        noise = super().latents_for(generator, n)
        assert isinstance(generator, ClassGenerator)
        return generator.latents(noise, self._classes(noise))

    def _classes(self, noise: Tensor) -> Tensor:
        return integers(self.generator.classes, len(noise), device=noise.device)


class SharedLatents(OnlineGenerator):
    """An online generator whose latents are drawn once per experience, for its own steps and for the student's.

    The student sees images of the same latents, made by the generator after its steps (ZSKT as released). Draws beyond
    the batch size are fresh.
    """

    _shared: Tensor | None = None

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """As `OnlineGenerator.step`, with new latents for the experience."""
        self._shared = super().latents(self.batch_size)
        return super().step(student)

    def latents(self, n: int) -> Tensor:
        """(n, z): those of the experience."""
        if self._shared is None:
            return super().latents(n)
        more = [super().latents(n - self.batch_size)] if n > self.batch_size else []
        return torch.cat([self._shared[:n], *more])
