"""A run between two experiences as plain data, so that another process can go on identically.

Avalanche's own checkpoint pickles the strategy whole; this keeps states only, which torch's restricted loader
reads back.
"""

from collections.abc import Mapping
from typing import Protocol

from lra.state import State, random_states, restore_random_states
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream


class Stateful(Protocol):
    """Anything with a state to carry over."""

    def state_dict(self) -> State:
        """The state."""

    def load_state_dict(self, state: State) -> object:
        """Take it up."""


def capture(strategy: DataFreeDistillation, stream: SynthesisStream, parts: Mapping[str, Stateful]) -> State:
    """The state of a run at rest: student, optimiser, source, ``parts`` by name, counters, random states."""
    return {
        "student": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "clock": {name: value for name, value in vars(strategy.clock).items() if isinstance(value, int)},
        "synthesizer": stream.synthesizer.state_dict(),
        "position": stream.position,
        "stopped": strategy.stopped,
        "queries": stream.teacher.queries,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "random": random_states(),
    }


def restore(
    state: State, strategy: DataFreeDistillation, stream: SynthesisStream, parts: Mapping[str, Stateful]
) -> None:
    """Bring a freshly built run to a state of `capture`.

    Raises:
        KeyError, RuntimeError, ValueError: if the state is of another run.
    """
    strategy.model.load_state_dict(state["student"])
    strategy.optimizer.load_state_dict(state["optimizer"])
    for name, value in state["clock"].items():
        setattr(strategy.clock, name, value)
    stream.synthesizer.load_state_dict(state["synthesizer"])
    stream.position = state["position"]
    strategy.stopped = state.get("stopped")
    stream.ended = strategy.stopped is not None
    stream.teacher.queries = state["queries"]
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    restore_random_states(state["random"])
