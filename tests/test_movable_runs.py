"""Runs that are moved, and what they are made of too: gone on with from any folder, told apart by content."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lra.benchmarks.comparison.groups import grouped
from lra.benchmarks.files import sha256
from lra.benchmarks.records import read_run
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.setup.teachers import cache_folder

pytestmark = pytest.mark.usefixtures("plain_report")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with arrays, pictures and a teacher of the arrays."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for split in ("train", "test"):
        images, labels = shapes(split == "test")
        np.savez(folder / f"my-{split}.npz", images=images, labels=labels)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / "my shapes" / split / "abcd"[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    return folder


def shapes(other: bool) -> tuple[np.ndarray, np.ndarray]:
    """Four classes that are easy to tell: the quarter of the picture that is bright."""
    random, labels = np.random.default_rng(other), np.arange(40) % 4
    images = random.integers(0, 80, (40, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 150
    return images, labels


@pytest.fixture
def run(lra_bench: Callable[..., Any], tiny: list[str]) -> Callable[..., Path]:
    """Do a short run; gives its folder, absolute."""

    def do(*options: object) -> Path:
        settings = ("--set", "evaluation.samples=0", "--set", "teacher.epochs=30", "--steps", "4")
        done = lra_bench("run", "--json", *tiny, *settings, *options)
        assert done.code == 0, done.err
        return Path(json.loads(done.out)["run_dir"]).absolute()

    return do


def half_done(folder: Path) -> Path:
    (folder / "result.json").unlink()
    return folder


def teacher_of(folder: Path) -> Path:
    """The file in the cache of a run's teacher."""
    wanted = json.loads((folder / "teacher.json").read_text())["sha256"]
    return next(path for path in cache_folder().glob("*.safetensors") if sha256(path) == wanted)


def away(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to another working folder."""
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("data", ["npz:my-train.npz,my-test.npz", "npz:my-{split}.npz", "imagefolder:my shapes"])
def test_a_run_on_own_data_goes_on_from_any_folder(
    run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    folder = run("--dataset", data)
    lines = (folder / "metrics.jsonl").read_bytes()
    elsewhere = away(here.parent / "elsewhere", monkeypatch)
    half_done(folder)
    assert lra_bench("resume", folder).code == 0
    assert (folder / "metrics.jsonl").read_bytes() == lines
    assert lra_bench("report", folder).code == 0
    done = lra_bench("run", "--json", "--config", folder / "config.yaml")
    assert done.code == 0, done.err
    again = elsewhere / json.loads(done.out)["run_dir"]
    assert again.parts[-3:] == folder.parts[-3:]
    assert (again / "metrics.jsonl").read_bytes() == lines
    # Moved as a whole, and a single folder of it alone.
    moved = shutil.move(here / "runs", elsewhere / "moved")
    inside = half_done(Path(moved) / folder.relative_to(here / "runs"))
    assert lra_bench("resume", inside).code == 0
    alone = half_done(Path(shutil.move(inside, elsewhere / "alone")))
    done = lra_bench("resume", "alone", "--json")
    assert done.code == 0, done.err
    assert Path(json.loads(done.out)["run_dir"]) == alone
    assert json.loads(done.out)["config_hash"] == folder.parent.name
    assert lra_bench("report", "alone").code == 0


@pytest.mark.parametrize("data", ["npz:my-train.npz,my-test.npz", "npz:my-{split}.npz"])
def test_with_a_teachers_file_a_run_needs_no_training_images(
    run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path, data: str
) -> None:
    """They may be gone before it, or half-way: it is the same run."""
    shutil.copy(teacher_of(run("--dataset", data)), here / "t.safetensors")
    given = ("--dataset", data, "--set", "teacher.file=t.safetensors", "--set", "teacher.network=auto")
    folder = run(*given)
    lines = (folder / "metrics.jsonl").read_bytes()
    half_done(folder)
    (here / "my-train.npz").rename(here / "gone")
    done = lra_bench("resume", folder)
    assert done.code == 0, done.err
    assert "my-train.npz is not there: the 4 classes are those that" in done.err
    assert (folder / "metrics.jsonl").read_bytes() == lines
    assert run(*given) == folder, "finished before"
    assert run(*given, "--out", here / "other").parent.name == folder.parent.name
    assert lra_bench("export", folder).code == 0
    refused = lra_bench("run", "--dataset", data, "--teacher", "mlp", "--set", "teacher.epochs=1", "--steps", "1")
    assert (refused.code, "my-train.npz does not exist" in refused.err) == (3, True)
    assert "--teacher FILE" in refused.err


@pytest.mark.parametrize("data", ["npz:{}/my-train.npz,{}/my-test.npz", "imagefolder:{}/my shapes"])
def test_data_that_were_moved_and_renamed_are_the_same(
    run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path, data: str
) -> None:
    folder = half_done(run("--dataset", data.replace("{}", ".")))
    lines = (folder / "metrics.jsonl").read_bytes()
    there = here.parent / "there"
    there.mkdir()
    for path in [path for path in here.iterdir() if path.name.startswith("my")]:
        path.rename(there / path.name.replace("my", "our"))
    done = lra_bench("resume", folder)
    assert (done.code, len(done.err.splitlines())) == (3, 1), done
    kind = data.partition(":")[0]
    config = folder / "config.yaml"
    assert "does not exist" in done.err
    assert f"continue with lra-bench run --config {config} --dataset {kind}:NEW-PLACE --out {here / 'runs'}" in done.err
    new = data.replace("{}", str(there)).replace("my", "our")
    done = lra_bench("run", "--json", "--config", config, "--dataset", new, "--out", here / "runs")
    assert done.code == 0, done.err
    assert Path(json.loads(done.out)["run_dir"]) == folder, "the same run, though its folder is called after old names"
    assert (folder / "metrics.jsonl").read_bytes() == lines
    assert stored_configuration(folder).data.name == new, "and it knows now where they are"
    assert lra_bench("resume", half_done(folder)).code == 0


def test_changed_data_are_said(run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path) -> None:
    folder = half_done(run("--dataset", "npz:my-train.npz,my-test.npz"))
    images, labels = shapes(True)
    np.savez(here / "my-test.npz", images=images[::-1], labels=labels[::-1])
    before = sorted(here.rglob("*"))
    done = lra_bench("resume", folder)
    assert done.code == 2, done
    assert "the test data changed since the run began: put them back to continue, or start over with" in done.err
    assert sorted(here.rglob("*")) == before


def test_an_edited_configuration_is_said(run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path) -> None:
    folder = half_done(run())
    file = folder / "config.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["student"]["lr"] = 0.07
    file.write_text(yaml.safe_dump(tree))
    done = lra_bench("resume", folder)
    assert done.code == 2, done
    assert "student.lr changed from 0.05 to 0.07 since the run began" in done.err


def test_the_spelling_of_a_path_makes_no_other_run(run: Callable[..., Path], here: Path) -> None:
    names = (
        "my-train.npz,my-test.npz",
        f"{here}/my-train.npz,./my-test.npz",
        "my-{split}.npz",
        "../here/my-{split}.npz",
    )
    assert len({run("--dataset", f"npz:{name}", "--out", here / "runs") for name in names}) == 1
    first = here / "copy"
    first.mkdir()
    for split in ("train", "test"):
        shutil.copy(here / f"my-{split}.npz", first)
    assert run("--dataset", "npz:copy/my-{split}.npz") == run("--dataset", "npz:my-{split}.npz")


def test_a_run_without_a_test_set_is_told_apart_by_what_it_knows(run: Callable[..., Path], here: Path) -> None:
    file = teacher_of(run("--dataset", "npz:my-{split}.npz"))
    options = ("--teacher", file, "--set", "data.test=false")
    images, labels = shapes(True)
    np.savez(here / "other.npz", images=images[::-1], labels=labels[::-1])
    first = run("--dataset", "npz:my-test.npz", *options)
    assert run("--dataset", "npz:other.npz", *options).parent.name == first.parent.name, "nothing looks at the images"


def test_a_teachers_file_is_found_from_any_folder_and_counts_by_content(
    run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = teacher_of(run())
    shutil.copy(file, here / "t.safetensors")
    shutil.copy(file, here / "same.safetensors")
    folder = run("--teacher", "t.safetensors")
    assert run("--teacher", "./same.safetensors") == folder
    assert run("--teacher", "t.safetensors", "--set", "teacher.epochs=7") == folder, "it is trained already"
    half_done(folder)
    away(here.parent / "elsewhere", monkeypatch)
    assert lra_bench("resume", folder).code == 0
    half_done(folder)
    (here / "t.safetensors").rename(here / "gone.safetensors")
    done = lra_bench("resume", folder)
    assert (done.code, len(done.err.splitlines())) == (3, 1), done
    assert "--set teacher.file=NEW-PLACE" in done.err
    moved = ("--set", f"teacher.file={here}/gone.safetensors", "--out", here / "runs")
    assert lra_bench("run", "--config", folder / "config.yaml", *moved).code == 0
    assert (folder / "result.json").exists()


def test_what_an_earlier_run_left_moves_with_it(
    run: Callable[..., Path], lra_bench: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("--set", "carry.keep_replay=true", "--replay", "memory")
    file = first.relative_to(here) / "replay.pt"
    second = run("--replay", "memory", "--seed", 1, "--set", f"carry.replay={file}")
    shutil.copy(file, here / "copy.pt")
    half_done(second)
    shutil.move(here / "runs", here / "moved")
    away(here.parent / "elsewhere", monkeypatch)
    stored = here / "moved" / second.relative_to(here / "runs")
    done = lra_bench("resume", stored)
    assert done.code == 0, done.err
    again = run("--replay", "memory", "--seed", 1, "--set", f"carry.replay={here}/copy.pt", "--out", here / "moved")
    assert again == stored, "the same content, and so the same run"


def test_a_later_run_names_what_it_started_from_relative_to_itself(run: Callable[..., Path], here: Path) -> None:
    first = run("--set", "carry.keep_replay=true", "--replay", "memory")
    second = run("--replay", "memory", "--seed", 1, "--set", f"carry.replay={first}/replay.pt")
    named = yaml.safe_load((second / "config.yaml").read_text())["carry"]["replay"]
    assert not Path(named).is_absolute()
    assert (second / named).resolve() == first / "replay.pt"
    shutil.move(here / "runs", here / "moved")
    carry = stored_configuration(here / "moved" / second.relative_to(here / "runs")).carry
    assert carry is not None
    assert carry.replay == str(here / "moved" / first.relative_to(here / "runs") / "replay.pt")


def test_seeds_before_and_after_a_move_are_one_row(run: Callable[..., Path], here: Path) -> None:
    first = run("--dataset", "npz:my-{split}.npz")
    there = here / "there"
    there.mkdir()
    for split in ("train", "test"):
        (here / f"my-{split}.npz").rename(there / f"our-{split}.npz")
    second = run("--dataset", "npz:there/our-{split}.npz", "--seed", 1)
    assert second.parent.name == first.parent.name
    (group,) = grouped([read_run(first), read_run(second)])
    assert set(group.runs) == {0, 1}
    images, labels = shapes(True)
    np.savez(there / "our-test.npz", images=images[::-1], labels=labels[::-1])
    third = run("--dataset", "npz:there/our-{split}.npz", "--seed", 2)
    assert len(grouped([read_run(first), read_run(second), read_run(third)])) == 2, "other arrays, another row"
