"""Replay plugins: what the student sees again beside the new samples.

A replay plugin brings one batch of earlier samples to every student step, as ``strategy.replayed``, and learns
from every experience what to remember. By default the batch also joins the minibatch (plain replay: one forward
pass, one loss over both); `LRA` asks for it to be kept apart.
"""

from abc import ABC, abstractmethod

import torch
from avalanche.core import SupervisedPlugin

from lra.memory.buffers import Buffer
from lra.memory.generator import MemoryGenerator
from lra.problem import Batch
from lra.state import State
from lra.strategies.strategy import DataFreeDistillation
from lra.teacher import Teacher


class Replay(SupervisedPlugin, ABC):
    """Brings replayed samples to every student step.

    Args:
        size: images replayed per step.
        join: whether they join the minibatch; set by `LRA` where it wants them apart.
    """

    def __init__(self, size: int, join: bool = True):
        super().__init__()
        self.size = size
        self.join = join

    @abstractmethod
    def recall(self) -> Batch | None:
        """The samples to replay at this step, or ``None`` while there is nothing to remember."""

    @abstractmethod
    def state_dict(self) -> State:
        """What is remembered."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""

    def begin_with(self, state: State, teacher: Teacher) -> None:
        """Start a task from the `state_dict` of an earlier one's replay; what it stores of answers, ``teacher`` gives.

        Raises:
            KeyError, RuntimeError, ValueError: if it does not fit.
        """
        self.load_state_dict(state)

    def before_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Recall, and join the minibatch if asked to."""
        strategy.replayed = replayed = self.recall()
        if replayed is None or not self.join:
            return
        images, logits, tasks = strategy.mbatch
        strategy.mbatch = [
            torch.cat([images, replayed.images]),
            torch.cat([logits, replayed.logits]),
            torch.cat([tasks, tasks.new_zeros(len(replayed.images))]),
        ]


class BufferReplay(Replay):
    """Replays stored images with the teacher's stored answers: memory bank, reservoir, any `Buffer`.

    At the end of chosen experiences the new samples of the last student step are offered to the buffer. The
    memory bank of MB-DFKD (Binici et al., WACV 2022) is a `Ring` filled at the end of every fifth epoch.

    Args:
        buffer: what remembers.
        size: images replayed per step.
        first: experiences before the first offer (1: after the very first).
        period: experiences from one offer to the next.
    """

    def __init__(self, buffer: Buffer, size: int, first: int = 1, period: int = 1):
        super().__init__(size)
        self.buffer = buffer
        self.first = first
        self.period = period
        self.completed = 0

    def recall(self) -> Batch | None:
        """``size`` stored samples; none before the first offer."""
        return self.buffer.sample(self.size) if len(self.buffer) else None

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Offer the last step's new samples to the buffer, if it is time."""
        self.completed += 1
        due = self.completed >= self.first and (self.completed - self.first) % self.period == 0
        if due and strategy.acquired is not None:
            self.buffer.add(strategy.acquired)

    def state_dict(self) -> State:
        """The buffer and the place in the period."""
        return {"buffer": self.buffer.state_dict(), "completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.buffer.load_state_dict(state["buffer"])
        self.completed = state["completed"]

    def begin_with(self, state: State, teacher: Teacher) -> None:
        """The stored images, with the new teacher's answers."""
        self.load_state_dict(state)
        self.buffer.relabel(teacher.label)


class GenerativeReplay(Replay):
    """Replays samples of a memory generator that learns along with the student (PRE-DFKD, AAAI 2022).

    Args:
        memory: the memory generator.
        size: images replayed per step, and per update of the memory.
        updates: the memory learns in the first so many student steps of an experience (published: 4 of 10).
        warmup: experiences before the first replay; 0, as published, replays an untrained memory at first.
    """

    def __init__(self, memory: MemoryGenerator, size: int, updates: int = 4, warmup: int = 1):
        super().__init__(size)
        self.memory = memory
        self.updates = updates
        self.warmup = warmup
        self.completed = 0
        self._step = 0

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Count steps from the start of the experience."""
        self._step = 0

    def recall(self) -> Batch | None:
        """``size`` remembered samples, after the warm-up."""
        return self.memory.sample(self.size) if self.completed >= self.warmup else None

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Teach the memory half of the new samples, rehearsing its own beside them after the first experience."""
        if self._step < self.updates and strategy.acquired is not None:
            half = slice(0, max(1, len(strategy.acquired.images) // 2))
            new = Batch(strategy.acquired.images[half], strategy.acquired.logits[half])
            self.memory.update(new, self.size if self.completed else 0)
        self._step += 1

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Another experience is over."""
        self.completed += 1

    def state_dict(self) -> State:
        """The memory and the number of experiences seen."""
        return {"memory": self.memory.state_dict(), "completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.memory.load_state_dict(state["memory"])
        self.completed = state["completed"]
