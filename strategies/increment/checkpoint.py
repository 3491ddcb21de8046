"""A strategy between two experiences as plain data, so that another process can go on identically."""

from collections.abc import Iterable

from avalanche.benchmarks import CLExperience
from avalanche.models.utils import avalanche_model_adaptation
from avalanche.training.plugins import LRSchedulerPlugin, LwFPlugin
from avalanche.training.supervised import Cumulative
from avalanche.training.templates import SupervisedTemplate

from lra.state import State, random_states, restore_random_states
from lra.strategies.increment.datafree import DataFreeReplayPlugin


def capture(strategy: SupervisedTemplate) -> State:
    """The state of one of the strategies in `RESUMABLE`, when an experience is over and tested."""
    parts = [_state(plugin) for plugin in strategy.plugins]
    return {
        "model": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "clock": {name: value for name, value in vars(strategy.clock).items() if isinstance(value, int)},
        "plugins": {str(index): part for index, part in enumerate(parts) if part is not None},
        "random": random_states(),
    }


def restore(state: State, strategy: SupervisedTemplate, experiences: Iterable[CLExperience]) -> None:
    """Bring a freshly built strategy to a state of `capture`, made after ``experiences``.

    Raises:
        KeyError, RuntimeError, ValueError: if the state is of another run.
    """
    experiences = list(experiences)
    strategy.make_optimizer(reset_optimizer_state=True)
    for experience in experiences:  # the head grows, and the optimiser has it
        avalanche_model_adaptation(strategy.model, experience)
        strategy.model.to(strategy.device)
        strategy.make_optimizer()
    strategy.model.load_state_dict(state["model"])
    strategy.optimizer.load_state_dict(state["optimizer"])
    for name, value in state["clock"].items():
        setattr(strategy.clock, name, value)
    for index, plugin in enumerate(strategy.plugins):
        if isinstance(plugin, LwFPlugin):
            for experience in experiences:
                plugin.lwf.post_adapt(strategy, experience)  # what it keeps is the model as it now is
        elif isinstance(plugin, LRSchedulerPlugin):
            plugin.scheduler.load_state_dict(state["plugins"][str(index)])
        elif isinstance(plugin, DataFreeReplayPlugin):
            plugin.load_state_dict(state["plugins"][str(index)])
    if isinstance(strategy, Cumulative):
        for experience in experiences:
            strategy.experience = experience
            strategy.train_dataset_adaptation()
    restore_random_states(state["random"])


def _state(plugin: object) -> State | None:
    if isinstance(plugin, LRSchedulerPlugin):
        return {name: value for name, value in plugin.scheduler.state_dict().items() if not callable(value)}
    return plugin.state_dict() if isinstance(plugin, DataFreeReplayPlugin) else None
