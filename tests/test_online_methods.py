"""Methods with an online generator on digits: each learns, with every retention, and resumes identically."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.datasets import digits
from lra.benchmarks.setup.experiment import Experiment, prepare
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.presets import presets
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.strategies.checkpoint import capture, restore
from lra.strategies.methods import METHODS

ONLINE = {
    "dafl": ["synthesis.lr=0.01"],
    "zskt": ["synthesis.lr=0.01"],
    "dfq": ["synthesis.lr=0.01"],
    "cudfkd": ["synthesis.lr=0.01", "student.loss={kind: kl, temperature: 4}"],
    "adadfkd": ["synthesis.lr=0.01", "synthesis.negatives=80", "student.loss={kind: kl, temperature: 4}"],
    "dfme": ["synthesis.lr=0.003", "synthesis.steps=3"],
    "gdfq": ["synthesis.lr=0.01", "synthesis.warmup=2"],
}
ORIGINAL = ["synthesis.form=original", "synthesis.attention=250", "synthesis.clip=5", "synthesis.lr=0.01"]
RETENTIONS = [(r, meta) for r in ("none", "memory", "reservoir", "generative") for meta in (False, True)]
RETENTIONS.remove(("none", True))

Build = Callable[..., Experiment]


def small_network() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 24, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * 16, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture(scope="module")
def trained() -> TrainedTeacher:
    """A small teacher with BatchNorm that has seen digits for a moment."""
    real = digits().load("train")
    torch.manual_seed(0)
    network = Normalized(small_network(), (0.31,), (0.35,))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(6):
        for chosen in torch.randperm(len(real.images)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(network(real.images[chosen]), real.classes[chosen]).backward()
            optimiser.step()
    return TrainedTeacher(network.eval(), "small", (0.31,), (0.35,), "0" * 64, Path("small"), None)


@pytest.fixture
def experiment(trained: TrainedTeacher) -> Build:
    """Build a run of a method, short unless said otherwise, the same one each time."""

    def make(
        method: str, *assignments: str, replay: str = "none", meta: bool = False, teacher: Any = None, **schedule: int
    ) -> Experiment:
        portions = {"batch_size": 16, "steps_per_experience": 2, "experiences_per_epoch": 1, "epochs": 3} | schedule
        settings = [
            f"schedule={portions}",
            "student.network=lenet5-half",
            "student.lr=0.05",
            "synthesis.width=8",
            "synthesis.latent=32",
            "evaluation={probes: 2, samples: 0, probe_size: 16, every: 100}",
            *assignments,
        ]
        config = resolve([{"method": method, "replay": replay, "meta": meta}, *map(parse_assignment, settings)])
        torch.manual_seed(0)
        return prepare(config, digits(), copy.deepcopy(teacher or trained), digits().load("test"), lambda record: None)

    return make


@pytest.mark.parametrize("method", ONLINE)
@pytest.mark.parametrize(("replay", "meta"), RETENTIONS)
def test_steps_with_every_retention(experiment: Build, method: str, replay: str, meta: bool) -> None:
    built = experiment(method, *ONLINE[method], replay=replay, meta=meta)
    before = copy.deepcopy(built.strategy.model.state_dict())
    built.strategy.train(built.stream)
    after = built.strategy.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["network.conv1.weight"], before["network.conv1.weight"])
    assert (replay != "none") == (built.strategy.replayed is not None)


CASES = [(method, ONLINE[method]) for method in ONLINE] + [("zskt", ORIGINAL)]


@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize("meta", [False, True])
def test_restored_at_an_experience_it_goes_on_identically(
    experiment: Build, method: str, settings: list[str], meta: bool
) -> None:
    def short() -> Experiment:
        return experiment(method, *settings, "evaluation.every=3", replay="memory", meta=meta, epochs=4)

    whole, saved = short(), io.BytesIO()

    def save() -> None:
        if whole.stream.position == 2:
            torch.save(capture(whole.strategy, whole.stream), saved)

    whole.stream.at_rest = save
    whole.strategy.train(whole.stream)
    resumed = short()
    torch.manual_seed(99)
    saved.seek(0)
    restore(torch.load(saved, weights_only=True), resumed.strategy, resumed.stream)
    resumed.strategy.train(resumed.stream)
    ends = [capture(run.strategy, run.stream) for run in (whole, resumed)]
    same(*ends)


def same(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        for a, b in zip(first, second, strict=True):
            same(a, b)
    else:
        assert first == second


@pytest.mark.parametrize("method", ["dfq", "cudfkd", "adadfkd"])
def test_a_teacher_without_batchnorm_is_refused_by_name(experiment: Build, method: str) -> None:
    plain = Normalized(build("lenet5", 10, (1, 16, 16)), (0.31,), (0.35,))
    teacher = TrainedTeacher(plain, "lenet5", (0.31,), (0.35,), "0" * 64, Path("small"), None)
    with pytest.raises(UsageError, match=rf"method '{method}' .*no BatchNorm.*predfkd, dafl, zskt") as refusal:
        experiment(method, *ONLINE[method], teacher=teacher)
    assert "\n" not in str(refusal.value)
    assert refusal.value.code == 2
    built = experiment(method, *ONLINE[method], "synthesis.bn=0", teacher=teacher)
    built.strategy.train(built.stream)


def test_settings_that_cannot_work_are_refused(experiment: Build) -> None:
    with pytest.raises(UsageError, match=r"synthesis\.negatives = 8: give at least a batch, 16"):
        experiment("adadfkd", "synthesis.negatives=8")
    with pytest.raises(UsageError, match="every weight in synthesis is 0"):
        experiment("dafl", "synthesis={one_hot: 0, balance: 0, activation: 0}")


def test_a_curriculum_gets_older_and_harder(experiment: Build) -> None:
    settings = ["synthesis={age: 2, age_rate: 0.5, adversarial_slope: 1}"]
    built = experiment("cudfkd", *settings, epochs=8)
    built.strategy.train(built.stream)
    objective, terms = built.strategy.objective, built.stream.synthesizer.terms
    assert objective.age == 2.0 + 0.5 * 16
    (adversary,) = (term for term in terms if term.name == "adversarial")
    assert adversary.weight == 4, "a quarter to three quarters of eight epochs"
    ring_settings = ["synthesis.negatives=20", "synthesis.ring_length=0.5"]
    built = experiment("adadfkd", *ring_settings, epochs=8)
    built.strategy.train(built.stream)
    (ring,) = (term for term in built.stream.synthesizer.terms if term.name == "ring")
    assert ring.hardness == 0.5
    assert ring.queue.pushed == 20 + 8 * 16


@pytest.mark.parametrize("meta", [False, True])
def test_a_projection_learns_with_the_student_and_is_saved(experiment: Build, meta: bool) -> None:
    """The student has 42 features, the teacher 32."""
    built = experiment("adadfkd", "synthesis.negatives=20", replay="memory", meta=meta)
    (project,) = (m for m in built.strategy.objective.terms.modules() if isinstance(m, nn.Linear))
    before = project.weight.clone()
    built.strategy.train(built.stream)
    assert not torch.equal(project.weight, before)
    state = capture(built.strategy, built.stream)["objective"]
    assert any(torch.equal(value, project.weight) for value in state["terms"].values())


def test_a_projection_gets_the_gradient_of_both_losses_where_they_were_taken(experiment: Build) -> None:
    """∂L_acq(θ)/∂φ + ∂L_ret(θ')/∂φ, with θ' taken by hand."""
    rate, settings = 0.05, ["synthesis.negatives=20", "synthesis.granularity=batch"]
    built = experiment(
        "adadfkd", *settings, f"meta.alpha={rate}", "meta.weight=0.5", replay="memory", meta=True, epochs=2
    )
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


def test_every_preset_resolves_and_says_where_it_is_from() -> None:
    for name, preset in presets().items():
        # Not every data set of the presets need be known here.
        config = resolve([{"data": "digits"}], name)
        assert config.method in METHODS
        assert preset["source"].split()[0] in ("upstream-exact", "benchmark-exact", "inferred", "ours"), name
