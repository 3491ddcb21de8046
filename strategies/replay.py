"""Replay plugins: of stored samples, from a memory generator, from an averaged generator, and from the image pool.

Replayed samples join the minibatch (plain replay: one forward pass, one loss over both) unless the LRA step keeps them
apart; the strategy decides that, see `lra.strategies.strategy`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lra.average import Average
from lra.distances import kl
from lra.images import to_bytes, unit
from lra.memory.buffers import Buffer, ImagePool
from lra.memory.generator import MemoryGenerator
from lra.memory.priorities import Priorities
from lra.problem import Batch, Teacher
from lra.state import State, untouched
from lra.strategies.strategy import DataFreeDistillation, Replay
from lra.synthesis.batches import Diverged
from lra.synthesis.synthesizer import Synthesizer


class BufferReplay(Replay):
    """Replays stored images with the teacher's stored logits: memory bank, reservoir, or any other `Buffer`.

    At the end of certain experiences, the new samples of the last student step are offered to the buffer. The
    memory bank of MB-DFKD (Binici et al., WACV 2022) is a `Ring` filled at the end of every fifth epoch.

    Args:
        buffer: stores the samples.
        size: images replayed per step.
        first: experiences before the first offer (1: at the end of the very first).
        period: experiences from one offer to the next.
        instead: whether stored images take the place of as many new ones, once there are any, rather than join them.
    """

    def __init__(self, buffer: Buffer, size: int, first: int = 1, period: int = 1, instead: bool = False):
        super().__init__(size)
        self.buffer = buffer
        self.first = first
        self.period = period
        self.most_displaced = size if instead else 0

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Make room for the stored images, if they replace new ones."""
        self.displaced = self.most_displaced if len(self.buffer) else 0

    def recall(self) -> Batch | None:
        """``size`` stored samples; none before the first offer."""
        return self.buffer.sample(self.size) if len(self.buffer) else None

    def shown(self, count: int) -> Tensor | None:
        """Stored images, evenly spaced from the first place to the last."""
        return self.buffer.read(_evenly(len(self.buffer), count)).images if len(self.buffer) else None

    def classes(self) -> Tensor | None:
        """The classes of the images in the buffer."""
        return self.buffer.classes()

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Tell priorities what the student made of what it saw again."""
        _prioritise(self, self.buffer.priorities, strategy)

    def remember(self, strategy: DataFreeDistillation) -> None:
        """Offer the last step's new samples to the buffer, if it is time."""
        _check(self.buffer.priorities)
        due = self.completed >= self.first and (self.completed - self.first) % self.period == 0
        if due and strategy.acquired is not None:
            self.buffer.add(strategy.acquired)

    def state_dict(self) -> State:
        """The buffer and the number of experiences."""
        return super().state_dict() | {"buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.buffer.load_state_dict(state["buffer"])

    def begin_with(self, state: State, teacher: Teacher) -> None:
        """Take over the stored images, with the new teacher's logits."""
        self.load_state_dict(state)
        self.buffer.relabel(teacher.label)


class GenerativeReplay(Replay):
    """Replays samples of a memory generator that learns along with the student (PRE-DFKD, AAAI 2022).

    Args:
        memory: the memory generator.
        size: images replayed per step, and per update of the memory.
        updates: student steps at the start of each experience in which the memory learns (published: 4 of 10).
        warmup: experiences before the first replay; 0, as published, replays from an untrained memory at first.
    """

    def __init__(self, memory: MemoryGenerator, size: int, updates: int = 4, warmup: int = 1):
        super().__init__(size)
        self.memory = memory
        self.updates = updates
        self.warmup = warmup

    def networks(self) -> dict[str, nn.Module]:
        """The memory's networks."""
        return self.memory.networks()

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """The memory's optimisers."""
        return self.memory.optimisers()

    def recall(self) -> Batch | None:
        """``size`` remembered samples, after the warm-up."""
        return self.memory.sample(self.size) if self.completed >= self.warmup else None

    def shown(self, count: int) -> Tensor | None:
        """What the memory would replay."""
        if self.completed < self.warmup:
            return None
        with untouched(*self.networks().values()), self.memory.teacher.uncounted(), torch.enable_grad():
            return self.memory.sample(count).images

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Teach the memory half of the new samples, rehearsing its own beside them after the first experience."""
        if strategy.clock.train_exp_iterations < self.updates and strategy.acquired is not None:
            half = strategy.acquired.first(max(1, len(strategy.acquired.images) // 2))
            self.memory.update(half, self.size if self.completed else 0)

    def remember(self, strategy: DataFreeDistillation) -> None:
        """Do nothing more: the memory has learnt during the student steps."""

    def state_dict(self) -> State:
        """The memory and the number of experiences."""
        return super().state_dict() | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])


class EMAReplay(Replay):
    """Replays images from the exponential moving average of the generator itself (MAD; Do et al., NeurIPS 2022).

    No image is stored, and nothing else is trained; the teacher labels every image anew. The average is updated with
    the generator at the end of each experience, so that with α = 0 it is the generator of the previous experience. (MAD
    updates it before the student's steps, one experience earlier. MAD's weights for new and replayed samples are not
    public: here each is weighted by its share of the images.)

    Args:
        source: whose generator it averages.
        teacher: labels what is replayed.
        size: images replayed per step.
        decay: α in [0, 1]; the average has a half-life of ln ½ / ln α experiences.
        warmup: experiences before the first replay.

    Raises:
        ValueError: if the source has no persistent generator, or the decay is out of range.
    """

    def __init__(self, source: Synthesizer, teacher: Teacher, size: int, decay: float = 0.95, warmup: int = 1):
        super().__init__(size)
        sampler = source.sampler()
        if sampler is None:
            raise ValueError(
                "replay ema averages a persistent generator, and this method has none, or one that is re-initialised: "
                "choose another replay, or a method with an online generator, such as predfkd"
            )
        self.sampler = sampler
        self.teacher = teacher
        self.warmup = warmup
        self.average = Average(sampler.generator, decay)

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Start from the generator of the very first experience, unless an earlier task has left an average."""
        if not self.completed:
            self.average.restart()

    def recall(self) -> Batch | None:
        """``size`` images of the average, after the warm-up."""
        if self.completed < self.warmup:
            return None
        images = self.sampler.draw(self.average.network, self.size)
        return Batch(images, self.teacher.label(images))

    def shown(self, count: int) -> Tensor | None:
        """Images made by the average."""
        if self.completed < self.warmup:
            return None
        with untouched(self.average.network), self.teacher.uncounted():
            return self.sampler.draw(self.average.network, count)

    def remember(self, strategy: DataFreeDistillation) -> None:
        """Update the average with the generator."""
        self.average.update()

    def state_dict(self) -> State:
        """The average, and the number of experiences."""
        return super().state_dict() | {"average": self.average.network.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.average.network.load_state_dict(state["average"])


class PoolReplay(Replay):
    """Replays images of earlier experiences, stored as bytes, augmented and labelled anew each time.

    An experience enters the pool when it closes: all of its images if it is a finite batch, otherwise the new samples
    of the last student step. Replayed images take the place of new ones, so that a step costs the same.

    Args:
        pool: stores the images.
        teacher: labels what is replayed, because stored logits would not fit augmented images.
        batch_size: images per student step, new and old.
        share: fraction of old images in a step. ``"uniform"``: their fraction of all images ever made, so that the
            batch is a uniform draw from the pool, as in every release; a number: that fraction; ``"beside"``: ``size``
            old images in addition to a whole batch of new ones.
        size: old images per step, for ``"beside"``.
        least: minimum number of new images per step.
    """

    def __init__(
        self,
        pool: ImagePool,
        teacher: Teacher,
        batch_size: int,
        share: float | Literal["uniform", "beside"] = "uniform",
        size: int = 0,
        least: int = 1,
    ):
        super().__init__(size)
        self.pool = pool
        self.teacher = teacher
        self.batch_size = batch_size
        self.share = share
        self.least = least
        self.most_displaced = 0 if share == "beside" else batch_size - least
        self._source: Synthesizer | None = None

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Determine how many old images each step of this experience has."""
        if strategy.synthesis is None:
            return
        self._source = strategy.synthesis.origin_stream.synthesizer
        if self.share == "beside":
            return
        self.size = self.displaced = self._displaced(self._source)

    def _displaced(self, source: Synthesizer) -> int:
        if not len(self.pool):
            return 0
        new = source.batch()
        fresh = self.batch_size if new is None else len(new.images)
        share = self.pool.seen / (self.pool.seen + fresh) if self.share == "uniform" else float(self.share)
        return max(0, min(round(self.batch_size * share), self.batch_size - self.least))

    def recall(self) -> Batch | None:
        """``size`` old images, augmented as their source would show them; none before the second experience."""
        if self._source is None or not len(self.pool) or not self.size:
            return None
        views = self._source.views
        stored, weights = self.pool.draw(-(-self.size // views))
        images = self._source.shown(stored.images)[: self.size]
        weights = None if weights is None else weights.repeat(views)[: self.size]
        return Batch(images, self.teacher.label(images), weights=weights)

    def classes(self) -> Tensor | None:
        """The classes of the images in the pool."""
        return self.pool.classes()

    def shown(self, count: int) -> Tensor | None:
        """Stored images without augmentation, evenly spaced from the first place to the last."""
        held = self.pool.contents()
        if held is None:
            return None
        return unit(held.images[_evenly(len(held.images), count).to(held.images.device)])

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Tell priorities what the student made of what it saw again."""
        _prioritise(self, self.pool.priorities, strategy)

    def remember(self, strategy: DataFreeDistillation) -> None:
        """Add the experience to the pool."""
        _check(self.pool.priorities)
        birth = self.completed - 1
        new = None if self._source is None else self._source.batch()
        if new is not None:
            asked = self.pool.usefulness is not None
            self.pool.add(new.images, new.labels, birth, self.teacher.label(unit(new.images)) if asked else None)
        elif (seen := strategy.acquired) is not None:
            self.pool.add(to_bytes(seen.images), seen.classes, birth, seen.logits)

    def state_dict(self) -> State:
        """The pool and the number of experiences."""
        return super().state_dict() | {"pool": self.pool.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.pool.load_state_dict(state["pool"])

    def begin_with(self, state: State, teacher: Teacher) -> None:
        """Take over the stored images, all with equal priority; the new teacher labels them when they are drawn."""
        self.load_state_dict(state)
        if self.pool.priorities is not None:
            self.pool.priorities.reset()
        if self.pool.usefulness is not None and (held := self.pool.contents()) is not None:
            judged = [teacher.label(unit(images)) for images in held.images.split(self.batch_size)]
            self.pool.usefulness.judge(torch.cat(judged))


def _evenly(held: int, count: int) -> Tensor:
    """At most ``count`` of ``held`` places, evenly spaced from the first to the last."""
    return torch.linspace(0, held - 1, min(held, count)).round().long()


def _prioritise(replay: Replay, priorities: Priorities | None, strategy: DataFreeDistillation) -> None:
    """Update the priorities with the KL, at temperature 1, between student and teacher on what was replayed."""
    if priorities is not None and strategy.answered is not None and strategy.replayed is not None:
        distances = kl(strategy.answered, strategy.replayed.logits)
        priorities.learn(strategy.brought_by(replay, distances))


def _check(priorities: Priorities | None) -> None:
    if priorities is not None:
        try:
            priorities.check()
        except ValueError as error:
            raise Diverged(str(error)) from None
