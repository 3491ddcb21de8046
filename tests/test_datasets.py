"""Data sets: found by name or place, kept as bytes, in one line when they are not there or not whole."""

import json
import struct
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import Labelled, data_set, known_sets, normalisation, pictures
from lra.benchmarks.setup.datasets.labelled import DataSet, Form, resized
from lra.benchmarks.setup.teachers import accuracy_of, cached_path
from lra.images import unit

pytestmark = pytest.mark.usefixtures("plain_report")

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloaded data, empty."""
    monkeypatch.setenv("LRA_DATA", str(tmp_path))
    return tmp_path


def refusal(name: str, kind: type[LraError] = UsageError, size: Any = None, split: Any = "test") -> str:
    """The line that refuses a data set."""
    with pytest.raises(kind) as error:
        data_set(name, size).load(split)
    assert "\n" not in str(error.value)
    return str(error.value)


# Known data sets


@pytest.mark.parametrize("name", [*known_sets.KNOWN, "tiny-imagenet"])
def test_what_is_not_there_is_not_fetched(name: str, folder: Path) -> None:
    data = data_set(name)
    assert not data.present()
    assert "LRA_DATA" in refusal(name, MissingInput)
    assert not list(folder.iterdir())


def test_a_download_without_a_network_is_one_line(
    lra_bench: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        assert named["download"]
        raise urllib.error.URLError("no\nnetwork")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    done = lra_bench("data", "fetch", "cifar10")
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert "check the network" in done.err
    done = lra_bench("data", "fetch", "digits")
    assert done.code == 2


def test_mnist_is_read_from_torchvisions_files(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = pixels(7, 28, 28), np.arange(7, dtype=np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 7, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 7) + labels.tobytes())
    found = data_set("mnist").load("test")
    assert torch.equal(found.images, torch.from_numpy(images)[:, None])
    assert found.classes.tolist() == list(range(7))
    assert data_set("mnist").present()
    assert data_set("mnist", 16).load("train").images.shape == (7, 1, 16, 16)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"cut")
    assert "fetch it again" in refusal("mnist", MissingInput)


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_pictures_of_either_order_of_axes_are_channels_first(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision gives CIFAR with channels last and SVHN with channels first."""
    images = pixels(4, 3, 32, 32)
    known = known_sets.KNOWN[name]
    (folder / known.place).mkdir()

    class Reader:
        def __init__(self, *arguments: object, **named: object):
            self.data = images if name == "svhn" else images.transpose(0, 2, 3, 1)
            self.labels = self.targets = [3, 1, 4, 1]

    monkeypatch.setattr(f"torchvision.datasets.{known.reader}", Reader)
    found = data_set(name).load("test")
    assert torch.equal(found.images, torch.from_numpy(images))
    assert found.images.dtype == torch.uint8
    assert found.classes.tolist() == [3, 1, 4, 1]


def picture(file: Path, array: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def test_tiny_imagenet_is_read_as_its_archive_is_laid_out(folder: Path) -> None:
    home = folder / "tiny-imagenet-200"
    for number in range(200):
        picture(home / "train" / f"n{number:08}" / "images" / f"n{number:08}_0.png", pixels(8, 8, 3))
    shown = pixels(2, 8, 8, 3)
    for number, label in enumerate(("n00000005", "n00000002")):
        picture(home / "val" / "images" / f"val_{number}.png", shown[number])
        with (home / "val" / "val_annotations.txt").open("a") as file:
            file.write(f"val_{number}.png\t{label}\t0\t0\t7\t7\n")
    found = data_set("tiny-imagenet", 8).load("test")
    assert found.classes.tolist() == [5, 2]
    assert torch.equal(found.images, torch.from_numpy(shown).permute(0, 3, 1, 2))
    assert torch.equal(data_set("tiny-imagenet", 8).load("train").classes, torch.arange(200))
    (home / "val" / "val_annotations.txt").write_text("val_0.png\tn99999999\t0\n")
    assert "unpack the archive again" in refusal("tiny-imagenet", size=8)
    picture(home / "train" / "n00000200" / "images" / "a.png", pixels(8, 8, 3))
    assert "has 201 classes in place of 200" in refusal("tiny-imagenet", size=8)


def test_the_list_says_size_classes_and_presence(lra_bench: Callable[..., Any], folder: Path) -> None:
    lines = lra_bench("list", "datasets").out.splitlines()
    (digits,) = (line for line in lines if line.startswith("digits "))
    (cifar,) = (line for line in lines if line.startswith("cifar100 "))
    assert "1x16x16, 10 classes, here" in digits
    assert "3x32x32, 100 classes, not here" in cifar


# Folders of pictures


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_a_folder_with_splits(tmp_path: Path, test_folder: str) -> None:
    shown = pixels(9, 11, 3)
    for label in ("ape", "bee"):
        picture(tmp_path / "train" / label / "a.png", pixels(9, 11, 3))
    picture(tmp_path / test_folder / "ape" / "a.png", pixels(9, 11, 3))
    picture(tmp_path / test_folder / "bee" / "b.png", shown)
    data = data_set(f"imagefolder:{tmp_path}")
    assert (data.image, data.classes) == ((3, 9, 11), 2)
    test = data.load("test")
    assert test.classes.tolist() == [0, 1]
    assert torch.equal(test.images[1], torch.from_numpy(shown).permute(2, 0, 1))
    assert len(data.load("train").classes) == 2


def test_a_folder_without_splits_holds_out_a_fifth_that_stays(tmp_path: Path) -> None:
    for label in ("ape", "bee"):
        for number in range(40):
            picture(tmp_path / label / f"{number}.png", np.full((8, 8), number, dtype=np.uint8))

    def held_out() -> set[tuple[int, int]]:
        test = data_set(f"imagefolder:{tmp_path}").load("test")
        return {(int(image[0, 0, 0]), int(label)) for image, label in zip(*test, strict=True)}

    data = data_set(f"imagefolder:{tmp_path}")
    before, train = held_out(), data.load("train")
    assert data.image == (1, 8, 8), "grey pictures keep one channel"
    assert 8 <= len(before) <= 24
    assert len(before) + len(train.classes) == 80
    for number in range(40, 50):
        picture(tmp_path / "ape" / f"{number}.png", np.full((8, 8), number, dtype=np.uint8))
    assert {item for item in held_out() if item[0] < 40} == before


def test_pictures_of_several_sizes_need_one_for_all(tmp_path: Path) -> None:
    picture(tmp_path / "test" / "a" / "1.png", pixels(8, 12, 3))
    picture(tmp_path / "test" / "b" / "1.png", pixels(20, 10, 3))
    assert "data.size=64" in refusal(f"imagefolder:{tmp_path}")
    assert data_set(f"imagefolder:{tmp_path}", 16).load("test").images.shape == (2, 3, 16, 16)
    assert "not for training" in refusal(f"imagefolder:{tmp_path}", MissingInput, 16, "train")


def test_folders_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in refusal(f"imagefolder:{tmp_path / 'none'}", MissingInput)
    assert "no folder of pictures" in refusal(f"imagefolder:{tmp_path}")
    picture(tmp_path / "test" / "a" / "1.png", pixels(8, 8))
    assert "at least two" in refusal(f"imagefolder:{tmp_path}")
    picture(tmp_path / "test" / "b" / "1.png", pixels(8, 8))
    monkeypatch.setattr(pictures, "MOST_BYTES", 100)
    assert "of memory" in refusal(f"imagefolder:{tmp_path}")
    monkeypatch.undo()
    picture(tmp_path / "train" / "c" / "1.png", pixels(8, 8))
    assert "different classes" in refusal(f"imagefolder:{tmp_path}")
    (tmp_path / "train" / "c" / "1.png").unlink()
    (tmp_path / "train" / "c").rmdir()
    (tmp_path / "train").rmdir()
    Image.fromarray(pixels(8, 8).astype(np.float32)).save(tmp_path / "test" / "b" / "2.tif")
    assert "8 or 16 bits" in refusal(f"imagefolder:{tmp_path}")
    (tmp_path / "test" / "b" / "2.tif").unlink()
    (tmp_path / "test" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    assert "cannot be read" in refusal(f"imagefolder:{tmp_path}")


# Arrays


def write(file: Path, images: Any, labels: Any, **more: Any) -> Path:
    np.savez(file, images=images, labels=labels, **more)
    return file


def test_a_pair_of_array_files(tmp_path: Path) -> None:
    train = write(tmp_path / "a-train.npz", pixels(6, 9, 7), np.arange(6) % 3)
    test = write(tmp_path / "a-test.npz", pixels(4, 9, 7), np.arange(4) % 3)
    for name in (f"npz:{train},{test}", f"npz:{tmp_path}/a-{{split}}.npz"):
        data = data_set(name)
        assert (data.image, data.classes) == ((1, 9, 7), 3)
        assert [len(data.load(split).classes) for split in ("train", "test")] == [6, 4]
    assert "npz:TRAIN,TEST" in refusal(f"npz:{test}", MissingInput, split="train")
    write(train, pixels(6, 9, 8), np.arange(6) % 3)
    assert "1x9x8 of 3 classes" in refusal(f"npz:{train},{test}", split="train")


def test_images_of_five_channels_are_pictured_as_their_mean(
    tmp_path: Path, lra_bench: Callable[..., Any], tiny: list[str]
) -> None:
    classes = np.arange(40) % 4
    images = np.broadcast_to(60 * classes[:, None, None, None], (40, 8, 8, 5)).astype(np.uint8)
    file = write(tmp_path / "five.npz", images, classes)
    more = ("--dataset", f"npz:{file},{file}", "--set", "teacher.epochs=20", "--out", tmp_path / "runs")
    assert lra_bench("run", *tiny, *more).code == 0
    assert any((tmp_path / "runs").rglob("*.png"))


def test_other_images_to_test_on_under_the_same_name_make_another_run(
    tmp_path: Path, lra_bench: Callable[..., Any], tiny: list[str]
) -> None:
    classes = np.arange(40) % 4
    # As bright as the class says, which a teacher can learn.
    images = np.broadcast_to(60 * classes[:, None, None], (40, 8, 8)).astype(np.uint8)
    train, test = (write(tmp_path / f"{name}.npz", images, classes) for name in ("train", "test"))

    def run() -> Path:
        trained = ("--set", "teacher.epochs=20")
        more = ("--dataset", f"npz:{train},{test}", *trained, "--json", "--out", tmp_path / "runs")
        done = lra_bench("run", *tiny, *more)
        assert done.code == 0, done.err
        return Path(json.loads(done.out)["run_dir"])

    first = run()
    assert run() == first
    write(test, images + 1, classes)
    second = run()
    assert second.parent != first.parent
    result = json.loads((second / "result.json").read_text())
    assert result["config_hash"] == second.parent.name
    assert result["teacher"]["sha256"] == json.loads((first / "result.json").read_text())["teacher"]["sha256"]


def test_a_teacher_needs_two_images_at_a_time(tmp_path: Path, lra_bench: Callable[..., Any], tiny: list[str]) -> None:
    file = write(tmp_path / "one.npz", pixels(1, 8, 8), np.array([1]), names=["a", "b"])
    for wrong in (("--set", "teacher.batch_size=1"), ("--dataset", f"npz:{file},{file}")):
        done = lra_bench("teacher", "train", *tiny, *wrong)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "at least two images at a time" in done.err


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (pixels(4, 64), np.arange(4), "must be uint8"),
        (pixels(0, 8, 8), np.arange(0), "must be uint8"),
        (pixels(4, 8, 8), np.arange(3), "4 integers"),
        (pixels(4, 8, 8), np.eye(4) / 2, "4 integers"),
        (pixels(4, 8, 8), np.arange(4) - 1, "-1 to 2"),
        (pixels(4, 8, 8), np.zeros(4, dtype=int), "0 to 0"),
        (np.array([None] * 4), np.arange(4), "not an npz"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path: Path, images: Any, labels: Any, said: str) -> None:
    assert said in refusal(f"npz:{write(tmp_path / 'a.npz', images, labels)}")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY garbage", b"text"])
def test_files_that_hold_no_arrays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert "not an npz" in refusal(f"npz:{tmp_path}/a.npz")


def test_a_teacher_of_other_arrays_under_the_same_name_is_another(tmp_path: Path) -> None:
    test = write(tmp_path / "test.npz", pixels(4, 8, 8), np.arange(4))
    found = set()
    for _ in range(2):
        train = write(tmp_path / "train.npz", pixels(4, 8, 8), np.arange(4))
        found.add(cached_path(TeacherOptions(), data_set(f"npz:{train},{test}")))
    assert len(found) == 2


# Bytes and floats


def test_bytes_are_evaluated_as_floats_are() -> None:
    images, classes = torch.from_numpy(pixels(50, 1, 8, 8)), torch.arange(50) % 10
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert accuracy_of(network, Labelled(images, classes)) == accuracy_of(network, Labelled(unit(images), classes))


def test_answers_that_are_no_numbers_are_wrong() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(network[1].weight, 3e38)  # type: ignore[arg-type]
    assert accuracy_of(network, Labelled(torch.ones(4, 1, 8, 8), torch.zeros(4).long())) == 0


@pytest.mark.parametrize("kept", ["bytes", "floats"])
def test_the_normalisation_is_that_of_the_training_images(kept: str) -> None:
    images = torch.from_numpy(pixels(30, 3, 5, 4))
    images[:, 2] = 7
    exact = images.double() / 255
    real = Labelled(images if kept == "bytes" else exact.float(), torch.zeros(30))
    found = normalisation(DataSet("a", (3, 5, 4), 2, lambda split: real), real)
    torch.testing.assert_close(torch.tensor(found.mean).double(), exact.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.tensor(found.std[:2]).double(), exact.std((0, 2, 3), correction=0)[:2], rtol=2e-3, atol=0
    )
    assert found.std[2] == pytest.approx(1e-3), "a channel of one value does not divide by zero"


def test_squares_are_of_the_centre_and_keep_plain_colours() -> None:
    images = torch.zeros(2, 3, 10, 20, dtype=torch.uint8)
    images[:, :, :, 5:15] = 200
    for side in (5, 10, 16):
        found: Tensor = resized(images, Form((side, side), "crop"))
        assert found.shape == (2, 3, side, side)
        assert (found == 200).all()
    assert resized(images, Form()) is images
