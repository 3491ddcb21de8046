"""What changes as training goes on: clocks that move a value, schedules of a learning rate, a bound, first ranges.

How far a run is says Avalanche's own clock, ``strategy.clock``, which a checkpoint carries. It is the last of all
plugins: while others are told of the end of a step or of an experience, it has not counted that one yet.
"""

from abc import abstractmethod
from collections.abc import Callable

from avalanche.core import SupervisedPlugin
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from lra.quantization.network import calibrate
from lra.state import State
from lra.strategies.strategy import DataFreeDistillation


class Clock(SupervisedPlugin):
    """Tells ``assign`` a count: 0 at once, and each next one as it is reached; a resumed run's where it goes on.

    Args:
        assign: puts the value that belongs to a count in its place.
    """

    def __init__(self, assign: Callable[[int], None]):
        super().__init__()
        self.assign = assign
        self.count = 0
        assign(0)

    @abstractmethod
    def counted(self, strategy: DataFreeDistillation, more: int) -> int:
        """The count, if ``more`` steps or experiences than the strategy's clock has counted are over."""

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Take up the count of a strategy that has been trained before."""
        self._tell(self.counted(strategy, 0))

    def _tell(self, count: int) -> None:
        if count != self.count:
            self.count = count
            self.assign(count)


class StepClock(Clock):
    """Counts student steps."""

    def counted(self, strategy: DataFreeDistillation, more: int) -> int:
        """Steps."""
        return strategy.clock.train_iterations + more

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Another step is over."""
        self._tell(self.counted(strategy, 1))


class EpochClock(Clock):
    """Counts completed epochs.

    Args:
        assign: see `Clock`.
        experiences: experiences per epoch.
    """

    def __init__(self, assign: Callable[[int], None], experiences: int):
        super().__init__(assign)
        self.experiences = experiences

    def counted(self, strategy: DataFreeDistillation, more: int) -> int:
        """Whole epochs."""
        return (strategy.clock.train_exp_counter + more) // self.experiences

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Another experience is over, and with some an epoch."""
        self._tell(self.counted(strategy, 1))


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

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Step, at the end of an epoch."""
        if (strategy.clock.train_exp_counter + 1) % self.experiences == 0:
            self.scheduler.step()

    def state_dict(self) -> State:
        """The scheduler's state."""
        return {"scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.scheduler.load_state_dict(state["scheduler"])


class Calibration(SupervisedPlugin):
    """Lets a batch of each of the first experiences move the ranges of the student's inputs, the very first anew.

    What it has done is in the student's buffers, so that there is nothing else to be saved.

    Args:
        experiences: how many; 0 keeps the ranges that the student came with.
        images: of each.
    """

    def __init__(self, experiences: int, images: int):
        super().__init__()
        self.experiences, self.images = experiences, images

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Observe the student on images of the experience that opens."""
        experience = strategy.synthesis
        if experience is not None and experience.current_experience < self.experiences:
            images = experience.draw(self.images).images
            calibrate(strategy.model, [images], anew=experience.current_experience == 0)
