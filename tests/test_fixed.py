"""Sources that cannot drift: the same distribution in every experience, whatever was learnt of it."""

import copy
import math
from typing import Any

import pytest
import torch
from short_runs import experiment
from torch import nn

from lra.benchmarks.errors import UsageError
from lra.networks.generators import gen_s
from lra.state import random_states
from lra.strategies.replay import PoolReplay
from lra.synthesis.fixed import DeadLeaves, FixedSource, Noise, RandomGenerator, _inside

CPU = torch.device("cpu")


@pytest.fixture(params=["generator", "noise", "deadleaves", "generator, distinct: 20"])
def built(request: pytest.FixtureRequest) -> Any:
    return experiment("fixed", f"synthesis={{family: {request.param}, width: 4}}", experiences=3)


def drawn(source: FixedSource) -> torch.Tensor:
    torch.manual_seed(5)
    return source.draw(20)


def test_equal_random_numbers_give_equal_images_in_every_experience(built: Any) -> None:
    source = built.stream.synthesizer
    source.step(built.strategy.model)
    first = drawn(source)
    built.strategy.train(built.stream)
    assert torch.equal(drawn(source), first)
    assert first.min() >= 0
    assert first.max() <= 1
    assert not torch.equal(source.draw(20), first)


def test_an_update_changes_nothing_and_draws_no_random_numbers(built: Any) -> None:
    source, student = built.stream.synthesizer, built.strategy.model
    source.step(student)
    before, numbers = copy.deepcopy(source.state_dict()), random_states()["torch"]
    assert source.step(student) == {}
    assert torch.equal(random_states()["torch"], numbers)
    assert str(source.state_dict()) == str(before)
    assert source.generator_steps == source.updates(0) == 0


def test_a_look_leaves_no_trace(built: Any) -> None:
    source = built.stream.synthesizer
    source.step(built.strategy.model)
    before, numbers = copy.deepcopy(source.state_dict()), random_states()["torch"]
    source.peek(7)
    assert torch.equal(random_states()["torch"], numbers)
    assert str(source.state_dict()) == str(before)


def test_its_seed_is_its_own_and_is_saved() -> None:
    one, other = (experiment("fixed", "synthesis={width: 4, distinct: 16}", f"seed={seed}") for seed in (0, 1))
    for built in (one, other):
        built.stream.synthesizer.step(built.strategy.model)
    assert torch.equal(one.stream.synthesizer.batch().images, other.stream.synthesizer.batch().images)
    assert one.stream.synthesizer.state_dict()["seed"] == 0
    third = experiment("fixed", "synthesis={width: 4, distinct: 16, source_seed: 3}")
    third.stream.synthesizer.step(third.strategy.model)
    assert not torch.equal(third.stream.synthesizer.batch().images, one.stream.synthesizer.batch().images)


def test_a_pool_of_distinct_images_holds_nothing_new() -> None:
    built = experiment("fixed", "synthesis={width: 4, distinct: 20}", replay="pool", experiences=3)
    built.strategy.train(built.stream)
    (replay,) = (plugin for plugin in built.strategy.plugins if isinstance(plugin, PoolReplay))
    held = replay.pool.contents()
    assert held is not None
    assert len(held.images) == 60
    assert torch.equal(held.images.unique(dim=0), built.stream.synthesizer.batch().images.unique(dim=0))
    assert built.stream.synthesizer.images_generated == 20


def test_images_of_a_random_generator_do_not_depend_on_each_other() -> None:
    family = RandomGenerator(lambda: gen_s(6, (1, 8, 8), width=4), 6)
    latents = torch.randn(4, 6)
    with torch.no_grad():
        together = family.generator(latents)
        alone = torch.cat([family.generator(each[None]) for each in latents])
    torch.testing.assert_close(together, alone)
    buffers = {name: value.clone() for name, value in family.generator.named_buffers()}
    family(32)
    assert all(torch.equal(value, buffers[name]) for name, value in family.generator.named_buffers())
    # Its BatchNorm knows what it takes in: what comes out of the first one is standardised.
    seen: list[torch.Tensor] = []
    norm = next(m for m in family.generator.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_hook(lambda module, taken, given: seen.append(given))
    family(4096)
    assert seen[0].mean().abs() < 0.05
    assert 0.8 < seen[0].std() < 1.2


def test_noise_has_the_mean_and_deviation_of_the_data() -> None:
    images = Noise((2, 8, 8), (0.5, 0.4), (0.1, 0.05), CPU)(2000)
    assert images.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.5, 0.4], abs=0.01)
    assert images.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.1, 0.05], abs=0.01)


def test_leaves_cover_all_of_the_ground_unless_they_run_out() -> None:
    assert (DeadLeaves((3, 12, 9), CPU)(16) > 0).all()
    few = DeadLeaves((1, 32, 32), CPU, most=5)(8)
    bare = (few == 0).flatten(1).double().mean(dim=1)
    assert (bare > 0).any()
    assert all(len(image.unique()) <= 6 for image in few)


def test_a_shape_is_the_disc_or_lies_in_it_between_its_corners() -> None:
    grid = torch.cartesian_prod(torch.linspace(-1.1, 1.1, 45), torch.linspace(-1.1, 1.1, 45)).T.double()
    kind = torch.tensor([0, 1, 2, 3, 4, 5])
    torch.manual_seed(0)
    corners = DeadLeaves._corners(kind).double()
    inside = _inside(grid.expand(6, 2, -1), torch.ones(6).double(), kind, corners)
    disc = grid.square().sum(dim=0) <= 1
    assert torch.equal(inside[0], disc)
    assert torch.equal(inside[1], grid.abs().amax(dim=0) <= 1 / math.sqrt(2)), "a square of side √2"
    assert not (inside & ~disc).any()
    # The turned square is the same one seen from another side: as large, but for the points of the grid at its rim.
    assert int(inside[2].sum()) == pytest.approx(int(inside[1].sum()), rel=0.1)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("synthesis.triplet=0.1", r"synthesis\.triplet = 0\.1: a fixed source does not learn"),
        ("synthesis.distinct=15", r"synthesis\.distinct = 15: give at least 16"),
        ("synthesis.family=fractals", "deadleaves"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        experiment("fixed", setting)
    assert "\n" not in str(refusal.value)
