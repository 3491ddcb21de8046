"""Replay from the image pool: what pool methods have always done, with new and old images told apart."""

from typing import Literal

from lra.problem import Batch
from lra.state import State
from lra.strategies.replay import Replay
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.pool import ImagePool, to_bytes
from lra.synthesis.synthesizer import Synthesizer
from lra.teacher import Teacher


class PoolReplay(Replay):
    """Replays images of earlier experiences, kept as bytes, augmented afresh and labelled anew each time.

    An experience enters the pool when it closes: all of its images where it is a finite batch, else the new samples
    of the last student step. Replayed images take the place of new ones, so that a step costs the same.

    Args:
        pool: what is kept.
        teacher: labels what is replayed, because stored answers would not fit augmented images.
        batch_size: images per student step, new and old.
        share: of old images in a step. ``"uniform"``: what their number is among all images ever made, so that the
            batch is a uniform draw of the pool, as every release does; a fraction: that; ``"beside"``: ``size`` old
            images beside a whole batch of new ones.
        size: for ``"beside"``.
        least: new images per step at least.
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
        self.completed = 0
        self._source: Synthesizer | None = None

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Settle how many old images a step of this experience has."""
        if strategy.synthesis is None:
            return
        self._source = strategy.synthesis.origin_stream.synthesizer
        if self.share == "beside":
            return
        self.size = self._displaced(self._source)
        strategy.displaced = self.size

    def _displaced(self, source: Synthesizer) -> int:
        if not len(self.pool):
            return 0
        new = source.batch()
        fresh = self.batch_size if new is None else len(new.images)
        share = self.pool.seen / (self.pool.seen + fresh) if self.share == "uniform" else float(self.share)
        return max(0, min(round(self.batch_size * share), self.batch_size - self.least))

    def recall(self) -> Batch | None:
        """``size`` old images, as their source would show them; none before the second experience."""
        if self._source is None or not len(self.pool) or not self.size:
            return None
        stored = self.pool.sample(-(-self.size // self._source.views)).images
        images = self._source.shown(stored)[: self.size]
        return Batch(images, self.teacher.label(images))

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """The experience enters the pool."""
        new = None if self._source is None else self._source.batch()
        if new is not None:
            self.pool.add(new.images, new.labels, self.completed)
        elif strategy.acquired is not None:
            images, logits = strategy.acquired
            self.pool.add(to_bytes(images), logits.argmax(dim=1), self.completed)
        self.completed += 1

    def state_dict(self) -> State:
        """The pool and the number of experiences seen."""
        return {"pool": self.pool.state_dict(), "completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.pool.load_state_dict(state["pool"])
        self.completed = state["completed"]
