"""Configurations: layers in their order, presets, and one line for everything that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lra import __version__
from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.setup.layers import merged, parse_assignment
from lra.benchmarks.setup.presets import presets
from lra.benchmarks.setup.resolution import configuration, read_options, resolve
from lra.benchmarks.sweeps.grid import plan
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

pytestmark = pytest.mark.usefixtures("plain_report")


def test_layers_are_laid_in_order(tmp_path: Path) -> None:
    """Defaults < scale of the data < preset < config file < --set < flag, key by key."""
    assert configuration(replay="none").replay == {"name": "none", "fraction": 0.125}
    assert configuration().schedule.batch_size == 64, "the scale of digits, over PRE-DFKD's 512"
    assert configuration(preset="mb-dfkd/digits").replay["slots"] == 10

    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\nstudent: {lr: 0.2, momentum: 0.5}\nreplay: {slots: 4}\n")
    layered = configuration(preset="mb-dfkd/digits", config=file)
    assert (layered.replay["name"], layered.replay["slots"]) == ("memory", 4)
    assert (layered.seed, layered.student.lr, layered.student.momentum) == (3, 0.2, 0.5)

    layered = configuration(config=file, replay="memory", set=("student.lr=0.3", "seed=4"))
    assert (layered.seed, layered.student.lr, layered.student.momentum) == (4, 0.3, 0.5)
    assert configuration(config=file, replay="memory", set=("seed=4",), seed=5).seed == 5


def test_options_of_a_replay_are_for_the_one_named_in_any_layer() -> None:
    assert configuration(replay="memory", set=("replay.slots=3",)).replay["slots"] == 3
    assert configuration(replay="reservoir", set=("replay.capacity=9",)).replay["capacity"] == 9
    # Another replay than the preset's starts from its own defaults.
    assert configuration(preset="mb-dfkd/digits", replay="none").replay == {"name": "none", "fraction": 0.125}


@pytest.mark.parametrize("method", METHODS)
def test_the_replay_of_the_paper_can_be_named(method: str, tmp_path: Path) -> None:
    """By a flag, a key, a file or in a grid, and in place of a preset's; a configuration says which it is."""
    own = configuration(method=method, replay=METHODS[method].memory).replay
    assert own["name"] == METHODS[method].memory
    file = tmp_path / "run.yaml"
    file.write_text(f"method: {method}\nreplay: paper\n")
    named = [{"replay": "paper"}, {"set": ("replay.name=paper",)}, {"config": file}]
    assert [configuration(method=method, **given).replay for given in named] == [own] * 3
    (planned,) = plan({"method": method, "replay": ["paper", METHODS[method].memory]})
    assert planned.config.replay == own
    assert configuration(method=method, replay="paper", set=("replay.fraction=0.5",)).replay == own | {"fraction": 0.5}


def test_the_replay_of_the_paper_wins_over_that_of_a_preset() -> None:
    assert configuration(preset="lra-gr/digits").replay["name"] == "generative"
    assert configuration(preset="lra-gr/digits", replay="paper").replay["name"] == METHODS["predfkd"].memory


def test_short_forms_stand_for_sections() -> None:
    short = resolve([{"replay": "memory", "meta": True, "data": "digits", "student": "mlp", "teacher": "mlp"}])
    assert short.replay["name"] == "memory"
    assert short.meta.enabled
    assert (short.student.network, short.teacher.network) == ("mlp", "mlp")


@pytest.mark.parametrize("steps", [10, 30, 100, 190, 210, 400, 599])
@pytest.mark.parametrize(
    "options", [{}, {"method": "gdfq"}, {"method": "fast"}, {"dataset": "mnist"}, {"dataset": "cifar10"}]
)
def test_a_budget_in_steps_keeps_twenty_evaluations_or_one_an_experience(options: dict[str, Any], steps: int) -> None:
    config = configuration(**options, steps=steps)
    assert config.evaluations >= min(20, config.schedule.experiences)
    assert resolve([config.tree()]) == config, "stored and run again as it is"


def test_a_budget_of_evaluations_enough_or_a_cadence_that_is_given_stays_as_it_was() -> None:
    assert configuration().evaluation.every == 1
    assert configuration(steps=900).evaluation.every == 1, "30 evaluations, one an epoch"
    assert configuration(method="fast", steps=100).evaluation.every == 1, "one an experience already"
    for said in ("evaluation.every=1", "schedule.experiences_per_epoch=3"):
        assert configuration(steps=100, set=(said,)).evaluations == 4
    stored = configuration().tree()
    assert resolve([stored, {"schedule": {"steps": 100}}]).evaluations == 4, "a stored one says its cadence"


@pytest.mark.parametrize("name", presets())
def test_every_preset_resolves(name: str) -> None:
    config = configuration(preset=name)
    assert config.method == presets()[name]["method"]
    assert presets()[name]["source"]


@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize("method", METHODS)
def test_a_resolved_configuration_is_a_configuration(method: str, replay: str) -> None:
    """Stored and run again as it is, it is the same one with the same hash."""
    config = configuration(method=method, replay=replay, meta=replay != "none", seed=7, set=("plugin.use=[a:B]",))
    again = resolve([yaml.safe_load(yaml.safe_dump(config.tree()))])
    assert again == config
    assert again.fingerprint("0" * 64) == config.fingerprint("0" * 64)


def test_the_fingerprint_names_all_but_seed_and_machine() -> None:
    config = configuration(seed=1, threads=1)
    same = configuration(seed=2, threads=2, device="cuda")
    assert config.fingerprint("a") == same.fingerprint("a")
    others = [configuration(steps=10), configuration(meta=True), configuration(replay="memory")]
    prints = {config.fingerprint("a"), config.fingerprint("b"), *(other.fingerprint("a") for other in others)}
    assert len(prints) == 5
    assert all(len(text) == 8 for text in prints)
    for assignment in ("student.precision=bfloat16", "student.channels_last=true", "data.fit=pad", "data.channels=3"):
        other = configuration(set=[assignment])
        assert other.fingerprint("a") != config.fingerprint("a")
        assert resolve([other.tree()]) == other
    # What the step would be is nothing to a run without it.
    assert configuration(set=["meta.alpha=0.5"]).fingerprint("a") == config.fingerprint("a")
    assert len({configuration(meta=True, set=[f"meta.alpha={a}"]).fingerprint("a") for a in (0.5, 0.6)}) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "predfdk"}, "unknown method 'predfdk'; did you mean 'predfkd'?"),
        ({"replay": "memroy"}, "unknown replay 'memroy'; did you mean 'memory'?"),
        ({"student": "lenet"}, "unknown student.network 'lenet'; did you mean 'lenet5'?"),
        ({"teacher": "lenet"}, "unknown teacher.network 'lenet'; did you mean 'lenet5'?"),
        ({"preset": "mb-dfkd/digit"}, "unknown preset 'mb-dfkd/digit'; did you mean 'mb-dfkd/digits'?"),
        (
            {"preset": "lra-gr/cifar"},
            "did you mean 'lra-gr/cifar100/resnet34-resnet18' or 'lra-gr/cifar10/resnet34-resnet18'?",
        ),
        ({"replay": "gen"}, "unknown replay 'gen'; did you mean 'generative'?"),
        ({"set": ("studen.lr=1",)}, "unknown option 'studen.lr'; did you mean 'student.lr'?"),
        ({"set": ("studen=1",)}, "unknown option 'studen'; did you mean 'student'?"),
        ({"set": ("student.lrr=1",)}, "unknown option 'student.lrr'; did you mean 'student.lr'?"),
        ({"set": ("studnet.lr=1",)}, "unknown option 'studnet.lr'; did you mean 'student.lr'?"),
        (
            {"set": ("student.loss.knd=l1",)},
            "unknown option 'student.loss.knd'; did you mean 'student.loss.kind'?",
        ),
        ({"set": ("replay.slots=3",)}, "unknown option 'replay.slots'"),
        ({"set": ("lr=1",)}, "unknown option 'lr'; did you mean 'teacher.lr' or 'student.lr' or 'schedule.lr'"),
        ({"set": ("student.qqq=1",)}, "unknown option 'student.qqq'; choose from student.network, student.lr"),
        ({"set": ("qqq.www=1",)}, "unknown option 'qqq.www'; choose from method, seed"),
        ({"method": "qqqq"}, "unknown method 'qqqq'; see lra-bench list methods"),
        ({"preset": "qqqq"}, "unknown preset 'qqqq'; see lra-bench list presets"),
        (
            {"set": ("synthesis.one_hott=3",)},
            "unknown option 'synthesis.one_hott'; did you mean 'synthesis.one_hot'?",
        ),
        ({"set": ("student.lr=fast",)}, "student.lr = 'fast': input should be a valid number"),
        ({"set": ("student.lr=nan",)}, "student.lr = 'nan': input should be a finite number"),
        ({"set": ("student.lr=.nan",)}, "student.lr = nan: input should be a finite number"),
        ({"set": ("meta.alpha=-0.1",)}, "meta.alpha = -0.1: input should be greater than or equal to 0"),
        ({"set": ("student.precision=half",)}, "student.precision = 'half'"),
        ({"meta": True, "set": ("meta.batchnorm=both",)}, "meta: batchnorm=both needs statistics=batch"),
        ({"set": ("meta.clip=1", "meta.normalise=true")}, "meta: clip and normalise exclude each other"),
        ({"set": ("schedule.batch_size=0",)}, "schedule.batch_size = 0: input should be greater"),
        ({"set": ("schedule.batch_size=2.5",)}, "schedule.batch_size = 2.5: input should be a valid integer"),
        ({"set": ("student=3",)}, "student.network = 3"),
        ({"set": ("schedule=3",)}, "schedule = 3: a section of options is expected"),
        ({"set": ("method=[1]",)}, "unknown method [1]"),
        ({"set": ("replay.name=[1]",)}, "unknown replay '[1]'"),
        ({"set": ("data.name=[1]",)}, "data.name = [1]"),
        ({"set": ("plugin.use=3",)}, "plugin.use = 3"),
        ({"set": ("student.lr",)}, "write it as section.key=value"),
        ({"set": ("student.lr=[",)}, "the value is not a YAML"),
        ({"replay": "memory", "set": ("replay.fraction=2",)}, "replay.fraction = 2"),
        ({"replay": "memory", "set": ("replay.fraction=0",)}, "replay.fraction = 0: input should be greater"),
        ({"replay": "generative", "set": ("replay.warmup=-1",)}, "replay.warmup = -1: input should be greater"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"steps": 0}, "schedule.steps = 0"),
        ({"threads": 0}, "threads = 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        configuration(**options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.code == 2


@pytest.mark.parametrize(
    "content", [b"a: [1,\n", b"- 1\n- 2\n", b"3", b"", b"\xff\xfe\x00", b"1: 2", b"a: !!python/x 1"]
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        configuration(config=file)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MissingInput) as error:
            read_options(place, "config")
        assert error.value.code == 3
    with pytest.raises(MissingInput):
        configuration(teacher=str(tmp_path / "none.safetensors"))


def test_merging_leaves_both_sides_alone() -> None:
    below, above = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}
    assert merged(below, above) == {"a": {"b": 5, "c": 2}, "d": 3}
    assert below == {"a": {"b": 1, "c": 2}, "d": 3}
    assert above == {"a": {"b": 5}}


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("seed=3", {"seed": 3}),
        ("student.lr=1e-3", {"student": {"lr": "1e-3"}}),
        ("student.loss.kind=kl", {"student": {"loss": {"kind": "kl"}}}),
        ("teacher.mean=[0.1, 0.2]", {"teacher": {"mean": [0.1, 0.2]}}),
        ("data.test=false", {"data": {"test": False}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
    ],
)
def test_assignments_are_read_as_yaml(text: str, tree: dict[str, Any]) -> None:
    assert parse_assignment(text) == tree


def test_numbers_in_scientific_notation_are_numbers() -> None:
    assert configuration(set=("student.lr=1e-3",)).student.lr == 1e-3


def test_errors_have_the_exit_codes_of_the_design() -> None:
    from lra.benchmarks.errors import Resumable

    assert [kind.code for kind in (LraError, UsageError, MissingInput, Resumable)] == [1, 2, 3, 75]


def test_a_wrong_key_is_said_to_be_of_its_file_and_version(tmp_path: Path, lra_bench: Callable[..., Any]) -> None:
    (tmp_path / "config.yaml").write_text("method: dafl\nstudent: {lrr: 1}\n")
    file = tmp_path / "config.yaml"
    said = f"config {file}: unknown option 'student.lrr'; did you mean 'student.lr'?"
    assert said in lra_bench("run", "--config", file).err
    flagged = lra_bench("run", "--config", file, "--set", "student.lrr=2").err
    assert str(file) not in flagged, "the flag lies over the file"
    (tmp_path / "env.json").write_text('{"versions": {"lra": "0.0.9"}}')
    for command in (["run", "--config", file], ["resume", tmp_path]):
        done = lra_bench(*command)
        assert done.code == 2
        assert f"config {file} (written by lra 0.0.9, and this is {__version__}): unknown option" in done.err


WRONG = [
    ({"student.lrr": 1}, "unknown option 'student.lrr'"),
    ({"student.lr": "much"}, "student.lr = 'much'"),
    ({"schedule": 3}, "schedule = 3: a section of options"),
    ({"method": "fats"}, "unknown method 'fats'"),
    ({"replay": "memroy"}, "unknown replay 'memroy'"),
    ({"preset": "fats"}, "unknown preset 'fats'"),
    ({"scale": "fats"}, "unknown scale 'fats'"),
    ({"student": "resnt18"}, "unknown student.network 'resnt18'"),
    ({"data": "minst"}, "unknown data set 'minst'"),
    ({"data": "npz:/none.npz"}, "data file /none.npz does not exist"),
]
FLAGS = {"method", "replay", "preset", "student"}


@pytest.mark.parametrize(("wrong", "said"), WRONG)
@pytest.mark.parametrize("kind", ["config", "grid", "tasks"])
def test_what_is_wrong_in_a_file_is_said_with_its_name(
    kind: str, wrong: dict[str, Any], said: str, lra_bench: Callable[..., Any], tmp_path: Path
) -> None:
    file, place = tmp_path / "own.yaml", ""
    if kind == "config":
        ((key, value),) = wrong.items()
        section, _, inner = key.partition(".")
        tree: dict[str, Any] = {section: {inner: value} if inner else value}
        command: list[object] = ["run", "--config", file]
    else:
        ((key, value),) = wrong.items()
        flag = "dataset" if key == "data" else key
        tree = {flag: value} if flag in {*FLAGS, "dataset"} else {"set": {key: value}}
        command = ["sweep" if kind == "grid" else "tasks", file, "--out", tmp_path / "out"]
        if kind == "tasks":
            tree, place = tree | {"tasks": [{"name": "one"}]}, "task 'one': "
    file.write_text(yaml.safe_dump(tree))
    done = lra_bench(*command)
    assert done.code in (2, 3)
    assert f"lra-bench: {kind} {file}: {place}{said}" in done.err


def test_what_is_wrong_in_a_preset_or_before_it_is_said_with_its_name(tmp_path: Path) -> None:
    """Settings of one method, which a flag replaces by another."""
    file, name = tmp_path / "own.yaml", "pre-dfkd/cifar10/resnet34-resnet18"
    file.write_text(yaml.safe_dump({"preset": name, "method": "dafl"}))
    for options in ({"preset": name, "method": "dafl"}, {"config": file}):
        with pytest.raises(UsageError, match=rf"^preset '{name}': unknown option 'synthesis\.bn_eps'"):
            configuration(**options)
    with pytest.raises(UsageError, match=r"^unknown option 'synthesis\.bn_eps'"):
        configuration(preset=name, method="dafl", set=("synthesis.bn_eps=1",))
    with pytest.raises(UsageError, match=r"^unknown preset 'oldest'"):
        configuration(config=file, preset="oldest")


def test_what_was_given_beside_a_file_of_tasks_is_said_with_it(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("tasks: [{dataset: digits}]\n")
    done = lra_bench("tasks", file, "--carry", "generatr", "--seed", "3")
    assert f"lra-bench: tasks {file} with --seed 3 --carry generatr: carry = 'generatr'" in done.err


def test_tasks_gone_on_with_name_their_record_and_the_version_that_wrote_it(
    lra_bench: Callable[..., Any], tmp_path: Path
) -> None:
    file = {"tasks": [{"name": "one", "dataset": "digits", "set": {"student.lrr": 1}}]}
    record = tmp_path / "tasks.json"
    record.write_text(json.dumps({"schema": 1, "lra": "0.0.9", "file": file, "chains": []}))
    done = lra_bench("resume", tmp_path)
    assert f"tasks {record} (written by lra 0.0.9, and this is {__version__}): task 'one': unknown option" in done.err
