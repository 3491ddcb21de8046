"""The state of a run between two experiences as plain data, so that another process can continue identically.

Avalanche's own checkpoint pickles the whole strategy; this keeps only states, which torch's restricted loader can read.
"""

from lra.state import State, Stateful, random_states, restore_random_states
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream

CLOCK = (
    "train_iterations",
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "total_iterations",
)
"""What Avalanche's clock counts."""


def capture(strategy: DataFreeDistillation, stream: SynthesisStream) -> State:
    """The state of a run between experiences: student, optimiser, objective, synthesizer, plugins, counters, RNGs.

    Plugins are included if they have a state; Avalanche's own have none.
    """
    return {
        "student": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "objective": strategy.objective.state_dict(),
        "clock": {name: getattr(strategy.clock, name) for name in CLOCK},
        "synthesizer": stream.synthesizer.state_dict(),
        "position": stream.position,
        "stopped": strategy.stopped,
        "queries": stream.teacher.queries,
        "plugins": {name: plugin.state_dict() for name, plugin in _stateful(strategy).items()},
        "random": random_states(),
    }


def restore(state: State, strategy: DataFreeDistillation, stream: SynthesisStream) -> None:
    """Bring a freshly built run to a state from `capture`.

    Raises:
        KeyError, RuntimeError, ValueError: if the state belongs to another run.
    """
    strategy.model.load_state_dict(state["student"])
    strategy.optimizer.load_state_dict(state["optimizer"])
    strategy.objective.load_state_dict(state["objective"])
    for name in CLOCK:
        setattr(strategy.clock, name, state["clock"][name])
    stream.synthesizer.load_state_dict(state["synthesizer"])
    stream.position = state["position"]
    strategy.stopped = state["stopped"]
    stream.ended = strategy.stopped is not None
    stream.teacher.queries = state["queries"]
    for name, plugin in _stateful(strategy).items():
        plugin.load_state_dict(state["plugins"][name])
    restore_random_states(state["random"])


def _stateful(strategy: DataFreeDistillation) -> dict[str, Stateful]:
    """The plugins that have a state, by place and class."""
    found = [plugin for plugin in strategy.plugins if isinstance(plugin, Stateful)]
    return {f"{index}-{type(plugin).__name__}": plugin for index, plugin in enumerate(found)}
