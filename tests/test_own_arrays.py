"""Arrays as people have them: labels of any numbering and type, axes in either order, other names, other levels."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.setup.datasets import DataSet, data_set
from lra.benchmarks.setup.datasets.numbering import numbered, plain

pytestmark = pytest.mark.usefixtures("plain_report")

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def npz(file: Path, labels: Any, images: Any = None, **more: Any) -> Path:
    np.savez(file, images=pixels(len(labels), 8, 8) if images is None else images, labels=np.asarray(labels), **more)
    return file


def pair(folder: Path, train: Any, test: Any) -> DataSet:
    return data_set(f"npz:{npz(folder / 'train.npz', train)},{npz(folder / 'test.npz', test)}")


def refusal(name: str, split: Any = "test", **how: Any) -> str:
    with pytest.raises(LraError) as error:
        data_set(name, **how).load(split)
    assert "\n" not in str(error.value)
    return str(error.value)


# Labels


@pytest.mark.parametrize(
    ("train", "test", "classes", "expected"),
    [
        ([0, 1, 2, 3], [3, 1, 0], 4, [3, 1, 0]),
        ([1, 2, 3, 4, 5], [5, 1, 3], 5, [4, 0, 2]),
        ([3, 7, 3], [7, 7], 2, [1, 1]),
        ([0, 2_000_000, 5], [5, 2_000_000], 3, [1, 2]),
        ([0, 1, 3], [3], 3, [2]),
        ([0, 1], [2, 0], 3, [2, 0]),
        (["cat", "ape", "bee"], ["cat", "ape"], 3, [2, 0]),
    ],
)
def test_both_splits_are_numbered_as_one(
    tmp_path: Path, train: list[Any], test: list[Any], classes: int, expected: list[int]
) -> None:
    data = pair(tmp_path, train, test)
    assert data.classes == classes
    assert data.load("test").classes.tolist() == expected
    together = dict(zip(test, expected, strict=True))
    learnt = data.load("train").classes.tolist()
    assert all(together[label] == number for label, number in zip(train, learnt, strict=True) if label in together)
    usual = sorted({*train, *test}) == list(range(classes))
    assert any("are read as classes" in note for note in data.notes) == (not usual and not isinstance(train[0], str))
    if not usual:
        assert data.names == tuple(str(label) for label in sorted({*train, *test}))


def test_what_is_to_test_on_alone_keeps_the_numbers_of_its_teacher(tmp_path: Path) -> None:
    some = data_set(f"npz:{npz(tmp_path / 'a.npz', [0, 3, 1, 3])}")
    assert some.classes == 4
    assert some.load("test").classes.tolist() == [0, 3, 1, 3]
    assert any("4 classes, of which 1 have no image to test on: 2" in note for note in some.notes)
    counted = data_set(f"npz:{npz(tmp_path / 'b.npz', [1, 2, 3])}")
    assert counted.load("test").classes.tolist() == [0, 1, 2]
    assert any("labels 1 to 3 are read as classes 0 to 2" in note for note in counted.notes)


@pytest.mark.parametrize(
    ("train", "test", "more"),
    [
        ([0, 1, 2, 2], [2, 0, 1], {}),
        ([0, 1, 2, 3], [3, 1], {"names": list("abcd")}),
        (["cat", "ape", "bee"], ["cat", "ape"], {"names": ["ape", "bee", "cat"]}),
    ],
)
def test_training_images_that_are_no_more_change_nothing_to_test_on(
    tmp_path: Path, train: list[Any], test: list[Any], more: dict[str, Any]
) -> None:
    trained_on = npz(tmp_path / "train.npz", train, **more)
    name = f"npz:{trained_on},{npz(tmp_path / 'test.npz', test, **more)}"
    before = data_set(name)
    trained_on.unlink()
    after = data_set(name)
    assert (after.classes, after.names, after.content("test")) == (before.classes, before.names, before.content("test"))
    assert after.load("test").classes.equal(before.load("test").classes)
    (said,) = set(after.notes) - set(before.notes)
    assert (
        said
        == f"data file {trained_on} is not there: the {after.classes} classes are those that {tmp_path}/test.npz has"
    )
    assert "train.npz does not exist" in refusal(name, "train")
    with pytest.raises(MissingInput, match=r"--teacher FILE"):
        after.content("train")


@pytest.mark.parametrize("test", [[1, 2, 3], [0, 2], [3, 7], [0, 0], ["cat", "ape"]])
def test_training_images_that_are_no_more_are_missed_where_they_number_classes(tmp_path: Path, test: list[Any]) -> None:
    said = refusal(f"npz:{tmp_path / 'train.npz'},{npz(tmp_path / 'test.npz', test)}")
    assert "train.npz does not exist: give npz:FILE with arrays images and labels" in said
    assert "add an array names to the file" in said


@pytest.mark.parametrize("labels", [[3, 7], [2, 3, 4], [0, 2_000_000], [5, 2**60], [0, 2**16], [0, 1500]])
def test_labels_that_may_mean_anything_are_refused_at_once(tmp_path: Path, labels: list[int]) -> None:
    name = f"npz:{npz(tmp_path / 'a.npz', labels)}"
    tracemalloc.start()
    said = refusal(name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "names" in said or "integers" in said
    assert peak < 2**22, "nothing as large as the labels is made"


def test_names_say_how_many_classes_there_are(tmp_path: Path) -> None:
    data = data_set(f"npz:{npz(tmp_path / 'a.npz', [3, 5], names=list('abcdef'))}")
    assert (data.classes, data.names) == (6, tuple("abcdef"))
    assert data.load("test").classes.tolist() == [3, 5]
    written = data_set(f"npz:{npz(tmp_path / 'b.npz', ['dog', 'ape'], names=['dog', 'cat', 'ape'])}")
    assert written.load("test").classes.tolist() == [0, 2]
    assert "6 and 6 names" in refusal(f"npz:{npz(tmp_path / 'c.npz', [0, 6], names=list('abcdef'))}")
    assert "'dog' is not among" in refusal(f"npz:{npz(tmp_path / 'd.npz', ['dog'], names=['cat', 'ape'])}")
    assert "different ones" in refusal(f"npz:{npz(tmp_path / 'e.npz', [0, 1], names=['cat', 'cat'])}")


NUMBERS = np.array([2, 0, 1, 2])


@pytest.mark.parametrize(
    "labels",
    [
        *(NUMBERS.astype(kind) for kind in (np.int8, np.uint8, np.uint64, np.int64, np.float32, np.float64)),
        NUMBERS[:, None],
        np.eye(3)[NUMBERS],
        np.eye(3, dtype=bool)[NUMBERS],
        np.eye(3, dtype=np.int64)[NUMBERS],
    ],
    ids=lambda labels: f"{labels.dtype}{labels.shape}",
)
def test_labels_of_any_type_are_the_same(tmp_path: Path, labels: Any) -> None:
    data = data_set(f"npz:{npz(tmp_path / 'a.npz', labels)}")
    assert data.classes == 3
    assert data.load("test").classes.tolist() == NUMBERS.tolist()
    assert data.load("test").classes.dtype == torch.int64


def test_true_and_false_are_two_classes(tmp_path: Path) -> None:
    found = data_set(f"npz:{npz(tmp_path / 'a.npz', [True, False, True])}").load("test").classes
    assert found.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, 1.0], "values that are none"),
        ([np.nan, 1.0], "values that are none"),
        (np.array([1, 2**63 + 1], dtype=np.uint64), "values that are none"),
        (np.array([[0.3, 0.7], [0.9, 0.1]]), "not one-hot"),
        (np.array([[1, 1, 0], [0, 1, 0]]), "not one-hot"),
        (np.zeros((2, 2, 2), dtype=int), "2 integers"),
        ([1 + 1j, 2], "2 integers"),
        ([-1, 1], "-1 to 1"),
        ([4, 4], "at least two classes"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: Any, said: str) -> None:
    assert said in refusal(f"npz:{npz(tmp_path / 'a.npz', labels, pixels(2, 8, 8))}")


def test_labels_as_many_as_images_are_no_classes() -> None:
    many = np.arange(70_000) * 3
    with pytest.raises(UsageError, match="which are no classes"):
        numbered(many, many[:10], None, "data")
    with pytest.raises(UsageError, match="some labels are text"):
        numbered(plain(np.array(["a", "b"]), 2, "data"), plain(np.array([0, 1]), 2, "data"), None, "data")


def test_another_numbering_is_other_content(tmp_path: Path) -> None:
    """The same file to train on makes another teacher where the test set brings another class."""
    train, contents = npz(tmp_path / "train.npz", [1, 2, 3]), set()
    for index, test in enumerate(([1, 2, 3], [1, 2, 9], [0, 1, 2, 3])):
        file = npz(tmp_path / f"{index}.npz", test)
        contents.add(data_set(f"npz:{train},{file}").content("train"))
    assert len(contents) == 3


def test_gaps_in_a_run(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> None:
    labels = np.repeat([3, 7], 30)
    images = np.broadcast_to((labels * 30)[:, None, None], (60, 8, 8)).astype(np.uint8)
    file = npz(tmp_path / "a.npz", labels, images)
    done = lra_bench("run", *tiny, "--dataset", f"npz:{file},{file}", "--out", tmp_path / "runs", "--json")
    assert done.code == 0, done.err
    assert f"data file {file}: labels 3, 7 are read as classes 0 to 1, in this order" in done.err


# Axes


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((4, 1, 28, 28), (1, 28, 28)),
        ((4, 28, 28, 1), (1, 28, 28)),
        ((4, 3, 16, 20), (3, 16, 20)),
        ((4, 16, 20, 3), (3, 16, 20)),
        ((4, 16, 28, 28), (16, 28, 28)),
        ((4, 8, 8, 5), (5, 8, 8)),
        ((4, 28, 28), (1, 28, 28)),
    ],
)
def test_channels_are_found_on_either_side(tmp_path: Path, shape: tuple[int, ...], image: tuple[int, ...]) -> None:
    images = pixels(*shape)
    data = data_set(f"npz:{npz(tmp_path / 'a.npz', range(4), images)}")
    found = data.load("test").images
    first = len(shape) == 4 and shape[1:] == image
    assert data.image == found.shape[1:] == image
    wanted = images if first else images.reshape(*shape[:3], -1).transpose(0, 3, 1, 2)
    assert torch.equal(found, torch.from_numpy(wanted.copy()))
    assert any("channels first" in note for note in data.notes) == first


@pytest.mark.parametrize("shape", [(4, 3, 9, 3), (4, 3, 3, 3), (4, 12, 20, 16), (4, 9, 9, 9)])
def test_axes_that_may_be_either_are_asked_for(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = pixels(*shape)
    assert "add an array layout" in refusal(f"npz:{npz(tmp_path / 'a.npz', range(4), images)}")
    last = data_set(f"npz:{npz(tmp_path / 'b.npz', range(4), images, layout='NHWC')}")
    first = data_set(f"npz:{npz(tmp_path / 'c.npz', range(4), images, layout='NCHW')}")
    assert (last.image, first.image) == ((shape[3], *shape[1:3]), shape[1:])
    assert "choose NHWC" in refusal(f"npz:{npz(tmp_path / 'd.npz', range(4), images, layout='CHWN')}")


def test_splits_in_either_order_of_axes_are_one_data_set(tmp_path: Path) -> None:
    train = npz(tmp_path / "train.npz", range(4), pixels(4, 3, 9, 8))
    test = npz(tmp_path / "test.npz", range(4), pixels(4, 9, 8, 3))
    data = data_set(f"npz:{train},{test}")
    assert [data.load(split).images.shape for split in ("train", "test")] == [(4, 3, 9, 8)] * 2
    npz(train, range(4), pixels(4, 3, 12, 12))
    assert "data.size" in refusal(f"npz:{train},{test}")
    assert data_set(f"npz:{train},{test}", 8).load("train").images.shape == (4, 3, 8, 8)


# Names


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_valid", "Y_valid"),
        ("images", "labels", "test_images", "test_labels"),
    ],
)
def test_one_file_of_both_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As Keras (``mnist.npz``) and MedMNIST (labels (n, 1), and a third split) have them."""
    images, shown = pixels(6, 8, 8), pixels(4, 8, 8)
    content: dict[str, Any] = {names[0]: images, names[1]: np.arange(6)[:, None] % 4}
    content |= {names[2]: shown, names[3]: np.arange(4)}
    np.savez(tmp_path / "a.npz", **content, rank_in_class=np.arange(4))
    data = data_set(f"npz:{tmp_path}/a.npz")
    if names[0] == "images":  # which of both says nothing of a split: it may be all of them
        assert "no training images" in refusal(f"npz:{tmp_path}/a.npz", "train")
    else:
        assert torch.equal(data.load("train").images[:, 0], torch.from_numpy(images))
        assert any(f"{names[0]} and {names[1]} are those to train on" in note for note in data.notes)
    assert torch.equal(data.load("test").images[:, 0], torch.from_numpy(shown))
    assert data.test_images == 4


def test_validation_is_left_aside_where_there_is_a_test(tmp_path: Path) -> None:
    splits = {f"{split}_{what}": np.arange(4) for split in ("train", "val", "test") for what in ("labels",)}
    images = {f"{split}_images": pixels(4, 8, 8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "a.npz", **splits, **images)
    data = data_set(f"npz:{tmp_path}/a.npz")
    assert torch.equal(data.load("test").images[:, 0], torch.from_numpy(images["test_images"]))
    assert any("val_images are left aside" in note for note in data.notes)


def test_names_that_say_nothing_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels(4, 8, 8), np.arange(4))
    said = refusal(f"npz:{tmp_path}/a.npz")
    assert "has arr_0, arr_1" in said
    assert "x_train" in said
    np.savez(tmp_path / "b.npz", images=pixels(4, 8, 8), x=pixels(4, 8, 8), labels=np.arange(4))
    assert "images and x for the same" in refusal(f"npz:{tmp_path}/b.npz")


# Levels


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda bytes_: bytes_.astype(np.int64), True),
        (lambda bytes_: bytes_.astype(np.uint16), True),
        (lambda bytes_: bytes_.astype(np.uint16) * 257, True),
        (lambda bytes_: bytes_.astype(np.float64), False),
        (lambda bytes_: (bytes_ / 255).astype(np.float32), False),
        (lambda bytes_: (bytes_ / 255).astype(np.float16), False),
    ],
    ids=["int64", "uint16 of bytes", "16 bits", "floats to 255", "floats to 1", "half precision"],
)
def test_levels_of_any_type_are_the_same(tmp_path: Path, change: Callable[[Any], Any], exact: bool) -> None:
    images = pixels(5, 8, 8)
    images[0, 0, 0] = 255
    wanted = torch.from_numpy(images)[:, None]
    found = data_set(f"npz:{npz(tmp_path / 'a.npz', range(5), change(images))}").load("test").images
    if exact:
        assert torch.equal(found, wanted)
    else:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted.float() / 255, rtol=0, atol=1e-3)
        assert data_set(f"npz:{tmp_path}/a.npz", 16).load("test").images.shape == (5, 1, 16, 16)


def test_black_and_white(tmp_path: Path) -> None:
    images = RANDOM.random((4, 8, 8)) > 0.5
    found = data_set(f"npz:{npz(tmp_path / 'a.npz', range(4), images)}").load("test").images
    assert torch.equal(found[:, 0], torch.from_numpy(images * np.uint8(255)))
    assert "multiply them by 255" in refusal(f"npz:{npz(tmp_path / 'b.npz', range(4), images.astype(np.uint8))}")


@pytest.mark.parametrize(
    "images",
    [
        RANDOM.normal(size=(4, 8, 8)),
        np.full((4, 8, 8), np.nan),
        np.full((4, 8, 8), 300.0),
        np.full((4, 8, 8), 300, dtype=np.int32),
        np.full((4, 8, 8), -1, dtype=np.int8),
    ],
)
def test_levels_that_are_no_images(tmp_path: Path, images: Any) -> None:
    assert "save them" in refusal(f"npz:{npz(tmp_path / 'a.npz', range(4), images)}")
