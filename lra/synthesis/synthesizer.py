"""The contract of everything that makes samples, and the plainest of them: an online generator."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lra.preservation import untouched
from lra.state import State
from lra.synthesis.keepsakes import Lasting
from lra.synthesis.terms import Term, TermValue, total
from lra.synthesis.view import View
from lra.teacher import Teacher


class FiniteBatch(NamedTuple):
    """The images of an experience that has only so many."""

    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor
    """(n,) int64: the classes they were asked to be."""


class Synthesizer(Lasting, ABC):
    """Owns a source of samples and how it is updated; one `step` opens one experience.

    Args:
        terms: what an update minimises.

    Attributes:
        generator_steps: updates of the source's parameters so far.
        images_generated: images made so far, for synthesis and for the student.
    """

    def __init__(self, terms: Sequence[Term] = ()) -> None:
        self.terms = list(terms)
        self.generator_steps = 0
        self.images_generated = 0

    @abstractmethod
    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """Update the source against teacher and current student; returns the last update's terms by name."""

    @abstractmethod
    def draw(self, n: int) -> Tensor:
        """``n`` images (n, C, H, W) in [0, 1] of the experience that is open, without a graph."""

    @abstractmethod
    def peek(self, n: int) -> Tensor:
        """Like `draw`, but leaves no trace: not in random states, nor buffers, nor counters."""

    def imagine(self, n: int) -> Tensor | None:
        """``n`` images (n, C, H, W) in [0, 1] of the generator that outlives experiences, see `keepsake`.

        In evaluation mode where that is how the student sees it, without a graph; ``None`` if there is no such one.
        """
        return None

    def batch(self) -> FiniteBatch | None:
        """All there is of the open experience, if it is a finite batch; ``None`` from a source without end."""
        return None

    def shown(self, images: Tensor) -> Tensor:
        """Float images in [0, 1] as the student is to see stored ones (n, C, H, W) uint8; augmented, maybe.

        A source that shows each image ``views`` times returns (views·n, C, H, W).
        """
        return images.float() / 255

    @property
    def views(self) -> int:
        """How often `shown` shows each image."""
        return 1

    def updates(self, index: int) -> int:
        """How many updates `step` makes to open the experience ``index``, from 0; for telling how long it takes."""
        return 1

    @abstractmethod
    def state_dict(self) -> State:
        """All that a resumed run needs to continue identically, but for the global random states."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""

    def counters(self) -> State:
        """The two counters, for `state_dict`."""
        return {"generator_steps": self.generator_steps, "images_generated": self.images_generated}

    def load_counters(self, state: State) -> None:
        """Take up `counters`."""
        self.generator_steps = state["generator_steps"]
        self.images_generated = state["images_generated"]


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
        student_mode: how the student answers during synthesis; "train" uses batch statistics and lets its
            running ones absorb the batch, as PRE-DFKD's release does.
        clip: largest norm of the generator's gradient, if any.
        sampling_mode: the generator's mode when it draws for the student: "train" normalises by the batch (and
            moves the running statistics), "eval" by running statistics.
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

    asked: Tensor | None = None
    """(n,): the classes that the latest latents ask for, if the generator is told any."""

    def updates(self, index: int) -> int:
        """As many for every one."""
        return self.steps

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """``steps`` optimiser steps, each on fresh latents."""
        self.generator.train()
        values: dict[str, TermValue] = {}
        for _ in range(self.steps):
            images = self.generator(self.latents(self.batch_size))
            view = View(images, self.teacher, student, self.asked, student_mode=self.student_mode)
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
        return values

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """``n`` fresh images of the current generator."""
        self.generator.train(self.sampling_mode == "train")
        self.images_generated += n
        return self.generator(self.latents(n))

    def imagine(self, n: int) -> Tensor:
        """As `draw`."""
        return self.draw(n)

    def peek(self, n: int) -> Tensor:
        """Fresh images, drawn as for the student, with everything put back."""
        before = self.counters()
        with untouched(self.generator):
            images = self.draw(n)
        self.load_counters(before)
        return images

    def latents(self, n: int) -> Tensor:
        """(n, z) standard normal, drawn on the CPU so that every device sees the same ones."""
        return torch.randn(n, self.latent).to(next(self.generator.parameters()).device)

    def keepsake(self) -> nn.Module:
        """The generator."""
        return self.generator

    def state_dict(self) -> State:
        """Generator with buffers, optimiser, what terms remember, counters."""
        return {
            "generator": self.generator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "terms": [term.state_dict() for term in self.terms],
            **self.counters(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.generator.load_state_dict(state["generator"])
        self.optimiser.load_state_dict(state["optimiser"])
        for term, saved in zip(self.terms, state["terms"], strict=True):
            term.load_state_dict(saved)
        self.load_counters(state)
