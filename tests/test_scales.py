"""Defaults that fit the data, whatever their name: scales, presets on other data, and the default replay."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lra.benchmarks.comparison.compare import published
from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import flatten, read_run
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.setup.config import RunConfig, TeacherOptions
from lra.benchmarks.setup.datasets import DATASETS
from lra.benchmarks.setup.presets import PUBLISHED, Facts, announced, chosen_of, presets, scale_for, scales, unlike
from lra.benchmarks.setup.resolution import configuration, resolve
from lra.benchmarks.sweeps.grid import plan
from lra.features import batchnorm_layers
from lra.networks import build
from lra.problem import Teacher
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

SHAPES = {"grey": (1, 28, 28), "colour": (3, 32, 32), "medium": (3, 64, 64), "large": (3, 224, 224)}


def arrays(folder: Path, image: tuple[int, int, int], classes: int = 10, tests: int = 20) -> str:
    """A data set of noise in two files, as ``--dataset`` takes it."""
    channels, height, width = image
    for split, count in (("train", 3 * classes), ("test", tests)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
        np.savez(folder / f"{split}.npz", images=pixels, labels=np.arange(count) % classes)
    return f"npz:{folder / 'train.npz'},{folder / 'test.npz'}"


def pictures(folder: Path, image: tuple[int, int, int]) -> str:
    """The same as a folder of pictures."""
    from PIL import Image

    channels, height, width = image
    for split, name, number in product(("train", "test"), ("cat", "dog"), range(3)):
        place = folder / "pictures" / split / name
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).save(place / f"{number}.png")
    return f"imagefolder:{folder / 'pictures'}"


def without(config: RunConfig, *sections: str) -> dict[str, Any]:
    return {key: value for key, value in config.tree().items() if key not in sections}


@pytest.mark.parametrize("method", METHODS)
def test_small_grey_pictures_get_what_mnist_gets(method: str, tmp_path: Path) -> None:
    mnist = configuration(method=method, dataset="mnist")
    assert without(configuration(method=method, dataset="fashion-mnist"), "data") == without(mnist, "data")
    many = configuration(method=method, dataset=arrays(tmp_path, (1, 28, 28), tests=2001))
    assert without(many, "data") == without(mnist, "data")
    # Few test images stand for few to train on, and cost little to test on: the teacher learns longer.
    few = configuration(method=method, dataset=arrays(tmp_path, (1, 28, 28), tests=20))
    apart = ("data", "scale", "teacher", "evaluation")
    assert without(few, *apart) == without(mnist, *apart)
    assert few.teacher.network == mnist.teacher.network
    assert few.teacher.epochs > mnist.teacher.epochs or METHODS[method].name in ("aeahl-rg", "gdfq")


@pytest.mark.parametrize(("name", "image"), SHAPES.items())
@pytest.mark.parametrize("make", [arrays, pictures])
def test_the_form_of_the_data_says_the_scale(
    make: Callable[[Path, tuple[int, int, int]], str], name: str, image: tuple[int, int, int], tmp_path: Path
) -> None:
    found = configuration(dataset=make(tmp_path, image))
    assert found.scale is not None
    assert found.scale.startswith(name)
    assert found.schedule.student_steps <= 3000
    assert found.teacher.network != "resnet34"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", DATASETS)
def test_nothing_defaults_to_a_published_cell(data: str, method: str) -> None:
    """On a processor nobody gets a budget of GPU days without having asked for it."""
    found = configuration(dataset=data, method=method)
    assert found.scale in scales()
    assert found.schedule.student_steps * found.schedule.batch_size <= 3000 * 128
    assert {found.teacher.network, found.student.network}.isdisjoint({"resnet34", "resnet18"})
    published = configuration(dataset=data, method=method, set=(f"scale={PUBLISHED}",))
    assert published.schedule.epochs == METHODS[method].defaults["schedule"]["epochs"]
    assert published.teacher.network == "resnet34"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (Facts((1, 16, 16), 16, 10, 360, "cpu"), "digits"),
        (Facts((1, 32, 32), 16, 10, 360, "cpu"), "digits"),
        (Facts((1, 16, 16), 16, 10, None, "cpu"), "grey"),
        (Facts((1, 16, 16), 28, 10, 10_000, "cpu"), "grey"),
        (Facts((1, 20, 32), 32, 62, 100_000, "cuda"), "grey"),
        (Facts((1, 28, 28), 28, 10, 2000, "cpu"), "grey-few"),
        (Facts((3, 32, 32), 32, 10, 10_000, "cpu"), "colour"),
        (Facts((4, 8, 8), 8, 2, None, "cpu"), "colour"),
        (Facts((3, 32, 32), 224, 10, 100, "cpu"), "colour-few"),
        (Facts((3, 32, 32), 32, 100, 10_000, "cpu"), "colour-many"),
        (Facts((3, 32, 32), 32, 10, 10_000, "cuda:1"), "colour-gpu"),
        (Facts((3, 32, 33), 33, 10, 10_000, "cpu"), "medium"),
        (Facts((1, 96, 96), 96, 10, 10_000, "cuda"), "medium"),
        (Facts((3, 224, 97), 97, 10, 10_000, "cpu"), "large"),
        (Facts((1, 224, 224), 224, 10, 10_000, "cpu"), "large-other"),
    ],
)
def test_the_first_scale_that_fits_is_taken(facts: Facts, name: str) -> None:
    assert scale_for(facts).name == name


def test_any_data_have_a_scale() -> None:
    sides, counts = (1, 8, 16, 17, 32, 33, 96, 97, 1000), (None, 0, 2000, 2001)
    for channels, side, own, classes, tests, device in product(
        (1, 2, 3, 4, 16), sides, sides, (1, 20, 21, 1000), counts, ("cpu", "cuda", "mps")
    ):
        scale_for(Facts((channels, side, side), own, classes, tests, device))


@pytest.mark.parametrize("name", scales())
def test_a_scale_serves_every_method_with_every_replay(name: str) -> None:
    """Its networks can be built for its largest pictures, and a method that reads BatchNorm has a teacher with some."""
    side = min(scales()[name].fits.get("side", 128), 128)
    image = (scales()[name].fits.get("channels", 3), side, side)
    networks: dict[str, Any] = {}
    for method, replay in product(METHODS, REPLAYS):
        config = resolve([{"method": method, "replay": replay, "scale": name}])
        for network in (config.teacher.network, config.student.network):
            if network not in networks:
                networks[network] = build(network, 10, image).eval()
        if METHODS[method].Options.model_validate(config.synthesis).model_dump().get("bn", 0) > 0:
            assert batchnorm_layers(Teacher(networks[config.teacher.network]), image), (method, config.teacher.network)
        assert config.synthesis.get("images", 0) <= 8 * config.schedule.batch_size
    with torch.no_grad():
        assert all(network(torch.zeros(1, *image)).shape == (1, 10) for network in networks.values())


def test_a_scale_can_be_asked_for(tmp_path: Path) -> None:
    config = configuration(dataset=arrays(tmp_path, (3, 224, 224)), set=("scale=colour",))
    assert (config.scale, config.teacher.network) == ("colour", "wrn16-1")
    assert "for which large would be" in list(announced(config))[1]
    with pytest.raises(UsageError, match="unknown scale 'colr'; did you mean 'colour'"):
        configuration(set=("scale=colr",))


def test_size_device_and_preset_are_seen_in_any_layer(tmp_path: Path) -> None:
    data = arrays(tmp_path, (3, 224, 224), tests=2001)
    assert configuration(dataset=data).scale == "large"
    assert configuration(dataset=data, set=("data.size=32",)).scale == "colour"
    assert configuration(dataset=data, set=("data.size=32",), device="cuda").scale == "colour-gpu"
    file = tmp_path / "run.yaml"
    file.write_text("preset: mb-dfkd/digits\ndata: {size: 8}\n")
    found = configuration(config=file)
    assert (found.preset, found.scale, found.replay["name"]) == ("mb-dfkd/digits", "digits", "memory")


@pytest.mark.parametrize("name", [name for name, preset in presets().items() if preset["source"] == "ours"])
def test_a_preset_whose_settings_would_be_lost_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        configuration(preset=name, dataset=arrays(tmp_path, (1, 28, 28)))
    said = str(error.value)
    assert said.startswith(f"preset {name!r} is for digits")
    assert f"--method {presets()[name]['method']}" in said
    assert "\n" not in said
    # Another form of digits has the same scale, so nothing is lost.
    assert configuration(preset=name, dataset="digits-turned").scale == "digits"


@pytest.mark.parametrize("name", [name for name, preset in presets().items() if preset["source"] != "ours"])
def test_a_published_cell_lies_over_no_scale_and_says_what_was_replaced(name: str) -> None:
    config = configuration(preset=name)
    assert (config.scale, config.preset) == (PUBLISHED, name)
    assert not any("in place of" in line for line in announced(config))
    other = configuration(preset=name, dataset="digits", student="mlp", teacher="lenet5-bn")
    apart = ("data", "student", "teacher")
    assert without(other, *apart) == without(config, *apart), "all other settings stay"
    data, teacher, student = config.data.name, config.teacher.network, config.student.network
    wanted = [
        f"data digits in place of {data}",
        f"student mlp in place of {student}",
        f"lenet5-bn in place of {teacher}",
    ]
    said = " ".join(announced(other))
    assert all(words in said for words in wanted)


def test_a_teachers_file_of_another_network_than_the_presets_is_said() -> None:
    name = "dafl/cifar10/wrn40-2-wrn16-1"
    given = configuration(preset=name).model_copy(update={"teacher": TeacherOptions(file="weights.pt")})
    assert "teacher wrn16-2 in place of wrn40-2" in unlike(given, "wrn16-2")
    assert unlike(given, "WRN40_2") == ""
    assert unlike(configuration(preset=name), "wrn40-2") == ""
    assert unlike(configuration(), "lenet5") == ""


@pytest.mark.parametrize("method", METHODS)
def test_the_default_replay_is_the_retention_of_the_method(method: str, tmp_path: Path) -> None:
    own = METHODS[method].retention
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"method": method}))
    grid = plan({"method": method})
    for config in (configuration(method=method), configuration(config=file), grid[0].config):
        assert config.replay["name"] == own
    assert configuration(method=method, replay="none").replay["name"] == "none"
    # Options of a replay that is not named are for the default one.
    if own != "none":
        assert configuration(method=method, set=("replay.fraction=0.5",)).replay["fraction"] == 0.5


def test_online_generators_replay_a_reservoir_and_the_methods_that_keep_images_a_pool() -> None:
    replays = {name: configuration(method=name).replay["name"] for name in METHODS}
    makers = {name for name, method in METHODS.items() if method.memory == "pool"}
    assert {name for name, replay in replays.items() if replay == "pool"} == makers
    # A control shows what happens without retention; a quantised student starts as a copy of its teacher.
    assert {name for name, replay in replays.items() if replay == "none"} == {"fixed", "gdfq"}
    assert all(replay == "reservoir" for name, replay in replays.items() if name not in makers | {"fixed", "gdfq"})


@pytest.mark.parametrize("name", presets())
def test_a_preset_has_the_replay_of_its_paper_unless_it_names_one(name: str) -> None:
    tree = presets()[name]
    method, told = METHODS[tree["method"]], tree.get("replay", {})
    named = told if isinstance(told, str) else told.get("name", method.memory)
    assert configuration(preset=name).replay["name"] == named
    assert configuration(preset=name, replay="reservoir").replay["name"] == "reservoir"


def test_published_settings_have_the_replay_of_the_paper() -> None:
    assert configuration(method="dafl", set=("scale=published",)).replay["name"] == "none"
    assert configuration(method="predfkd", set=("scale=published",)).replay["name"] == "generative"


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("replay", REPLAYS)
@pytest.mark.parametrize("method", METHODS)
def test_the_first_line_says_what_is_replayed(method: str, replay: str, meta: bool) -> None:
    if meta and replay == "none":
        return
    first = next(announced(configuration(method=method, replay=replay, meta=meta)))
    assert first.startswith(f"method {method}, replay {replay}")
    own, default = METHODS[method].memory, METHODS[method].retention
    assert ("as in its paper" in first) == (replay == own)
    assert ("the default" in first) == (replay == default != own)
    assert ("LRA step" in first) == meta


def test_a_method_for_quantised_copies_says_so_of_a_student_from_scratch() -> None:
    def said(**asked: Any) -> str:
        return "\n".join(announced(configuration(**asked)))

    assert "method gdfq: its settings are for a quantised copy" in said(method="gdfq")
    assert "quantised copy" not in said(method="gdfq", set=("quantization={}",))
    assert "quantised copy" not in said(method="dafl")


def test_the_lra_step_without_a_replay_is_refused(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    file, grid, tasks = tmp_path / "run.yaml", tmp_path / "grid.yaml", tmp_path / "tasks.yaml"
    file.write_text("replay: none\nmeta: true\n")
    grid.write_text("replay: none\nmeta: true\n")
    tasks.write_text("replay: none\nmeta: true\ntasks: [{dataset: digits}]\n")
    for arguments in (
        ("run", "--replay", "none", "--meta"),
        ("run", "--replay", "none", "--meta", "--dry-run"),
        ("run", "--method", "fixed", "--meta"),
        ("run", "--config", file),
        ("run", "--replay", "none", "--set", "meta.enabled=true"),
        ("run", "--preset", "finetune/digits", "--meta"),
        ("run", "--preset", "lra-gr/digits", "--replay", "none"),
        ("quantize", "--meta"),
        ("sweep", grid),
        ("tasks", tasks),
    ):
        where = ("--out", tmp_path / "out") if arguments[0] != "quantize" else ("--dry-run",)
        done = lra_bench(*arguments, *where)
        assert (done.code, done.out) == (2, ""), arguments
        assert len(done.err.splitlines()) == 1
        assert "replay" in done.err
        assert not (tmp_path / "out").exists()
    # Axes that meet there leave the combination out, as ever.
    assert len(plan({"replay": ["none", "memory"], "meta": [False, True]})) == 3


def test_what_a_run_stored_is_read_without_its_data(tmp_path: Path) -> None:
    """A scale is chosen once: what became of it, or of the data, since then is nothing to a stored configuration."""
    config = configuration(dataset=arrays(tmp_path, (3, 32, 32)), seed=3)
    stored = config.tree()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    for split in ("train", "test"):
        (tmp_path / f"{split}.npz").unlink()
    assert stored_configuration(tmp_path) == config
    with pytest.raises(MissingInput):
        configuration(dataset=config.data.name)
    # From before there were scales to choose from, and with a step that was inert.
    old = {key: value for key, value in stored.items() if key != "scale"} | {"replay": {"name": "none"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old | {"meta": True}))
    again = stored_configuration(tmp_path)
    assert again.scale is None
    assert without(again, "replay", "meta") == without(config, "scale", "replay", "meta")
    assert again.fingerprint("a") == again.model_copy(update={"scale": "colour", "preset": "x"}).fingerprint("a")


def test_lists_say_the_scales(lra_bench: Callable[..., Any]) -> None:
    listed = lra_bench("list", "scales").out
    assert all(scale.summary in listed for scale in scales().values())
    for line in lra_bench("list", "datasets").out.splitlines():
        name = line.split()[0]
        if name in DATASETS:
            assert f"scale {configuration(dataset=name).scale}" in line


LRA_CELLS = {  # μ, σ², max on CIFAR-100: Patel et al., CVPR 2023, table 2.
    "mb-dfkd": (66.05, 207.29, 76.14),
    "pre-dfkd": (70.23, 86.63, 76.93),
    "lra-mb": (69.87, 75.67, 77.11),
    "lra-gr": (71.49, 60.17, 77.21),
}


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize("cell", LRA_CELLS)
def test_the_cells_of_lra(cell: str, data: str) -> None:
    """What the specification of the release says: batch, rounds, rates; twice the steps at half the batch for LRA."""
    name = f"{cell}/{data}/resnet34-resnet18"
    config = configuration(preset=name)
    assert (config.data.name, config.teacher.network, config.student.network) == (data, "resnet34", "resnet18")
    ours = cell.startswith("lra")
    assert (config.schedule.student_steps, config.schedule.batch_size) == ((288_000, 512) if ours else (144_000, 1024))
    assert config.meta.enabled == ours
    assert config.replay["name"] == ("memory" if cell.endswith("mb") or cell == "mb-dfkd" else "generative")
    if ours:
        assert (config.meta.mixture, config.meta.alpha_rate, config.meta.objective) == ("sum", 0, "paper")
        assert "meta.alpha" in chosen_of(name), "as released, 0.9, it sends training to chance"
    # What is said and what is chosen do not overlap, and each takes effect.
    said = dict(flatten({k: v for k, v in presets()[name].items() if k not in ("chosen", "source", "data", "method")}))
    chosen, found = dict(flatten(presets()[name]["chosen"])), dict(flatten(config.tree()))
    assert not said.keys() & chosen.keys()
    assert all(found[key] == value for key, value in (said | chosen).items() if key != "teacher")


@pytest.mark.parametrize("cell", LRA_CELLS)
def test_the_numbers_of_lras_paper_stand_beside_ours(cell: str, tmp_path: Path) -> None:
    def group(config: RunConfig) -> Group:
        networks = {key: {"name": getattr(config, key).network} for key in ("teacher", "student")}
        (tmp_path / "result.json").write_text(json.dumps(networks | {"dataset": config.data.name}))
        return Group(dict(flatten(config.tree())), {0: read_run(tmp_path)})

    beside = group(configuration(preset=f"{cell}/cifar100/resnet34-resnet18"))
    found = [published(beside, column) for column in ("mean", "variance", "max", "accuracy", "forgetting")]
    mean, variance, best = LRA_CELLS[cell]
    source = "LRA paper"
    assert found == [(mean, source), (variance, source), (best, source), (best, source), None]
    other = configuration(preset=f"{cell}/cifar100/resnet34-resnet18", student="wrn16-1")
    assert published(group(other), "mean") is None
