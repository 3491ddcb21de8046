"""Avalanche's plugins on the stream: every row of the table is run."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MultiHeadClassifier
from avalanche.training import plugins
from avalanche.training.plugins import LRSchedulerPlugin, SynapticIntelligencePlugin
from torch import nn
from torch.nn.utils import weight_norm
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

from lra.benchmarks.runs import training
from lra.benchmarks.runs.run_folder import RunFolder
from lra.strategies import extensions
from lra.strategies.checkpoint import capture, restore
from lra.strategies.guests import GUESTS, POLICIES, si
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream

pytestmark = pytest.mark.usefixtures("plain_report")

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]

SETUP: Any = SimpleNamespace(batch_size=16, experiences=6, steps=2)
STRONG: dict[str, dict[str, float]] = {
    "lwf": {"alpha": 10.0},
    "ewc": {"ewc_lambda": 100.0},
    "si": {"si_lambda": 1e4},
    "mas": {"lambda_reg": 10.0},
    "rwalk": {"ewc_lambda": 100.0},
    "gem": {"memory_strength": 1.0},
}
"""Options that make even a few steps show."""


class Contrary(SupervisedPlugin):
    """Turns every gradient round: the surest way to one that undoes what was learnt."""

    def after_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        for parameter in strategy.model.parameters():
            parameter.grad = -parameter.grad


class Watch(SupervisedPlugin):
    """Draws the experience's dataset, which moves the random state as most plugins do, and counts what is learnt from.

    Attributes:
        sign: of the gradient that there would be without plugins.
        sizes: images per step.
        acted: whether the gradient is another than without plugins, at some step.
    """

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign
        self.sizes: list[int] = []
        self.acted = False

    def before_forward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        self.sizes.append(len(strategy.mb_x))

    def before_update(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        assert strategy.model.training
        parameters = list(strategy.model.parameters())
        plain = strategy.objective(strategy.model, strategy.minibatch)
        found = torch.autograd.grad(plain, parameters)
        same = (torch.allclose(self.sign * g, p.grad, atol=1e-6) for g, p in zip(found, parameters, strict=True))
        self.acted |= not all(same)


def watched(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, spec: str, **options: Any
) -> Watch:
    """Six experiences of two steps with a plugin, seen by a watch that comes after it.

    Those that project gradients get some that need it.
    """
    projects = spec in ("avalanche:agem", "avalanche:gem")
    watch, plugin = Watch(-1.0 if projects else 1.0), extensions.build(spec, options, SETUP)
    before = [Contrary()] if projects else []
    strategy = make_strategy(student, [*before, plugin, watch], stock_data=extensions.needs_stock_data(spec))
    strategy.train(make_stream(length=6))
    assert all(torch.isfinite(parameter).all() for parameter in student.parameters())
    return watch


@pytest.mark.parametrize("name", [name for name, guest in GUESTS.items() if guest.plugin and name != "replay"])
def test_what_works_changes_the_students_gradient(
    name: str, student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    watch = watched(make_stream, make_strategy, student, f"avalanche:{name}", **STRONG.get(name, {}))
    assert watch.acted
    assert watch.sizes == [16] * 12


@pytest.mark.parametrize("policy", POLICIES)
def test_stored_samples_join_the_batch_with_every_storage_policy(
    policy: str, student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    options = {"storage_policy": policy, "mem_size": 40, "batch_size_mem": 4}
    watch = watched(make_stream, make_strategy, student, "avalanche:replay", **options)
    assert watch.sizes == [16] * 2 + [20] * 10


def test_any_class_of_avalanches_gets_its_loaders(
    student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    spec = "avalanche:avalanche.training.plugins:ReplayPlugin"
    assert watched(make_stream, make_strategy, student, spec, mem_size=40, batch_size_mem=4).sizes[-1] == 20


@pytest.mark.parametrize("name", [name for name, guest in GUESTS.items() if guest.plugin is None])
def test_what_cannot_work_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(extensions.ExtensionError, match=f"plugin 'avalanche:{name}' needs .* refused"):
        extensions.load(f"avalanche:{name}")


def test_synaptic_intelligence_finds_importances_only_with_copies(
    student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    """The reason for our subclass; where this fails, Avalanche has mended its own."""
    largest = []
    for plugin in (si(SETUP), SynapticIntelligencePlugin(1.0)):
        make_strategy(student, [plugin]).train(make_stream(length=2))
        largest.append(max(importance.data.abs().max().item() for importance in plugin.ewc_data[1].values()))
    assert largest[0] > 0
    assert largest[1] == 0


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("avalanche:ewc", {"lambda": 1}, "it takes: ewc_lambda, mode, decay_factor"),
        ("avalanche:ewc", {"mode": "offline"}, "Mode must be separate or online"),
        ("avalanche:agem", {"sample_size": 4}, "gives none to some of 5 experiences"),
        ("avalanche:rwalk", {"delta_t": 10}, "leaves experiences of 2 steps without a score"),
        ("avalanche:replay", {"storage_policy": "best"}, "is none of reservoir, class-balanced, experience-balanced"),
        ("avalanche:replay", {"storage_policy": "experience-balanced", "mem_size": 5}, "raise mem_size, or choose"),
        ("avalanche:nothing", {}, "is none of lwf, ewc"),
        ("avalanche:json:JSONDecoder", {}, "JSONDecoder is not an Avalanche plugin; derive it from"),
    ],
)
def test_what_cannot_be_built_says_why_in_one_line(spec: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(extensions.ExtensionError) as error:
        extensions.build(spec, options, SETUP)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_student_with_a_head_for_each_task_is_refused(make_strategy: MakeStrategy) -> None:
    heads = nn.Sequential(nn.Flatten(), MultiHeadClassifier(64, 10))
    with pytest.raises(ValueError, match=r"1 has a head for each task.* give the student a single head"):
        make_strategy(heads)


RAISES = """
from avalanche.core import SupervisedPlugin
class Raises(SupervisedPlugin):
    def after_backward(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 2:
            raise KeyError("what\\nis this")
"""


@pytest.fixture
def bench(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> Callable[..., Any]:
    """A tiny run with more options."""
    return lambda *options: lra_bench("run", "--json", "--out", tmp_path / "runs", *tiny, *options)


def test_by_name_on_the_command_line(bench: Callable[..., Any]) -> None:
    done = bench("--replay", "avalanche:ewc", "--set", "plugin.ewc_lambda=0.4")
    assert done.code == 0, done.err
    assert json.loads(done.out)["replay"] == "avalanche:ewc"


def test_beside_a_replay_and_the_lra_step(bench: Callable[..., Any]) -> None:
    done = bench("--replay", "reservoir", "--meta", "--plugin", "avalanche:mas")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "plugin.lambda=0.4"), "plugin.lambda: no plugin in use takes it"),
        (("--set", "replay.ewc_lambda=0.4"), "are set as plugin.option=value"),
        (("--meta",), "--meta needs a plugin that replays"),
        (("--set", "on_divergence=rollback"), "plugin 'avalanche:ewc' has no state_dict"),
    ],
)
def test_what_does_not_go_together_is_refused(
    bench: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = bench("--replay", "avalanche:ewc", *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_plugin_that_raises_is_named_with_its_hook_and_experience(
    bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising.py").write_text(RAISES)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = bench("--plugin", "raising:Raises")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(
        "lra-bench: plugin 'raising:Raises' raised in after_backward, experience 2: KeyError: "
    )
    (log,) = (tmp_path / "runs").rglob("log.txt")
    assert 'raise KeyError("what' in log.read_text(), "where it raised"


@pytest.mark.parametrize(("replay", "saved"), [("avalanche:ewc", False), ("reservoir", True)])
def test_a_run_with_a_plugin_that_has_no_state_is_never_saved_half(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, replay: str, saved: bool
) -> None:
    """What is saved without the plugin's memory would go on as another run."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    kept: list[Path] = []
    monkeypatch.setattr(RunFolder, "save", lambda folder, state: kept.append(folder.path))
    assert bench("--replay", replay).code == 0
    assert bool(kept) == saved


class StopsEpoch(SupervisedPlugin):
    """Asks to stop when an experience's only epoch is over."""

    def after_training_epoch(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        strategy.stop_training()


class StopsAtStep(SupervisedPlugin):
    """Asks to stop in the middle of the second experience."""

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        if strategy.clock.train_iterations == 2:  # counted after this
            strategy.stop_training()


class StopsBeforeAnyStep(SupervisedPlugin):
    """Asks to stop before the first step of the second experience."""

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        if strategy.clock.train_iterations:
            strategy.stop_training()


class StopsAtEvaluation(SupervisedPlugin):
    """Asks to stop when the first evaluation is over."""

    def after_eval(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        strategy.stop_training()


class Misspelt(SupervisedPlugin):
    """Listens to what is never said."""

    def before_train_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        raise AssertionError


class Silent(SupervisedPlugin):
    """Listens to nothing."""


@pytest.mark.parametrize(
    ("plugin", "steps", "experiences"),
    [(StopsEpoch, 2, 1), (StopsAtStep, 3, 2), (StopsBeforeAnyStep, 2, 2), (StopsAtEvaluation, 4, 2)],
)
def test_a_plugin_that_stops_training_stops_the_run_and_the_result_says_so(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, plugin: type, steps: int, experiences: int
) -> None:
    """Ten experiences of two steps, an evaluation after every second one and at the end."""
    name = f"{__name__}:{plugin.__name__}"
    done = lra_bench("run", *tiny, "--replay", "memory", "--plugin", name, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["stopped"] == {"by": f"plugin {name!r}", "of_experiences": 10}
    assert (result["cost"]["student_steps"], result["cost"]["experiences"]) == (steps, experiences)
    records = (Path(result["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    assert len(records) == 1, "the student is evaluated as it is left"
    assert json.loads(records[0])["student_step"] == steps
    assert f"{name!r} stopped the run after {experiences} of 10 experiences" in done.err
    again = lra_bench("run", *tiny, "--replay", "memory", "--plugin", name, "--out", tmp_path)
    assert again.code == 0
    assert f"after {experiences} of 10 experiences" in again.out


def test_a_stopped_run_stays_stopped_when_it_is_resumed(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    stream, strategy = make_stream(length=4), make_strategy(student, [StopsEpoch()])
    strategy.train(stream)
    assert (stream.position, strategy.clock.train_iterations) == (1, 2)
    other, anew = make_stream(length=4), make_strategy(student)
    restore(capture(strategy, stream), anew, other)
    assert other.ended
    anew.train(other)
    assert other.position == 1


@pytest.mark.parametrize(
    ("plugin", "options", "said"),
    [
        (f"{__name__}:Misspelt", {}, "before_train_iteration is no callback; did you mean before_training_iteration?"),
        (f"{__name__}:Silent", {}, "overrides none of Avalanche's callbacks"),
        (
            "avalanche.training.plugins:EarlyStoppingPlugin",
            {"patience": 1, "val_stream_name": "test"},
            "counts epochs of one experience",
        ),
        ("avalanche.training.templates.base_sgd:PeriodicEval", {}, "no stream for it to evaluate on"),
    ],
)
def test_a_plugin_that_could_do_nothing_is_refused_with_the_reason(
    plugin: str, options: dict[str, Any], said: str
) -> None:
    for spec in (plugin, f"avalanche:{plugin}"):
        with pytest.raises(extensions.ExtensionError, match="would do nothing here") as caught:
            extensions.build(spec, options, SETUP)
        assert said in str(caught.value)


class StepsRate(LRSchedulerPlugin):
    """Halves the student's rate after each experience, or sets it back, which undoes that."""

    @classmethod
    def build(cls, setup: Any, reset_lr: bool = False) -> Any:
        return cls(ExponentialLR(SGD([nn.Parameter(torch.ones(1))], lr=0.05), 0.5), False, reset_lr)

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        self.scheduler = ExponentialLR(strategy.optimizer, 0.5)
        super().before_training(strategy, **kwargs)


AVALANCHES = {
    name: found
    for name, found in vars(plugins).items()
    if isinstance(found, type) and found.__module__.startswith("avalanche.")
}
"""Every class that `avalanche.training.plugins` exports, by name."""

WORKS: dict[str, dict[str, Any]] = {
    "AGEMPlugin": {"patterns_per_experience": 8, "sample_size": 16},
    "EWCPlugin": {"ewc_lambda": 100.0},
    "GEMPlugin": {"patterns_per_experience": 8, "memory_strength": 1.0},
    "LwFPlugin": {"alpha": 10.0},
    "MASPlugin": {"lambda_reg": 10.0},
    "MIRPlugin": {"batch_size_mem": 8},
    "ReplayPlugin": {"mem_size": 40, "batch_size_mem": 4},
}
"""Those that change what the student learns, with options to build them."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "BiCPlugin": ({}, "every experience has every class"),
    "CWRStarPlugin": ({"model": None}, "needs experiences that bring new classes"),
    "CoPEPlugin": ({}, "prototypes and its loss are of classes"),
    "CurrentDataFeCAMUpdate": ({}, "no means to update"),
    "CurrentDataNCMUpdate": ({}, "no means to update"),
    "EarlyStoppingPlugin": ({"patience": 1, "val_stream_name": "test"}, "counts epochs of one experience"),
    "EvaluationPlugin": ({}, "a run measures by itself"),
    "FeCAMOracle": ({}, "no means to update"),
    "FeatureDistillationPlugin": ({}, "use `avalanche:lwf`"),
    "FromScratchTrainingPlugin": ({}, "a student reset at every generator update"),
    "GDumbPlugin": ({}, "resets the student at every generator update"),
    "GSS_greedyPlugin": ({"input_size": [1, 8, 8]}, "use `--replay reservoir`"),
    "GenerativeReplayPlugin": ({}, "use `--replay generative`"),
    "LFLPlugin": ({"lambda_e": 1.0}, "would freeze the last layer"),
    "LRSchedulerPlugin": ({"scheduler": "StepLR"}, "set `schedule.lr`"),
    "MemoryFeCAMUpdate": ({}, "no means to update"),
    "MemoryNCMUpdate": ({}, "no means to update"),
    "NCMOracle": ({}, "no means to update"),
    "PPPloss": ({"p_mem": {}}, "is not an Avalanche plugin"),
    "RARPlugin": ({"batch_size_mem": 4}, "perturbs samples towards other classes"),
    "RWalkPlugin": ({}, "use avalanche:rwalk"),
    "SupervisedPlugin": ({}, "overrides none of Avalanche's callbacks"),
    "SynapticIntelligencePlugin": ({"si_lambda": 1.0}, "use avalanche:si"),
    "TrainGeneratorAfterExpPlugin": ({}, "use `--replay generative`"),
}
"""The others, with options and the reason that is given."""


def test_every_plugin_of_avalanches_is_known_to_work_or_to_be_refused() -> None:
    assert {*WORKS, *REFUSED} == {*AVALANCHES}
    assert not {*WORKS} & {*REFUSED}
    assert {name for guest in GUESTS.values() for name in guest.classes} <= {*AVALANCHES}


def learnt(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, stock_data: bool, *used: Any
) -> list[torch.Tensor]:
    """Weights that a copy of the student ends with."""
    copied = copy.deepcopy(student)
    torch.manual_seed(4)
    make_strategy(copied, [Contrary(), *used], stock_data=stock_data).train(make_stream(length=3))
    return [parameter.detach().clone() for parameter in copied.parameters()]


@pytest.mark.parametrize("prefix", ["", "avalanche:"])
@pytest.mark.parametrize("name", WORKS)
def test_a_plugin_of_avalanches_that_is_accepted_changes_the_student(
    name: str, prefix: str, student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    spec = f"{prefix}avalanche.training.plugins:{name}"
    if name == "ReplayPlugin" and not prefix:
        with pytest.raises(extensions.ExtensionError, match=f"use avalanche:{spec}"):
            extensions.build(spec, WORKS[name], SETUP)
        return
    stock = extensions.needs_stock_data(spec)
    plugin = extensions.build(spec, WORKS[name], SETUP)
    with_it = learnt(make_stream, make_strategy, student, stock, plugin)
    without = learnt(make_stream, make_strategy, student, stock)
    assert all(torch.isfinite(weights).all() for weights in with_it)
    assert any(not torch.equal(one, other) for one, other in zip(with_it, without, strict=True))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("name", ["lwf", "ewc"])
def test_weights_that_a_layer_computes_in_each_pass_go_with_plugins_that_copy(
    name: str, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    torch.manual_seed(1)
    student = nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(64, 12)), nn.Tanh(), weight_norm(nn.Linear(12, 10)))
    assert watched(make_stream, make_strategy, student, f"avalanche:{name}", **STRONG.get(name, {})).acted


@pytest.mark.parametrize("name", REFUSED)
def test_a_plugin_of_avalanches_that_cannot_work_is_refused_before_the_first_step(name: str) -> None:
    options, said = REFUSED[name]
    for module in ("avalanche.training.plugins", AVALANCHES[name].__module__):
        for prefix in ("", "avalanche:"):
            with pytest.raises(extensions.ExtensionError) as caught:
                extensions.build(f"{prefix}{module}:{name}", options, SETUP)
            assert said in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_scheduler_of_avalanches_in_a_plugin_of_ones_own_changes_the_rate(
    student: nn.Module, make_stream: MakeStream, make_strategy: MakeStrategy
) -> None:
    spec = f"{__name__}:StepsRate"
    strategy = make_strategy(student, [extensions.build(spec, {}, SETUP)])
    strategy.train(make_stream(length=3))
    assert strategy.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 8)
    with pytest.raises(extensions.ExtensionError, match=r"would do nothing here: .* set reset_lr=False"):
        extensions.build(spec, {"reset_lr": True}, SETUP)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mem_size": 2}, "mem_size = 2 is no more than"),
        ({"batch_size_mem": 4, "subsample": 3}, "subsample = 3 is less"),
    ],
)
def test_retrieval_that_would_bring_nothing_is_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(extensions.ExtensionError, match=said):
        extensions.build("avalanche:mir", options, SETUP)
