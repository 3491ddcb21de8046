"""Synthesis of one finite batch per experience: optimised against the teacher, kept as bytes, shown augmented."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lra.images import to_bytes
from lra.options import BatchOptions
from lra.problem import Teacher, single
from lra.randomness import permutation, sent
from lra.state import State, untouched
from lra.synthesis.augmentation import Augmentation, Mixing, views
from lra.synthesis.labels import LabelPlan
from lra.synthesis.sources import Source
from lra.synthesis.synthesizer import FiniteBatch, Synthesizer
from lra.synthesis.terms import Term, TermValue, total
from lra.view import View


class Diverged(ValueError):
    """Training, or the synthesis of a batch, has diverged."""


class BatchSynthesizer(Synthesizer):
    """Optimises one batch (or a few) per experience; the experience consists of these, freshly augmented at each draw.

    For each batch: labels y; a source begins; for every step x = source, loss of the augmented x, source updated;
    the best x is kept as bytes. The student is in evaluation mode and unchanged.

    Args:
        source: pixels, or a generator with latents.
        terms: what each step minimises.
        teacher: the oracle.
        labels: the target classes.
        options: sizes, schedule, what to keep.
        augment: augmentation between the source and the networks in synthesis.
        views: augmented views of each image that the student gets.
        show: augmentation of each view; by default shift and flip.
        mix: applied to the augmented images and their labels before the networks see them; none by default.
    """

    def __init__(
        self,
        source: Source,
        terms: Sequence[Term],
        teacher: Teacher,
        labels: LabelPlan,
        options: BatchOptions,
        augment: Augmentation | None = None,
        views: int = 1,
        show: Augmentation | None = None,
        mix: Mixing | None = None,
    ):
        super().__init__(terms)
        self.source = source
        self.teacher = teacher
        self.labels = labels
        self.options = options
        self.augment = augment or options.crop_and_flip()
        self._show = show or options.crop_and_flip()
        self._mix = mix or (lambda images, labels: (images, labels))
        self._views = views
        self._open: FiniteBatch | None = None
        self.losses: list[float] = []
        """The loss of each inner step of the latest experience."""

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """Make the batches of the next experience; the first also includes those of the warm-up.

        Raises:
            Diverged: if no iterate's loss was finite.
        """
        made: list[FiniteBatch] = []
        self.losses = []
        values: dict[str, TermValue] = {}
        for _ in range(self.options.warmup if self._open is None else 0):
            made.append(self._make(None)[0])
        for _ in range(self.options.rounds):
            batch, values = self._make(student)
            made.append(batch)
        self._open = FiniteBatch(torch.cat([b.images for b in made]), torch.cat([b.labels for b in made]))
        return values

    def updates(self, index: int) -> int:
        """The steps on all batches of an experience; the first includes those of the warm-up."""
        return (self.options.rounds + (0 if index else self.options.warmup)) * self.options.steps

    def _make(self, student: nn.Module | None) -> tuple[FiniteBatch, dict[str, TermValue]]:
        o, device = self.options, next(self.teacher.parameters()).device
        labels = sent(self.labels(o.images), device)
        # Without a student there is nobody to compete with.
        terms = [t for t in self.terms if student is not None or not t.competitive]
        self.source.begin(labels)
        kept, best, losses = torch.empty(0), torch.full((), torch.inf, device=device), []
        values: dict[str, TermValue] = {}
        for _ in range(o.steps):
            images, maps = self.source.made()
            images = single(images)
            seen, wanted = self._mix(self.augment(images), labels)
            view = View(seen, self.teacher, student, wanted, plain=images, generator_maps=maps)
            loss, values = total(terms, view)
            losses.append(loss.detach())
            # No number is looked at before the last step is under way: a GPU would be waited for.
            better = loss.detach() < best
            best = torch.where(better, loss.detach(), best)
            if o.keep == "best":
                kept = torch.where(better, images.detach(), kept) if len(losses) > 1 else images.detach().clone()
                for term in terms:
                    term.keep(better)
            self.source.update(loss)
            for term in terms:
                term.learn()
        reached = torch.stack(losses).tolist()
        self.losses += reached
        if not any(loss < torch.inf for loss in reached):
            raise Diverged("synthesis diverged, its loss was never finite: lower synthesis.lr")
        if o.keep == "last":
            for term in terms:
                term.keep()
            with torch.no_grad():
                kept = single(self.source.images()).detach().clone()
        self.source.end()
        for term in terms:
            term.settle()
        self.generator_steps += o.steps
        self.images_generated += o.steps * o.images
        hard = labels if labels.dim() == 1 else labels.argmax(dim=1)
        return FiniteBatch(to_bytes(kept, o.rounding), hard), values

    def batch(self) -> FiniteBatch | None:
        """The open experience's images."""
        return self._open

    @property
    def views(self) -> int:
        """Augmented views of each image."""
        return self._views

    def shown(self, images: Tensor) -> Tensor:
        """Augmented views of stored images, one set of views after another."""
        return views(super().shown(images), self._show, self._views)

    def draw(self, n: int) -> Tensor:
        """``n`` augmented images of the open experience: without repetition as far as it has that many.

        With two views the second half shows the images of the first half again.

        Raises:
            ValueError: before the first `step`.
        """
        if self._open is None:
            raise ValueError("no experience is open: step() first")
        held, need = len(self._open.images), -(-n // self._views)
        device = self._open.images.device
        where = torch.cat([permutation(held, device) for _ in range(-(-need // held))])[:need]
        return self.shown(self._open.images[where])[:n]

    def peek(self, n: int) -> Tensor:
        """Draw without side effects: random states are restored."""
        with untouched():
            return self.draw(n)

    def imagine(self, n: int) -> Tensor | None:
        """Images from the source's `Source.imagine`, a batch at a time; ``None`` if it has none."""
        found: list[Tensor] = []
        for start in range(0, n, self.options.images):
            device = next(self.teacher.parameters()).device
            images = self.source.imagine(sent(self.labels(min(self.options.images, n - start)), device))
            if images is None:
                return None
            found.append(images)
        return torch.cat(found)

    def generator_to_reuse(self) -> nn.Module | None:
        """The source's generator for a later task, if it has one."""
        return self.source.generator_to_reuse()

    def networks(self) -> dict[str, nn.Module]:
        """The source's networks."""
        return self.source.networks()

    @property
    def awaits_generator(self) -> bool:
        """Whether the source waits for an earlier task's generator."""
        return self.source.awaits_generator

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of an earlier task's generator; raises ``ValueError`` as the source does."""
        self.source.begin_with(weights)

    def state_dict(self) -> State:
        """Source, terms, the open experience, counters."""
        own = {"source": self.source.state_dict(), "open": None if self._open is None else list(self._open)}
        return own | super().state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.source.load_state_dict(state["source"])
        self._open = None if state["open"] is None else FiniteBatch(*state["open"])
