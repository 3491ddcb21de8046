"""Clocks: what a method changes as time goes by, each a small plugin that a checkpoint carries."""

from collections.abc import Callable

from avalanche.core import SupervisedPlugin
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from lra.state import State
from lra.strategies.strategy import DataFreeDistillation


class Clock(SupervisedPlugin):
    """Tells ``assign`` a count: 0 at once, and each next one as it is reached.

    Args:
        assign: puts the value that belongs to a count in its place.
    """

    def __init__(self, assign: Callable[[int], None]):
        super().__init__()
        self.assign = assign
        self.count = 0
        assign(0)

    def tick(self) -> None:
        """One more."""
        self.count += 1
        self.assign(self.count)

    def state_dict(self) -> State:
        """The count."""
        return {"count": self.count}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`, and assign what belongs to it."""
        self.count = state["count"]
        self.assign(self.count)


class StepClock(Clock):
    """Counts student steps."""

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Another step is over."""
        self.tick()


class EpochClock(Clock):
    """Counts completed epochs.

    Args:
        assign: see `Clock`.
        experiences: experiences per epoch.
    """

    def __init__(self, assign: Callable[[int], None], experiences: int):
        super().__init__(assign)
        self.experiences = experiences
        self.completed = 0

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Another experience is over, and with some an epoch."""
        self.completed += 1
        if self.completed % self.experiences == 0:
            self.tick()

    def state_dict(self) -> State:
        """The count and the place in the epoch."""
        return super().state_dict() | {"completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.completed = state["completed"]


class ClipGradient(SupervisedPlugin):
    """Bounds the norm of the student's gradient before each of its updates.

    Args:
        norm: the bound.
    """

    def __init__(self, norm: float):
        super().__init__()
        self.norm = norm

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Scale the gradient down, if it is longer."""
        nn.utils.clip_grad_norm_(strategy.model.parameters(), self.norm)


class ScheduleByEpoch(SupervisedPlugin):
    """Steps a torch scheduler once every so many experiences; Avalanche's own resets the rate at each one.

    Args:
        scheduler: any torch scheduler that steps without arguments.
        experiences: experiences per epoch.
    """

    def __init__(self, scheduler: LRScheduler, experiences: int):
        super().__init__()
        self.scheduler = scheduler
        self.experiences = experiences
        self.completed = 0

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Step, at the end of an epoch."""
        self.completed += 1
        if self.completed % self.experiences == 0:
            self.scheduler.step()

    def state_dict(self) -> State:
        """The scheduler's state and the place in the epoch."""
        return {"scheduler": self.scheduler.state_dict(), "completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.scheduler.load_state_dict(state["scheduler"])
        self.completed = state["completed"]
