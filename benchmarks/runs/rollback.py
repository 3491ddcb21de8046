"""What to do about a divergence: go back to the last evaluation, and continue from there in a different way."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.files import read_checkpoint
from lra.benchmarks.runs.training import Training
from lra.meta.checks import MetaDiverged, MetaStepError
from lra.state import State, random_states, seed_everything
from lra.strategies.extensions import PluginFailed
from lra.synthesis.batches import Diverged

TIMES = 3
"""Maximum number of rollbacks in a run."""
RATE = 0.5
"""What a rollback multiplies the student's learning rate by."""

log = logging.getLogger("lra")


class RetreatingRun:
    """A distillation that is trained to its end; where it diverges it is rolled back, if allowed.

    Args:
        build: the run, to continue from what is saved.
    """

    def __init__(self, build: Callable[[], Training]):
        self.build = build
        self.work = build()

    def open(self, begin: Callable[[], None]) -> None:
        """Start the folder, or continue from what is saved there."""
        self.work.open(begin)

    def complete(self) -> None:
        """Train to the end.

        Raises:
            LraError: if it cannot be done.
            Interrupted: at a signal, once everything is saved.
        """
        try:
            while (cause := self._divergence()) is not None:
                self._retreat(cause)
                self.work = self.build()
                self.work.open(lambda: None)
        except MetaStepError as error:
            raise UsageError(f"--meta: {error}") from None
        except PluginFailed as error:
            log.debug("what the plugin raised", exc_info=error)
            raise LraError(str(error)) from None

    def _divergence(self) -> str | None:
        """Do the rest of the run; return which numbers are no longer finite if it fails for that reason."""
        try:
            self.work.complete()
        except (MetaDiverged, Diverged) as error:
            where = f" (student step {self.work.experiment.strategy.clock.train_iterations})"
            return f"diverged: {error}{'' if 'student step' in str(error) else where}"
        return None

    def _retreat(self, cause: str) -> None:
        """Save the state to go on from.

        Raises:
            LraError: if the run is to stop at a divergence, or has used up its rollbacks.
        """
        folder, config = self.work.folder, self.work.config
        if config.on_divergence == "stop" or not folder.retreat.exists():
            saved = folder.restore()
            good = "none yet" if saved is None else f"experience {saved['position']}, {folder.checkpoint}"
            raise LraError(
                f"{cause}; last good checkpoint: {good}; lower student.lr or synthesis.lr, or continue from there at a "
                f"lower rate with lra-bench resume {folder.resumed} --on-divergence rollback"
            )
        if len(self.work.rollbacks) == TIMES:
            raise LraError(f"{cause}, after {TIMES} rollbacks: lower student.lr or synthesis.lr")
        retreat = read_checkpoint(folder.retreat)
        note = {"cause": cause, "to_experience": retreat["position"], "student_lr_times": RATE, "random": "drawn anew"}
        log.warning("%s: back to experience %d, at %g times the learning rate", cause, retreat["position"], RATE)
        folder.save(rolled_back(retreat, [*self.work.rollbacks, note], config.seed))


def rolled_back(retreat: State, rollbacks: list[dict[str, Any]], seed: int) -> State:
    """The state to continue from: that of ``retreat`` with a lower learning rate and new random states.

    It depends on its arguments alone, so that a run killed at any moment ends like one that was not.

    Args:
        retreat: state at the last evaluation, or where the run was started.
        rollbacks: all rollbacks of the run, this one the last; the state knows those before its own time.
        seed: of the run.
    """
    factor = RATE ** (len(rollbacks) - len(retreat["rollbacks"]))
    state = retreat | {"rollbacks": rollbacks, "optimizer": slower(retreat["optimizer"], factor)}
    state["plugins"] = {
        name: part | {"scheduler": scheduler_slower(part["scheduler"], factor)} if "scheduler" in part else part
        for name, part in retreat["plugins"].items()
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
