"""Learning-rate schedules over epochs of experiences."""

from avalanche.core import SupervisedPlugin
from torch.optim.lr_scheduler import LRScheduler

from lra.state import State
from lra.strategies.strategy import DataFreeDistillation


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
