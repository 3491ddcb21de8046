"""How a run is evaluated: the interface of a measure, when measures are taken, and the records of evaluations."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_definitions import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger
from avalanche.training.plugins import EvaluationPlugin

from lra.metrics.quantities import Quantity, at
from lra.state import State
from lra.strategies.strategy import DataFreeDistillation

Record = dict[str, Any]
"""Measurements, ready for JSON."""


class Measure(PluginMetric[Record]):
    """A metric that measures once per evaluation; it works in any of Avalanche's evaluators.

    At the end of an evaluation it gives scalars to Avalanche's loggers, and a dictionary (`result`) to the record that
    `Evaluation` keeps. It can be saved and resumed.

    Attributes:
        gives: the quantities that it adds to the result of a run; `outcome` says how.
    """

    gives: ClassVar[tuple[Quantity, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._last: Record = {}

    @abstractmethod
    def measure(self, strategy: DataFreeDistillation) -> Record:
        """The measurement at the end of an evaluation, ready for JSON."""

    def outcome(self, records: Sequence[Record]) -> Record:
        """What it adds to the result of a run, from the records of all evaluations.

        Unless overridden, this is the last value of each quantity that it gives, or the mean of all its values, at the
        path that the quantity declares.
        """
        found: Record = {}
        for quantity in self.gives:
            if quantity.record:
                values = [at(record, quantity.record) for record in records]
                there = [value for value in values if value is not None]
                value = float(np.mean(there)) if quantity.mean_of_records and there else values[-1]
                found = merged(found, _nested(quantity.path, value))
        return found

    def files(self) -> dict[str, Record]:
        """JSON files that it adds beside the result of a run: their contents by name."""
        return {}

    def anticipate(self, strategy: DataFreeDistillation) -> None:
        """Examine the student before it learns an experience that will be followed by an evaluation."""

    def note(self, strategy: DataFreeDistillation) -> None:
        """Note an experience that has just been learnt, at almost no cost."""

    def after_eval(self, strategy: DataFreeDistillation) -> list[MetricValue]:
        """Measure, and hand the scalars to the loggers."""
        self._last = self.measure(strategy)
        step = strategy.clock.train_iterations
        return [MetricValue(self, name, value, step) for name, value in _scalars(self._last)]

    def result(self) -> Record:
        """The last measurement."""
        return self._last

    def reset(self) -> None:
        """Forget the last measurement."""
        self._last = {}

    def state_dict(self) -> State:
        """What a resumed run needs to continue measuring."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every float of a record, under its path."""
    for name, value in record.items():
        if isinstance(value, float):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")


def _nested(path: str, value: object) -> Record:
    first, _, rest = path.partition(".")
    return {first: _nested(rest, value) if rest else value}


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Record:
    """Both records merged, recursively where both have a mapping under a key; otherwise ``other`` takes precedence."""
    common = {
        k: merged(one[k], v) for k, v in other.items() if isinstance(v, Mapping) and isinstance(one.get(k), Mapping)
    }
    return {**one, **other, **common}


class QuietEvaluation(EvaluationPlugin):
    """Avalanche's evaluator, restricted to the callbacks that some metric or logger uses.

    The stock evaluator copies the experience at each of 15 callbacks per experience, whether anything uses it or not.
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
        """Hide the callbacks that nothing uses, so that Avalanche skips them."""
        if not item.startswith(("before_", "after_")):
            # Avalanche's own override only matters for callbacks, and this is asked dozens of times a step.
            return object.__getattribute__(self, item)
        if item not in object.__getattribute__(self, "_heard"):
            raise AttributeError(item)
        return super().__getattribute__(item)


class _Silent:
    """A logger that ignores everything."""

    def log_metrics(self, metric_values: object) -> None:
        """Ignore them."""


def _overridden(listener: type, callback: str) -> bool:
    """Whether a class overrides a callback, which in Avalanche is an empty method."""
    empty = (PluginMetric, SupervisedPlugin)
    return not any(getattr(listener, callback) is getattr(base, callback, None) for base in empty)


class _Recorder(BaseLogger):
    """A logger through which every evaluation is recorded, whatever started it."""

    def __init__(self, record: Callable[[DataFreeDistillation], None]):
        # Past Avalanche's, which has loggers on the first of several processes alone.
        super(BaseLogger, self).__init__()
        self.record = record

    def after_eval(self, strategy: DataFreeDistillation, metric_values: object, **kwargs: object) -> None:
        """The measures have been taken."""
        self.record(strategy)


class Evaluation(SupervisedPlugin):
    """Decides when a student is evaluated and by which measures, and keeps the records; the last of a user's plugins.

    It evaluates every ``every`` experiences and at the end, even if that comes early. Avalanche's ``eval_every`` cannot
    be less frequent than one evaluation per experience.

    Args:
        stream: the test stream; if it is empty, because there is no test set, measures on probes still work.
        every: experiences between evaluations.
        length: experiences in all.
        measures: taken in order; they are told of every experience, and beforehand if an evaluation will follow it.
        epoch: experiences per epoch, for the dates in the records.
        keep: called with the record of each evaluation, a dictionary ready for JSON.
        loggers: Avalanche loggers for further records.

    Attributes:
        evaluator: to be given to the strategy as its evaluator, so that the measures are called.
    """

    def __init__(
        self,
        stream: Any,
        every: int,
        length: int,
        measures: Sequence[Measure] = (),
        epoch: int = 1,
        keep: Callable[[Record], None] = lambda record: None,
        loggers: Sequence[BaseLogger] = (),
    ):
        super().__init__()
        self.stream = stream
        self.every = every
        self.length = length
        self.measures = list(measures)
        self.epoch = epoch
        self.keep = keep
        self.evaluator = QuietEvaluation(*measures, loggers=[*loggers, _Recorder(self._record)], collect_all=False)
        self.evaluations = 0

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Announce the evaluation that will follow, if there is one."""
        if self._due(strategy.clock.train_exp_counter + 1):
            for measure in self.measures:
                measure.anticipate(strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Let the measures note the experience, and evaluate if it is time."""
        # Told from here, and not by the evaluator, which would copy the experience first.
        for measure in self.measures:
            measure.note(strategy)
        if self._due(strategy.clock.train_exp_counter + 1) or strategy.stopped is not None:
            strategy.eval(self.stream)

    def _due(self, completed: int) -> bool:
        return completed % self.every == 0 or completed == self.length

    def _record(self, strategy: DataFreeDistillation) -> None:
        """Keep the record of an evaluation whose measures have just been taken."""
        experience = strategy.clock.train_exp_counter + 1
        record: Record = {
            "evaluation": self.evaluations,
            "experience": experience,
            "student_step": strategy.clock.train_iterations,
            "epoch": experience / self.epoch,
        }
        self.evaluations += 1
        for measure in self.measures:
            record = merged(record, measure.result())
        self.keep(record)

    def outcome(self, records: Sequence[Record]) -> Record:
        """What the measures add to the result of a run, from the records of all evaluations."""
        found: Record = {}
        for measure in self.measures:
            found = merged(found, measure.outcome(records))
        return found

    def files(self) -> dict[str, Record]:
        """JSON files that the measures add beside it: their contents by name."""
        return {name: content for measure in self.measures for name, content in measure.files().items()}

    def state_dict(self) -> State:
        """Evaluations recorded, and the states of the measures."""
        measures = [measure.state_dict() for measure in self.measures]
        return {"evaluations": self.evaluations, "measures": measures}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.evaluations = state["evaluations"]
        for measure, own in zip(self.measures, state["measures"], strict=True):
            measure.load_state_dict(own)


def tensorboard(folder: Path) -> BaseLogger:
    """Avalanche's TensorBoard logger, writing into ``folder`` from now on."""
    return TensorboardLogger(tb_log_dir=folder)


class WeightsAndBiases(WandBLogger):
    """Avalanche's Weights & Biases logger, for processes with several runs: it closes its record at the end of a run.

    Args:
        folder: where the record goes.
        name: of the run; online, a stopped run with the same name is continued.
        config: of the run, as plain data.
        mode: keep the record in ``folder``, or send it as well.

    Raises:
        ImportError: if wandb is not installed.
        Exception: one of wandb's own, if it cannot start, for example without a login or a network.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], mode: Literal["offline", "online"]):
        from wandb import Settings

        # Where there is no folder the record would go elsewhere.
        folder.mkdir(parents=True, exist_ok=True)
        own = {
            # Avalanche would ask wandb for one with a function that newer versions do not have.
            "id": "".join(c if c.isalnum() else "-" for c in name)[-128:],
            "mode": mode,
            "settings": Settings(silent=True, console="off", disable_git=True),
        }
        super().__init__(
            project_name="lra",
            run_name=name,
            save_code=False,
            config=dict(config),
            dir=folder,
            params=own | ({"resume": "allow"} if mode == "online" else {}),
        )

    def log_single_metric(self, name: str, value: object, x_plot: int) -> None:
        """Log a number; Avalanche's pictures and charts need what newer versions of wandb lack, and are left out."""
        if isinstance(value, (int, float)):
            self.step = x_plot
            self.wandb.log({name: value}, step=x_plot)

    def after_training(self, *arguments: Any, **kwargs: Any) -> None:
        """Log, and close the record."""
        super().after_training(*arguments, **kwargs)
        self.wandb.finish()
