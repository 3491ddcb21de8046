"""What is particular about methods with an online generator; what all methods do is in test_conformance.py."""

import copy
from typing import Any

import pytest
import torch
from short_runs import experiment

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.presets import presets
from lra.benchmarks.setup.resolution import configuration
from lra.distillation.terms import HardLabel
from lra.strategies.methods import METHODS
from lra.strategies.plugins import ScheduleByEpoch
from lra.synthesis.terms import OneHot


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match=r"synthesis\.negatives = 8: give at least a batch, 16"):
        experiment("adadfkd", "synthesis.negatives=8")
    with pytest.raises(UsageError, match="all weights of synthesis are 0"):
        experiment("dafl", "synthesis={one_hot: 0, balance: 0, activation: 0}")


def test_a_curriculum_gets_older_and_harder() -> None:
    settings = ["synthesis={age: 2, age_rate: 0.5, adversarial: 0, adversarial_slope: 1}"]
    built = experiment("cudfkd", *settings, experiences=8)
    built.strategy.train(built.stream)
    objective, terms = built.strategy.objective, built.stream.synthesizer.terms
    assert objective.age == 2.0 + 0.5 * 16
    (adversary,) = (term for term in terms if term.name == "adversarial")
    assert adversary.weight == 4, "a quarter to three quarters of eight epochs"
    ring_settings = ["synthesis.negatives=20", "synthesis.ring_length=0.5"]
    built = experiment("adadfkd", *ring_settings, experiences=8)
    built.strategy.train(built.stream)
    (ring,) = (term for term in built.stream.synthesizer.terms if term.name == "ring")
    assert ring.hardness == 0.5
    assert ring.queue.pushed == 20 + 8 * 16


def test_a_projection_gets_the_gradient_of_both_losses_where_they_were_taken() -> None:
    """∂L_acq(θ)/∂φ + ∂L_ret(θ')/∂φ, with θ' taken by hand."""
    rate, student = 0.05, ["student.network=lenet5-half", "student.lr=0.05"]
    settings = [
        "synthesis={negatives: 20, granularity: batch, age_rate: 1.0e-4}",
        f"meta={{alpha: {rate}, weight: 0.5}}",
    ]
    built = experiment("adadfkd", *settings, *student, replay="memory", meta=True, experiences=2)
    strategy, seen = built.strategy, {}

    class Watch:
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            seen["before"] = copy.deepcopy(strategy.model.state_dict())

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            seen["batches"] = strategy.acquired, strategy.replayed
            seen["gradient"] = [p.grad.clone() for p in strategy.objective.parameters()]

    strategy.plugins.append(Watch())
    strategy.train(built.stream)
    (acquired, replayed), student, objective = seen["batches"], strategy.model, strategy.objective
    student.load_state_dict(seen["before"])
    objective.age -= 1e-4
    own, theta = list(objective.parameters()), list(student.parameters())
    loss = objective(student, acquired)
    wanted = torch.autograd.grad(loss, own, retain_graph=True)
    with torch.no_grad():
        for p, g in zip(theta, torch.autograd.grad(loss, theta), strict=True):
            p -= rate * g
    kept = torch.autograd.grad(objective(student, replayed), own)
    for found, a, r in zip(seen["gradient"], wanted, kept, strict=True):
        torch.testing.assert_close(found, a + 0.5 * r, rtol=1e-3, atol=1e-6)


def test_adam_without_averages_moves_every_weight_of_cpsc_by_its_rate() -> None:
    built = experiment("cpsc", "synthesis={steps: 1, lr: 0.01, betas: [0.0, 0.0]}", experiences=1)
    weight = built.stream.synthesizer.generator.last.weight
    before = weight.detach().clone()
    built.stream.synthesizer.step(built.strategy.model)
    moved = (weight - before).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.01), rtol=0.01)


@pytest.mark.parametrize("released", [False, True])
def test_cpsc_takes_cross_entropies_as_they_are_unless_told_otherwise(released: bool) -> None:
    built = experiment("cpsc", *(["synthesis.double_softmax=true"] if released else []))
    terms = [*built.stream.synthesizer.terms, *built.strategy.objective.terms]
    asked = [term for term in terms if isinstance(term, (OneHot, HardLabel))]
    assert [term.double_softmax for term in asked] == [released] * 2


def test_cpsc_learns_how_features_of_two_sizes_correspond() -> None:
    built = experiment("cpsc", "student.network=lenet5-bn", experiences=1)
    (contrast,) = (term for term in built.stream.synthesizer.terms if term.name == "contrast")
    before = [parameter.detach().clone() for parameter in contrast.project.parameters()]
    built.stream.synthesizer.step(built.strategy.model)
    assert len(before) == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, contrast.project.parameters(), strict=True))


@pytest.mark.parametrize(("rise", "rates"), [(0, [0.1, 0.0775, 0.0325]), (1, [0.1, 0.1, 0.055]), (2, [0.05, 0.1, 0.1])])
def test_the_rate_rises_before_it_falls(rise: int, rates: list[float]) -> None:
    """To a tenth of itself, over three epochs of one experience."""
    schedule = f"schedule={{rise: {rise}, least_lr: 0.01, experiences_per_epoch: 1, epochs: 3, steps: null}}"
    built = experiment("cpsc", "student.lr=0.1", schedule)
    optimiser, found = built.strategy.optimizer, []
    scheduling = next(p for p in built.strategy.plugins if isinstance(p, ScheduleByEpoch))
    for _ in rates:
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduling.scheduler.step()
    assert found == pytest.approx(rates)


def test_every_preset_resolves_and_says_where_it_is_from() -> None:
    for name, preset in presets().items():
        # Not every data set of the presets need be known here.
        config = configuration(preset=name, dataset="digits")
        assert config.method in METHODS
        assert preset["source"].split()[0] in ("upstream-exact", "benchmark-exact", "inferred", "ours"), name
