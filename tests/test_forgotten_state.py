"""Nothing that a run remembers is missing from its checkpoint, in any method, with any replay.

A run is stopped, and taken up by freshly built parts; both go on by one experience. Then not only the outcome is
compared but every attribute of every object in the run: what was forgotten differs, whether or not it has been used.
"""

import io
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.benchmarks.robustness.small_runs import every, small
from lra.benchmarks.setup.datasets import Labelled, data_of
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.teachers import obtain
from lra.memory.buffers import Buffer
from lra.memory.pool import ImagePool
from lra.state import random_states, restore_random_states, seed_everything
from lra.strategies.checkpoint import capture, restore
from lra.strategies.divergence import DivergenceGuard
from lra.strategies.methods import METHODS
from lra.synthesis.sources import LatentSource
from lra.synthesis.terms import FeatureBank

STOP, STEPS = 4, 1
"""Neither is an evaluation or the end of an epoch, at which much is set anew."""
UNREAD = ("_last", "_before", "_answers", "last_metric_results", "_handles", "_forward_hooks")
"""What is left of the last evaluation, and not read before the next has set it anew; and hooks, which have numbers."""
WITHOUT_STATE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, torch.dtype, torch.device)
"""Nor has the guard, which looks at networks that are found elsewhere."""


def built(choice: tuple[str, str, bool]) -> Experiment:
    config = small(*choice)
    data = data_of(config.data)
    test = data.load("test")
    few = Labelled(test.images[:20], test.classes[:20])
    trained = obtain(config.teacher, data, few)
    seed_everything(config.seed)
    return prepare(config, data, trained, few, lambda record: None)


def trained_to(experiment: Experiment, position: int) -> Experiment:
    """Train up to an experience: the stream is cut there."""
    length, experiment.stream.length = experiment.stream.length, position
    experiment.strategy.train(experiment.stream)
    experiment.stream.length = length
    return experiment


def taken_up(choice: tuple[str, str, bool], stopped: Experiment) -> Experiment:
    """Fresh parts in the state of stopped ones, by way of a file."""
    file = io.BytesIO()
    torch.save(capture(stopped.strategy, stopped.stream), file)
    fresh = built(choice)
    seed_everything(99)
    restore(torch.load(io.BytesIO(file.getvalue()), weights_only=True), fresh.strategy, fresh.stream)
    return fresh


def differences(one: Any, other: Any, path: str, seen: set[int]) -> Iterator[str]:
    """Paths to all that is not the same in two object graphs."""
    if type(one).__qualname__ != type(other).__qualname__:  # torch makes a class for every parametrised module
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, Tensor):
        if not torch.equal(torch.nan_to_num(one.detach().cpu()), torch.nan_to_num(other.detach().cpu())):
            yield path
    elif isinstance(one, np.ndarray):
        if not np.array_equal(one, other):
            yield path
    elif one is None or isinstance(one, bool | int | float | str | bytes):
        if repr(one) != repr(other):
            yield f"{path}: {one!r:.40} and {other!r:.40}"
    elif id(one) not in seen and not isinstance(one, (*WITHOUT_STATE, DivergenceGuard)):
        seen.add(id(one))
        ones, others = parts_of(one), parts_of(other)
        if ones.keys() != others.keys():
            yield f"{path}: parts {sorted(ones.keys() ^ others.keys())}"
        for name in ones.keys() & others.keys():
            yield from differences(ones[name], others[name], f"{path}.{name}", seen)


def parts_of(thing: Any) -> dict[str, Any]:
    """What a container or an object consists of, by name or place."""
    if isinstance(thing, Mapping):
        named = all(isinstance(key, str | int) for key in thing)
        return {str(key) if named else str(i): value for i, (key, value) in enumerate(thing.items())}
    if isinstance(thing, list | tuple):
        return {str(i): value for i, value in enumerate(thing)}
    own = {name: value for name, value in getattr(thing, "__dict__", {}).items() if name not in UNREAD}
    if type(thing) is LatentSource:
        del own["generator"]  # it is drawn anew with every batch, but for running statistics that nothing reads
    if isinstance(thing, Buffer | ImagePool | FeatureBank):  # the rest of their memory has never been written
        return {name: held(value, len(thing)) for name, value in own.items()}
    return own


def held(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[:count]
    return [held(part, count) for part in value] if isinstance(value, tuple) else value


def compared(one: Experiment, other: Experiment) -> list[str]:
    parts = [(e.strategy, e.stream, e.evaluation, torch.get_rng_state()) for e in (one, other)]
    return list(differences(*parts, "run", set()))


CHOICES = [list(every([method]))[number % 9] for number, method in enumerate(METHODS)]
"""All methods, with all replay and meta choices between them."""


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_nothing_is_forgotten(choice: tuple[str, str, bool]) -> None:
    stopped = trained_to(built(choice), STOP)
    fresh = taken_up(choice, stopped)
    states = random_states()
    trained_to(fresh, STOP + STEPS)
    restore_random_states(states)
    trained_to(stopped, STOP + STEPS)
    assert compared(stopped, fresh) == []


class Forgetful(SupervisedPlugin):
    """Remembers something that its state does not say."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.count = 0

    def after_training_exp(self, strategy: Any, **kwargs: object) -> None:
        self.count += 1
        nn.init.constant_(self.module.bias, self.count)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_what_is_forgotten_is_found() -> None:
    choice = ("predfkd", "memory", False)
    first = built(choice)
    first.strategy.plugins.append(Forgetful())
    fresh = taken_up(choice, trained_to(first, STOP))
    fresh.strategy.plugins.append(Forgetful())
    for experiment in (first, fresh):
        trained_to(experiment, STOP + STEPS)
    found = "\n".join(compared(first, fresh))
    assert ".count: 5 and 1" in found
    assert ".bias" in found
