"""Paths as users write them: from any folder, with ~, commas, and from elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lra.benchmarks.errors import UsageError
from lra.benchmarks.increment.configuration import configuration as increment
from lra.benchmarks.runs.run_folder import RunFolder
from lra.benchmarks.setup.datasets import data_set
from lra.benchmarks.setup.places import data_kind, data_label, placed, placed_data
from lra.benchmarks.setup.resolution import configuration, read_options
from lra.benchmarks.setup.teachers import cached_path
from lra.benchmarks.sweeps.grid import plan
from lra.benchmarks.tasks import task_file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, which is the user's home too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def arrays(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(file, images=images, labels=np.arange(20) % 4)
    return file


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("npz:a.npz", "npz:{}/a.npz"),
        ("npz:./sub/../a.npz", "npz:{}/a.npz"),
        ("npz:~/a.npz", "npz:{}/a.npz"),
        ("npz:~/a.npz,~/b.npz", "npz:{}/a.npz,{}/b.npz"),
        ("npz:with,comma.npz", "npz:{}/with,comma.npz"),
        ("npz:a.npz,with,comma.npz", "npz:{}/a.npz,{}/with,comma.npz"),
        ("npz:with,comma.npz,a.npz", "npz:{}/with,comma.npz,{}/a.npz"),
        ("npz:none.npz", "npz:{}/none.npz"),
        ("npz:none.npz,nor.npz", "npz:{}/none.npz,{}/nor.npz"),
        ("npz:~/m-{split}.npz", "npz:{}/m-{split}.npz"),
        ("imagefolder:~/my shapes", "imagefolder:{}/my shapes"),
        ("imagefolder:my shapes", "imagefolder:{}/my shapes"),
        ("digits", "digits"),
        ("tiny-imagenet", "tiny-imagenet"),
    ],
)
def test_a_name_means_the_same_from_any_folder(here: Path, name: str, found: str) -> None:
    for file in ("a.npz", "b.npz", "with,comma.npz"):
        arrays(here / file)
    (here / "my shapes").mkdir()
    absolute = placed_data(name, [Path()])
    assert absolute == found.replace("{}", str(here))
    assert placed_data(absolute, [Path("/")]) == absolute, "what is absolute stays as it is"


def test_the_arrays_behind_a_comma_are_read(here: Path) -> None:
    arrays(here / "my,train.npz", seed=1), arrays(here / "my,test.npz", seed=2)
    data = data_set("npz:my,train.npz,my,test.npz")
    for split in ("train", "test"):
        expected = np.load(here / f"my,{split}.npz")["images"]
        assert torch.equal(data.load(split)[0][:, 0], torch.from_numpy(expected))


def test_a_link_before_dots_is_followed(here: Path) -> None:
    """``link/..`` is the folder above where the link leads, and not the one it lies in."""
    (here / "far" / "away").mkdir(parents=True)
    (here / "link").symlink_to(here / "far" / "away")
    assert placed("link/../x", "path", [Path()]) == str(here / "far" / "x")


WINDOWS, URL = "is a Windows path", "is a URL"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", r"npz:C:\data\x.npz"], WINDOWS),
        (["--dataset", r"C:\data\x.npz"], WINDOWS),
        (["--dataset", r"imagefolder:\\server\share"], WINDOWS),
        (["--dataset", "npz:https://host/x.npz"], URL),
        (["--dataset", "npz:a.npz,s3://bucket/x.npz"], URL),
        (["--dataset", "imagefolder:https://host/x.zip"], URL),
        (["--dataset", "https://host/x.zip"], URL),
        (["--dataset", "a.npz"], "is a file: write npz:a.npz"),
        (["--dataset", "./sub"], "is a folder: write imagefolder:./sub"),
        (["--dataset", "npz:sub"], "is a folder: write imagefolder:"),
        (["--dataset", "imagefolder:a.npz"], "is a file: write npz:a.npz"),
        (["--teacher", "https://host/t.pt"], URL),
        (["--teacher", r"C:\models\t.pt"], WINDOWS),
        (["--teacher", "sub"], "is a folder"),
        (["--set", r"teacher.file=D:\t.pt"], WINDOWS),
        (["--set", "teacher.file=http://host/t.pt"], URL),
        (["--set", "carry.generator=https://host/generator.safetensors"], URL),
        (["--set", r"carry.replay=C:\replay.pt"], WINDOWS),
        (["--out", "https://host/runs"], URL),
        (["--out", r"C:\runs"], WINDOWS),
        (["--config", "https://host/run.yaml"], URL),
        (["--config", "C:/run.yaml"], WINDOWS),
    ],
)
def test_what_is_no_path_here_is_named_for_what_it_is(
    lra_bench: Callable[..., Any], here: Path, arguments: list[str], said: str
) -> None:
    arrays(here / "a.npz")
    (here / "sub").mkdir()
    before = sorted(here.rglob("*"))
    done = lra_bench("run", *arguments)
    assert (done.code, done.out) == (2, ""), done
    assert said in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["sweep", "tasks", "resume", "report", "teacher check", "export"])
def test_no_command_takes_a_url_for_a_path(lra_bench: Callable[..., Any], here: Path, command: str) -> None:
    done = lra_bench(*command.split(), "https://host/file")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done
    assert URL in done.err
    assert list(here.iterdir()) == []


def test_home_is_expanded_in_options(lra_bench: Callable[..., Any], here: Path, tiny: list[str]) -> None:
    (here / "run.yaml").write_text("seed: 3\n")
    done = lra_bench("run", *tiny, "--config=~/run.yaml", "--out=~/runs", "--set", "data.test=false", "--json")
    assert done.code == 0, done.err
    folder = Path(json.loads(done.out)["run_dir"])
    assert folder.is_relative_to(here / "runs")
    assert folder.name == "seed-3"
    # Avalanche makes a folder of its own when it is first imported.
    assert {path.name for path in here.iterdir()} - {".avalanche"} == {"run.yaml", "runs"}


def test_a_relative_path_in_a_file_counts_from_its_folder(here: Path) -> None:
    arrays(here / "project" / "own.npz"), arrays(here / "typed.npz")
    (here / "project" / "t.safetensors").write_bytes(b"weights")
    file = here / "project" / "run.yaml"
    file.write_text("data: 'npz:own.npz'\nteacher: {file: t.safetensors}\ncarry: {generator: none.safetensors}\n")
    config = configuration(config=file)
    assert config.data.name == f"npz:{here}/project/own.npz"
    assert config.teacher.file == str(here / "project" / "t.safetensors")
    assert config.carry is not None
    assert config.carry.generator == str(here / "project" / "none.safetensors")
    # What is typed, and what an earlier version stored, counts from the working directory.
    assert configuration(config=file, dataset="npz:typed.npz").data.name == f"npz:{here}/typed.npz"
    file.write_text("data: 'npz:typed.npz'\n")
    assert configuration(config=file).data.name == f"npz:{here}/typed.npz"


def test_so_it_does_in_grids_and_tasks(here: Path) -> None:
    arrays(here / "project" / "own.npz")
    (here / "project" / "base.yaml").write_text("seed: 4\n")
    runs = plan({"dataset": ["npz:own.npz", "npz:./own.npz", "digits"], "config": "base.yaml"}, here / "project")
    assert [run.config.data.name for run in runs] == [f"npz:{here}/project/own.npz", "digits"]
    assert {run.config.seed for run in runs} == {4}
    found = task_file.plan({"tasks": [{"dataset": "npz:own.npz"}]}, here / "project")
    assert found.chains[0].at(0).data.name == f"npz:{here}/project/own.npz"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("npz:/a/very/long/place/train.npz,/a/very/long/place/shapes.npz", "shapes"),
        ("npz:/data/mnist-{split}.npz", "mnist"),
        ("npz:/data/{split}.npz", "npz"),
        ("imagefolder:/data/my shapes", "my shapes"),
        ("digits", "digits"),
    ],
)
def test_a_folder_is_named_after_the_data_and_not_their_place(name: str, label: str) -> None:
    assert data_label(name) == label
    assert data_kind(name) == name.partition(":")[0]


def test_the_same_arrays_have_the_same_teacher_wherever_they_lie(here: Path) -> None:
    names = [("a", "x.npz"), ("b", "y.npz")]
    for folder, file in names:
        arrays(here / folder / "train.npz", seed=1), arrays(here / folder / file, seed=2)
    configs = [configuration(dataset=f"npz:{folder}/train.npz,{folder}/{file}") for folder, file in names]
    keys = {cached_path(config.teacher, data_set(config.data.name)).stem.rpartition("-")[2] for config in configs}
    assert len(keys) == 1
    arrays(here / "a" / "train.npz", seed=3)
    again = cached_path(configs[0].teacher, data_set(configs[0].data.name)).stem.rpartition("-")[2]
    assert again not in keys, "other arrays under the same name"


def test_increments_are_told_apart_by_content(here: Path) -> None:
    folders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        arrays(here / name / "train.npz", seed), arrays(here / name / "test.npz", seed)
        config = increment({"benchmark": f"split-npz:{name}/train.npz,{name}/test.npz", "experiences": 2}, (), False)
        assert config.benchmark == f"split-npz:{here}/{name}/train.npz,{here}/{name}/test.npz"
        folders.append(RunFolder.of(config.label, config.identity(), config.seed, here).path)
    assert folders[0] == folders[1]
    assert folders[0] != folders[2]
    assert folders[0].parts[-3] == "increment-split-test-generative"


def test_a_stored_configuration_has_no_relative_paths(
    lra_bench: Callable[..., Any], here: Path, tiny: list[str]
) -> None:
    arrays(here / "own.npz")
    done = lra_bench("run", *tiny, "--dataset", "npz:own.npz", "--dry-run", "--no-timing")
    assert yaml.safe_load(done.out)["data"]["name"] == f"npz:{here}/own.npz"
    with pytest.raises(UsageError, match="not YAML"):
        read_options(arrays(here / "b.npz"), "config")
