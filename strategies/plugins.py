"""Plugins used by methods and runs, and what some of them measure.

Clocks and schedules, a census of stored images, gradient clipping, calibration, and AEAHL-RG's attack. The guard
against divergence is in `lra.strategies.divergence`.

Progress is counted by Avalanche's own clock, ``strategy.clock``, which a checkpoint saves. It is the last of all
plugins: when others are told of the end of a step or experience, it has not yet counted that one.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from lra.distillation.attack import Attacker
from lra.problem import Batch
from lra.quantization.network import calibrate
from lra.state import State
from lra.strategies.evaluation import Measure
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.batches import BatchSynthesizer


class Clock(SupervisedPlugin):
    """Calls ``assign`` with a count: 0 at once, then each one as it is reached; in a resumed run, the current one.

    Args:
        assign: sets the value that belongs to a count.
    """

    def __init__(self, assign: Callable[[int], None]):
        super().__init__()
        self.assign = assign
        self.count = 0
        assign(0)

    @abstractmethod
    def counted(self, strategy: DataFreeDistillation, more: int) -> int:
        """The count, if ``more`` steps or experiences are over than the strategy's clock has counted."""

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
        """Student steps."""
        return strategy.clock.train_iterations + more

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Count a step."""
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
        """Count an experience, which may complete an epoch."""
        self._tell(self.counted(strategy, 1))


class Census(SupervisedPlugin):
    """Calls ``count`` with the classes (N,) of all stored images before each experience; must come after the replays.

    Args:
        count: receives the classes.
    """

    def __init__(self, count: Callable[[Tensor], None]):
        super().__init__()
        self.count = count

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Count what a resumed run holds, or an earlier task has left."""
        self.count(strategy.held())

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Count again, now that the experience has entered the memory."""
        self.count(strategy.held())


class ClipGradient(SupervisedPlugin):
    """Bounds the norm of the student's gradient before each of its updates.

    Args:
        norm: the bound.
    """

    def __init__(self, norm: float):
        super().__init__()
        self.norm = norm

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Scale the gradient down if its norm is larger."""
        nn.utils.clip_grad_norm_(strategy.model.parameters(), self.norm)


class ScheduleByEpoch(SupervisedPlugin):
    """Steps a torch scheduler once per ``experiences`` experiences; Avalanche's own resets the rate at each experience.

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
    """Calibrates the ranges of the student's activations on a batch of each of the first experiences.

    The first of them replaces the ranges, the others update them. The result is in the student's buffers, so that
    nothing else has to be saved.

    Args:
        experiences: how many; 0 keeps the student's initial ranges.
        images: per experience.
    """

    def __init__(self, experiences: int, images: int):
        super().__init__()
        self.experiences, self.images = experiences, images

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Calibrate the student on images of the experience that opens."""
        experience = strategy.synthesis
        if experience is not None and experience.current_experience < self.experiences:
            images = experience.draw(self.images).images
            calibrate(strategy.model, [images], anew=experience.current_experience == 0)


class Alteration(SupervisedPlugin):
    """Alters new and replayed samples before each step, so that the student learns from the altered ones.

    The samples that are offered to buffers (``strategy.acquired``) stay as they were.
    """

    @abstractmethod
    def altered(self, batch: Batch) -> Batch:
        """The batch from which the student learns instead of ``batch``."""

    def before_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Replace the samples."""
        strategy.alter(self.altered)


class AdversarialExamples(Alteration):
    """Attacks new and replayed images before each step; their labels stay those of the clean images.

    Args:
        attacker: makes the perturbations; it learns during synthesis.
    """

    def __init__(self, attacker: Attacker):
        super().__init__()
        self.attacker = attacker
        self._counts: dict[str, Any] = {"images": 0, "swapped": 0, "attacked": 0, "queries": 0}

    def altered(self, batch: Batch) -> Batch:
        """Attacked images, and their soft targets."""
        before = self.attacker.teacher.queries
        result = self.attacker.applied(batch)
        found: dict[str, Any] = {"images": len(batch.images), "swapped": result.swapped, "attacked": result.attacked}
        found["queries"] = self.attacker.teacher.queries - before
        self._counts = {name: count + found[name] for name, count in self._counts.items()}
        return result.batch

    @property
    def counts(self) -> dict[str, int]:
        """Images shown, swapped and attacked so far, and queries; waits for a GPU."""
        return {name: int(count) for name, count in self._counts.items()}

    def state_dict(self) -> State:
        """The counts; the attacker's state is kept where it learns."""
        return {"counts": self.counts}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._counts = dict(state["counts"])


class AttackCount(Measure):
    """How many images have been shown, swapped and attacked so far, and the teacher queries this took.

    Args:
        plugin: the attacking plugin.
    """

    def __init__(self, plugin: AdversarialExamples):
        super().__init__()
        self._plugin = plugin

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """Counts from the start of the run."""
        return {"attack": self._plugin.counts}

    def outcome(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The counts at the end."""
        return {"attack": records[-1]["attack"]}


class GeneratorLoss(Measure):
    """The synthesis loss of each inner step since the last evaluation.

    Args:
        synthesizer: optimises the batches.
    """

    def __init__(self, synthesizer: BatchSynthesizer):
        super().__init__()
        self._synthesizer = synthesizer
        self._losses: list[float] = []

    def note(self, strategy: DataFreeDistillation) -> None:
        """Note the inner steps that opened an experience."""
        self._losses += self._synthesizer.losses

    def measure(self, strategy: DataFreeDistillation) -> dict[str, Any]:
        """The losses, in order."""
        losses, self._losses = self._losses, []
        return {"generator_loss": losses}

    def state_dict(self) -> State:
        """The losses since the last evaluation."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._losses = list(state["losses"])
