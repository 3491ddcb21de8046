"""When to evaluate, and an evaluator that costs nothing in between."""

from collections.abc import Callable, Sequence
from typing import Any

from avalanche.benchmarks.scenarios.generic_scenario import CLExperience, CLStream
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_definitions import PluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from lra.state import State
from lra.strategies.metrics import Measure
from lra.strategies.strategy import DataFreeDistillation


class TestExperience(CLExperience):
    """A labelled test set held in tensors: images (n, C, H, W), bytes or floats in [0, 1], and classes (n,)."""

    __test__ = False

    def __init__(self, images: Tensor, classes: Tensor):
        super().__init__(current_experience=0, origin_stream=None)
        self.tensors = (images, classes)
        self.origin_stream = CLStream("test", exps_iter=[self], set_stream_info=False)


def no_test_stream() -> "CLStream[TestExperience]":
    """A test stream of nothing, on which metrics of probes still speak."""
    return CLStream("test", exps_iter=[], set_stream_info=False)


class QuietEvaluation(EvaluationPlugin):
    """Avalanche's evaluator, answering only the callbacks that some metric or logger listens to.

    The stock evaluator copies the experience at every one of 15 callbacks per experience, listener or not.
    """

    def __init__(self, *metrics: Any, loggers: Any = None, **kwargs: Any):
        # An empty list of loggers is a choice here, not an oversight to warn of.
        super().__init__(*metrics, loggers=loggers or [_Silent()], **kwargs)
        self._heard = {
            name
            for listener in [*self.metrics, *self.loggers]
            for name in dir(type(listener))
            if name.startswith(("before_", "after_")) and _overridden(type(listener), name)
        }

    def __getattribute__(self, item: str) -> Any:
        """Deny the callbacks nobody listens to, so that Avalanche passes them by."""
        if not item.startswith(("before_", "after_")):
            # Avalanche's own override only matters for callbacks, and this is asked dozens of times a step.
            return object.__getattribute__(self, item)
        if item not in object.__getattribute__(self, "_heard"):
            raise AttributeError(item)
        return super().__getattribute__(item)


class _Silent:
    """A logger that hears nothing."""

    def log_metrics(self, metric_values: object) -> None:
        """Ignore them."""


def _overridden(listener: type, callback: str) -> bool:
    """Whether a class does something at a callback, beyond Avalanche's empty methods."""
    empty = (PluginMetric, SupervisedPlugin)
    return not any(getattr(listener, callback) is getattr(base, callback, None) for base in empty)


class EvaluationCadence(SupervisedPlugin):
    """Evaluates the student every so many experiences and at the end, early or not; the last of a user's plugins.

    Avalanche's ``eval_every`` cannot be thinned below one evaluation per experience.

    Args:
        stream: the test stream; empty where there is no test set, and metrics of probes still speak.
        every: experiences between evaluations.
        length: experiences in all.
        announce: measures told of every experience, and beforehand of one that an evaluation will follow.
    """

    def __init__(self, stream: Any, every: int, length: int, announce: Sequence[Measure] = ()):
        super().__init__()
        self.announce = announce
        self.stream = stream
        self.every = every
        self.length = length
        self.completed = 0

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Announce the evaluation that will follow, if one will."""
        if self._due(self.completed + 1):
            for measure in self.announce:
                measure.anticipate(strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Let the measures note the experience, and evaluate if it is time."""
        # Told from here, and not by the evaluator, which would copy the experience first.
        for measure in self.announce:
            measure.note(strategy)
        self.completed += 1
        if self._due(self.completed) or strategy.stopped is not None:
            strategy.eval(self.stream)

    def _due(self, completed: int) -> bool:
        return completed % self.every == 0 or completed == self.length

    def state_dict(self) -> State:
        """Experiences seen."""
        return {"completed": self.completed}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.completed = state["completed"]


class Recorder(BaseLogger):
    """An Avalanche logger that turns every evaluation into one record of all measures.

    Args:
        measures: what to record, asked in order.
        every: experiences per epoch, to date the record.
        keep: called with each record, a dictionary ready for JSON.
    """

    def __init__(self, measures: Sequence[Measure], every: int, keep: Callable[[dict[str, Any]], None]):
        # Past Avalanche's, which has loggers on the first of several processes alone.
        super(BaseLogger, self).__init__()
        self.measures = measures
        self.every = every
        self.keep = keep
        self.evaluations = 0

    def after_eval(self, strategy: DataFreeDistillation, metric_values: object, **kwargs: object) -> None:
        """Assemble the record; the measures have just been taken."""
        experience = strategy.clock.train_exp_counter + 1
        record: dict[str, Any] = {
            "evaluation": self.evaluations,
            "experience": experience,
            "student_step": strategy.clock.train_iterations,
            "epoch": experience / self.every,
        }
        self.evaluations += 1
        for measure in self.measures:
            measured = measure.result()
            losses = record.get("losses", {}) | measured.get("losses", {})
            record |= measured | ({"losses": losses} if losses else {})
        self.keep(record)

    def state_dict(self) -> State:
        """Evaluations recorded."""
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.evaluations = state["evaluations"]
