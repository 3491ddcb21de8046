"""What to do about a divergence: go back to the last evaluation, and go on from there otherwise than before."""

from typing import Any

import numpy as np

from lra.state import State, random_states, seed_everything

TIMES = 3
"""Rollbacks in a run at most."""
RATE = 0.5
"""What a rollback multiplies the student's learning rate with."""


def rolled_back(retreat: State, rollbacks: list[dict[str, Any]], seed: int) -> State:
    """The state to go on with: that of ``retreat`` with a lower learning rate, and everything random drawn anew.

    It depends on its arguments alone, so that a run killed at any moment ends as one that was not.

    Args:
        retreat: state at the last evaluation, or where the run was started.
        rollbacks: all rollbacks of the run, this one the last; the state knows those before its own time.
        seed: of the run.
    """
    factor = RATE ** (len(rollbacks) - len(retreat["rollbacks"]))
    state = retreat | {"rollbacks": rollbacks, "optimizer": slower(retreat["optimizer"], factor)}
    state["parts"] = {
        name: part | {"scheduler": scheduler_slower(part["scheduler"], factor)} if "scheduler" in part else part
        for name, part in retreat["parts"].items()
    }
    seed_everything(int(np.random.SeedSequence([seed, len(rollbacks)]).generate_state(1)[0]))
    state["random"] = random_states()
    return state


def slower(optimizer: State, factor: float) -> State:
    """An optimiser's state with its learning rates, present and initial, multiplied."""
    rates = ("lr", "initial_lr")
    groups = [
        {name: value * factor if name in rates else value for name, value in group.items()}
        for group in optimizer["param_groups"]
    ]
    return optimizer | {"param_groups": groups}


def scheduler_slower(scheduler: State, factor: float) -> State:
    """A torch scheduler's state with the learning rates it counts from multiplied."""
    rates = ("base_lrs", "_last_lr")
    return {name: [rate * factor for rate in value] if name in rates else value for name, value in scheduler.items()}
