"""A run stopped between two experiences and taken up by freshly built parts ends as if it had never stopped."""

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lra.benchmarks.setup.datasets import Labelled, data_set
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.setup.teachers import obtain
from lra.state import State, random_states, restore_random_states, seed_everything
from lra.strategies.checkpoint import capture, restore


class Stopped(Exception):
    """At rest, as many experiences in as asked."""


Build = Callable[..., tuple[Experiment, list[dict[str, Any]]]]


@pytest.fixture
def build(tiny: list[str]) -> Build:
    """Build a run from the options of the command line, as the runner does; gives it with its records."""
    given = dict(part.split("=") for part in tiny if "=" in part)

    def make(*assignments: str, **options: Any) -> tuple[Experiment, list[dict[str, Any]]]:
        config = configuration(
            teacher="mlp",
            student=options.pop("student", "mlp"),
            steps=20,
            set=(*(f"{name}={value}" for name, value in given.items()), *assignments),
            **options,
        )
        data = data_set("digits", 8)
        test = data.load("test")
        trained = obtain(config.teacher, data, None)
        seed_everything(config.seed)
        records: list[dict[str, Any]] = []
        few = Labelled(test.images[:50], test.classes[:50])
        return prepare(config, data, trained, few, records.append), records

    return make


def through_a_file(state: State) -> State:
    """As it comes back from disk, by torch's restricted loader."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def outcome(experiment: Experiment, records: list[dict[str, Any]]) -> dict[str, Any]:
    stream = experiment.stream
    return {
        "records": records,
        "student": copy.deepcopy(experiment.strategy.model.state_dict()),
        "counts": (stream.teacher.queries, stream.synthesizer.images_generated, stream.synthesizer.generator_steps),
        "random": torch.get_rng_state().tolist(),
        "clock": experiment.strategy.clock.train_iterations,
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.pop("student").items():
        assert torch.equal(value, found["student"][name]), name
    del found["student"]
    assert repr(found) == repr(expected)


def stop_after(experiment: Experiment, position: int) -> State:
    """Train until so many experiences are complete; gives the state there."""
    states: list[State] = []

    def rest() -> None:
        if experiment.stream.position == position:
            states.append(through_a_file(capture(experiment.strategy, experiment.stream)))
            raise Stopped

    experiment.stream.at_rest = rest
    with pytest.raises(Stopped):
        experiment.strategy.train(experiment.stream)
    return states[0]


def check_resume(build: Build, *assignments: str, at: int, **options: Any) -> None:
    whole, records = build(*assignments, **options)
    whole.strategy.train(whole.stream)
    expected = outcome(whole, records)

    first, before = build(*assignments, **options)
    state = stop_after(first, at)
    # A process of its own would have other random numbers, and weights, to begin with.
    second, after = build(*assignments, **options)
    torch.manual_seed(99)
    restore(state, second.strategy, second.stream)
    second.strategy.train(second.stream)
    assert_same(outcome(second, before + after), expected)


# That nothing is forgotten, in any method with any replay, is the business of test_conformance.py.
@pytest.mark.parametrize(("replay", "meta"), [("none", False), ("generative", True), ("pool", True)])
def test_a_stopped_run_ends_as_an_uninterrupted_one(build: Build, replay: str, meta: bool) -> None:
    small = ["replay.width=8", "replay.latent=10"] if replay == "generative" else []
    check_resume(build, *small, at=5, replay=replay, meta=meta)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_wherever_it_stops(build: Build, at: int) -> None:
    check_resume(build, at=at, replay="memory", meta=True)


@pytest.mark.parametrize("form", [("meta.order=1", "meta.every=3"), ("meta.along=momentum",)])
def test_cheaper_look_aheads_resume(build: Build, form: tuple[str, ...]) -> None:
    check_resume(build, *form, at=4, replay="memory", meta=True)


def test_a_student_with_batchnorm_resumes(build: Build) -> None:
    check_resume(build, at=3, replay="memory", meta=True, student="resnet8")


def test_folded_convolutions_and_maps_channels_last_resume(build: Build) -> None:
    wide = ["synthesis.width=64", "schedule.batch_size=64", "student.channels_last=true"]
    check_resume(build, *wide, at=3, replay="memory", student="resnet8")


def test_a_state_of_another_run_is_refused(build: Build) -> None:
    first, _ = build(replay="memory")
    state = stop_after(first, 2)
    other, _ = build(replay="memory", student="lenet5-half")
    with pytest.raises((RuntimeError, KeyError, ValueError)):
        restore(state, other.strategy, other.stream)


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    def draws() -> Iterator[float]:
        yield random.random()
        yield random.gauss(0, 1)
        yield float(np.random.rand())
        yield float(np.random.randn())
        yield float(torch.rand(()))

    seed_everything(3)
    list(draws())
    state = through_a_file(random_states())
    first = list(draws())
    seed_everything(4)
    restore_random_states(state)
    assert list(draws()) == first
