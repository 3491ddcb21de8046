"""Pictures as people have them: of any proportions, colour model and folder; brought to a size in a stated way."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.setup.datasets import DATASETS, data_set
from lra.benchmarks.setup.datasets.labelled import (
    DONE,
    DataSet,
    Form,
    Labelled,
    Normalisation,
    channelled,
    formed,
    resized,
)
from lra.images import unit

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> Any:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def save(file: Path, picture: Any, **how: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, **how)


def folder_of(folder: Path, *pictures: Any, ending: str = ".png", **how: Any) -> str:
    """A data set to test on: the pictures, in turn of two classes."""
    for number, picture in enumerate(pictures):
        save(folder / "test" / "ab"[number % 2] / f"{number}{ending}", picture, **how)
    return f"imagefolder:{folder}"


def refused(name: str, *arguments: Any) -> str:
    with pytest.raises(LraError) as error:
        data_set(name, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# What a data set is, without what it takes to load it


def test_data_sets_are_described_without_torch(tmp_path: Path) -> None:
    name = folder_of(tmp_path, pixels(8, 9, 3), pixels(8, 9, 3))
    np.savez(tmp_path / "a.npz", images=pixels(4, 8, 8), labels=np.arange(4))
    code = (
        "import sys; from lra.benchmarks.setup.datasets import DATASETS, data_set\n"
        f"for name in [*DATASETS, {name!r}, 'npz:{tmp_path}/a.npz']:\n"
        "    data = data_set(name, [16, 24], 'pad')\n"
        "    data.record(), data.present(), data.content('test')\n"
        "assert not {'torch', 'torchvision', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["digits", "digits-0-4", "digits-5-9", "digits-turned"])
@pytest.mark.parametrize("size", [None, 8, (12, 20)])
def test_what_is_said_of_the_digits_is_what_is_loaded(name: str, size: Any) -> None:
    data = data_set(name, size, "pad", 3)
    images, classes = data.load("test")
    assert images.shape == (data.test_images, *data.image)
    assert classes.unique().tolist() == list(range(data.classes))
    assert len(data.names) == data.classes


def test_names_of_classes_are_as_many_as_classes() -> None:
    for name in DATASETS.keys() - {"tiny-imagenet"}:
        data = data_set(name)
        assert len(set(data.names)) == data.classes


# Sizes


def rows_and_columns(height: int, width: int) -> torch.Tensor:
    """A picture (1, 2, H, W) whose channels say where a pixel is, from 0 to 1 down and across."""
    down = torch.linspace(0, 1, height)[:, None].expand(height, width)
    across = torch.linspace(0, 1, width)[None].expand(height, width)
    return torch.stack([down, across])[None].contiguous()


@pytest.mark.parametrize("native", [(20, 40), (40, 20), (33, 33), (9, 64)])
@pytest.mark.parametrize("size", [(16, 16), (16, 32), (48, 24)])
def test_what_a_fit_keeps(native: tuple[int, int], size: tuple[int, int]) -> None:
    """Squashing keeps all and fills all; cropping keeps proportions and fills all; padding keeps both."""
    image = rows_and_columns(*native)
    found = {fit: resized(image, Form(size, fit))[0] for fit in ("squash", "crop", "pad")}
    assert all(picture.shape == (2, *size) for picture in found.values())
    corners = found["squash"][:, [0, -1], [0, -1]]
    assert (corners[:, 0] < 0.1).all()
    assert (corners[:, 1] > 0.9).all()
    wider = native[1] * size[0] > native[0] * size[1]
    if native[1] * size[0] == native[0] * size[1]:
        assert torch.equal(found["crop"], found["squash"])
        assert torch.equal(found["pad"], found["squash"])
        return
    whole, cut = (0, 1) if wider else (1, 0)
    spread = found["crop"].amax((1, 2)) - found["crop"].amin((1, 2))
    kept = (native[0] * size[1]) / (native[1] * size[0])
    kept = min(kept, 1 / kept)
    assert spread[whole] > 0.9
    assert spread[cut] == pytest.approx(kept, abs=0.13)
    assert found["crop"][cut].mean() == pytest.approx(0.5, abs=0.06), "the middle is kept"
    white = resized(torch.ones(1, 1, *native), Form(size, "pad"))[0, 0]
    covered = (white > 0).float().mean().item()
    assert covered == pytest.approx(kept, abs=0.07)
    assert ((white == 0) | ((white - 1).abs() < 1e-5)).all()
    lines = white.amax(dim=1 if wider else 0) > 0
    assert abs(int(lines.int().argmax()) - int(lines.flip(0).int().argmax())) <= 1, "black on both sides"


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_bytes_and_floats_and_pictures_reach_a_size_alike(tmp_path: Path, fit: Any) -> None:
    images = torch.from_numpy(np.kron(pixels(4, 3, 5, 8), np.ones((4, 4), dtype=np.uint8)))
    form = Form((16, 24), fit)
    stored = resized(images, form)
    assert stored.dtype == torch.uint8
    torch.testing.assert_close(unit(stored), resized(unit(images), form), rtol=0, atol=0.6 / 255)
    name = folder_of(tmp_path, *images.permute(0, 2, 3, 1).numpy())
    found = data_set(name, (16, 24), fit)
    order = [0, 2, 1, 3]  # class by class
    torch.testing.assert_close(found.load("test").images.int(), stored[order].int(), rtol=0, atol=2)
    assert DONE[fit] in found.reached


def test_the_default_is_torchvisions_resize(tmp_path: Path) -> None:
    """Pixel for pixel what ``ImageFolder`` with ``Resize((height, width))`` gives a teacher."""
    name = folder_of(tmp_path, pixels(30, 50, 3), pixels(41, 20, 3))
    (tmp_path / "test").rename(tmp_path / "val")
    steps = transforms.Compose([transforms.Resize((16, 24)), transforms.PILToTensor()])
    wanted = torch.stack([image for image, _ in ImageFolder(str(tmp_path / "val"), steps)])
    data = data_set(name, (16, 24))
    assert torch.equal(data.load("test").images, wanted)
    (note,) = (note for note in data.notes if "squashed" in note)
    assert "30x50 to 41x20" in note
    assert "data.fit" in note


def test_cropping_is_torchvisions_recipe_of_evaluation(tmp_path: Path) -> None:
    smooth = Image.fromarray(pixels(6, 10, 3)).resize((80, 48), Image.Resampling.BICUBIC)
    name = folder_of(tmp_path, smooth, smooth)
    recipe = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16), transforms.PILToTensor()])
    found = data_set(name, 16, "crop").load("test").images[0]
    assert (found.int() - recipe(smooth).int()).abs().float().mean() < 3


def test_the_fit_tells_runs_apart_where_it_matters(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "a", pixels(16, 24, 3), pixels(16, 24, 3))
    square = folder_of(tmp_path / "b", pixels(16, 16, 3), pixels(16, 16, 3))
    fits = ("squash", "crop", "pad")
    assert len({data_set(name, 8, fit).content("test") for fit in fits}) == 3
    assert len({data_set(square, 8, fit).content("test") for fit in fits}) == 1
    assert len({data_set("mnist", (16, 24), fit).content("test") for fit in fits}) == 3
    assert data_set("mnist", 16).content("test") == "", "and runs keep the names they had where it does not"


# Channels


def test_channels_are_asked_for(tmp_path: Path) -> None:
    name = folder_of(tmp_path, colours := pixels(8, 9, 3), colours)
    grey = data_set(name, None, "squash", 1).load("test").images
    wanted = torch.from_numpy(np.array(Image.fromarray(colours).convert("L")))
    assert torch.equal(grey[0, 0], wanted)
    whole = torch.from_numpy(colours).permute(2, 0, 1)[None]
    assert torch.equal(channelled(whole, 1)[0, 0], wanted), "arrays as pictures"
    assert (channelled(unit(whole), 1)[0, 0] - unit(wanted)).abs().max() < 1 / 255
    assert torch.equal(channelled(grey, 3), grey.repeat(1, 3, 1, 1))


def test_a_published_normalisation_follows_the_channels() -> None:
    grey = data_set("mnist", None, "squash", 3)
    assert grey.image == (3, 28, 28)
    assert grey.published == Normalisation((0.1307,) * 3, (0.3081,) * 3)
    assert data_set("cifar10", None, "squash", 1).published is None
    five = DataSet("five", (5, 8, 8), 2, lambda split: Labelled(torch.zeros(0), torch.zeros(0)))
    with pytest.raises(UsageError, match=r"data\.channels = 3: five has images of 5 channels"):
        formed(five, Form(channels=3))


def palette(levels: Any) -> Image.Image:
    return Image.fromarray(levels).quantize(16)


COLOURS = np.kron(pixels(4, 4, 3), np.ones((3, 3, 1), dtype=np.uint8))
CLEAR = np.dstack([COLOURS, pixels(12, 12)])
MODES = {
    "RGB": (Image.fromarray(COLOURS), ".png"),
    "RGBA": (Image.fromarray(CLEAR), ".png"),
    "P": (palette(COLOURS), ".png"),
    "CMYK": (Image.fromarray(COLOURS).convert("CMYK"), ".tif"),
    "YCbCr": (Image.fromarray(COLOURS).convert("YCbCr"), ".jpg"),
}


@pytest.mark.parametrize("mode", MODES)
def test_colours_are_read_as_torchvision_reads_them(tmp_path: Path, mode: str) -> None:
    """Palettes become the colours they stand for, transparency is dropped, and other colour models are converted."""
    picture, ending = MODES[mode]
    name = folder_of(tmp_path, picture, picture, ending=ending)
    data = data_set(name)
    wanted = transforms.PILToTensor()(ImageFolder(str(tmp_path / "test"))[0][0])
    assert data.image == (3, 12, 12)
    assert torch.equal(data.load("test").images[0], wanted)
    assert any("transparent" in note for note in data.notes) == (mode == "RGBA")


def test_greys_of_every_kind_are_one_channel(tmp_path: Path) -> None:
    levels = np.kron(pixels(4, 4), np.ones((3, 3), dtype=np.uint8))
    fine = levels.astype(np.uint16) * 257
    kinds = {
        "L": Image.fromarray(levels),
        "LA": Image.fromarray(levels).convert("LA"),
        "P": Image.fromarray(levels).convert("P"),
        "I;16": Image.fromarray(fine),
        "I": Image.fromarray(fine.astype(np.int32)),
    }
    for kind, picture in kinds.items():
        where = tmp_path / kind.replace(";", "")
        data = data_set(folder_of(where, picture, picture, ending=".tif" if kind == "I" else ".png"))
        assert data.image == (1, 12, 12), kind
        assert torch.equal(data.load("test").images[0, 0], torch.from_numpy(levels)), kind
        assert any("16 bits" in note for note in data.notes) == kind.startswith("I")
    bits = Image.fromarray(levels > 127)
    black_and_white = data_set(folder_of(tmp_path / "1", bits, bits)).load("test").images
    assert black_and_white.unique().tolist() == [0, 255]


def test_levels_of_16_bits_are_scaled_down_and_not_cut_off(tmp_path: Path) -> None:
    ramp = np.arange(0, 2**16, 256, dtype=np.uint16).reshape(16, 16)
    found = data_set(folder_of(tmp_path, ramp, ramp)).load("test").images[0, 0]
    wanted = torch.from_numpy(np.round(ramp / 257).astype(np.uint8))
    assert torch.equal(found, wanted)
    assert len(found.unique()) > 250


@pytest.mark.parametrize("odd", [np.full((8, 8), 70_000, dtype=np.int32), np.full((8, 8), 0.5, dtype=np.float32)])
def test_levels_that_no_screen_has_are_refused(tmp_path: Path, odd: Any) -> None:
    name = folder_of(tmp_path, odd, odd, ending=".tif")
    with pytest.raises(UsageError, match="8 or 16 bits"):
        data_set(name).load("test")


@pytest.mark.parametrize("first", ["grey", "colour"])
def test_grey_among_colours_turns_nothing_grey(tmp_path: Path, first: str) -> None:
    pictures = [pixels(8, 8), pixels(8, 8, 3), pixels(8, 8, 3)]
    data = data_set(folder_of(tmp_path, *(pictures if first == "grey" else pictures[::-1])))
    assert data.image == (3, 8, 8)
    assert any("1 of 3 pictures to test on is grey" in note for note in data.notes)
    images = data.load("test").images
    assert sum(bool((image == image[:1]).all()) for image in images) == 1


def test_colours_to_train_on_count_too(tmp_path: Path) -> None:
    name = folder_of(tmp_path, pixels(8, 8), pixels(8, 8))
    for label in "ab":
        save(tmp_path / "train" / label / "1.png", pixels(8, 8))
    assert data_set(name).image == (1, 8, 8)
    save(tmp_path / "train" / "b" / "2.png", pixels(8, 8, 3))
    assert data_set(name).image == (3, 8, 8)


def behind_the_pixels(file: Path) -> None:
    """Move a PNG's EXIF to where encoders that learn of it late put it."""
    content, chunks, place = file.read_bytes(), [], 8
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        chunks.append(content[place:end])
        place = end
    chunks.sort(key=lambda chunk: (chunk[4:8] == b"IEND", chunk[4:8] == b"eXIf"))
    file.write_bytes(content[:8] + b"".join(chunks))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".png, behind the pixels", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_says_how_it_lies_is_turned_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    stored = np.zeros((12, 20, 3), dtype=np.uint8)
    stored[:6, :10] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    suffix, _, late = ending.partition(", ")
    fine = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    name = folder_of(tmp_path, stored, stored, ending=suffix, exif=exif, **fine)
    if late:
        for file in tmp_path.rglob("*.png"):
            behind_the_pixels(file)
    data = data_set(name)
    assert data.image == ((3, 12, 20) if orientation < 5 else (3, 20, 12))
    image = data.load("test").images[0].float()
    height, width = image.shape[1:]
    bright = image.mean(0)[: height // 2].mean() > 127.0 * 0.9, image.mean(0)[:, : width // 2].mean() > 127.0 * 0.9
    # As the standard names them: where the stored first row and first column belong.
    upper, left = {
        1: (True, True), 2: (True, False), 3: (False, False), 4: (False, True),
        5: (True, True), 6: (True, False), 7: (False, False), 8: (False, True),
    }[orientation]  # fmt: skip
    assert bright == (upper, left)
    assert any("upright" in note for note in data.notes) == (orientation > 1)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_how_a_picture_lies_may_be_said_in_rubbish(tmp_path: Path, ending: str) -> None:
    stored = np.zeros((12, 20, 3), dtype=np.uint8)
    data = data_set(folder_of(tmp_path, stored, stored, ending=ending, exif=b"Exif\0\0rubbish"))
    assert data.image[1:] == tuple(data.load("test").images.shape[2:]) == (12, 20)


# Folders


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("Training", "VALID"), ("TRAIN", "validation")])
def test_splits_go_by_many_names(tmp_path: Path, train: str, test: str) -> None:
    for split in (train, test):
        for label in ("ape", "bee"):
            save(tmp_path / split / label / "1.png", pixels(8, 8, 3))
    data = data_set(f"imagefolder:{tmp_path}")
    assert data.names == ("ape", "bee")
    assert [len(data.load(split).classes) for split in ("train", "test")] == [2, 2]
    assert any(f"{train}/ to train and {test}/ to test on" in note for note in data.notes)


def test_of_test_and_validation_the_test_is_tested_on(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test"), start=1):
        for label in ("ape", "bee"):
            for picture in range(number):
                save(tmp_path / split / label / f"{picture}.png", pixels(8, 8, 3))
    data = data_set(f"imagefolder:{tmp_path}")
    assert data.test_images == 6
    assert any("passed over val/" in note for note in data.notes)
    (tmp_path / "Testing" / "ape").mkdir(parents=True)
    assert "leave one of them" in refused(f"imagefolder:{tmp_path}")


def test_a_class_that_is_called_like_a_split(tmp_path: Path) -> None:
    for label in ("car", "train", "ship"):
        for number in range(20):
            save(tmp_path / label / f"{number}.png", pixels(8, 8, 3))
    assert data_set(f"imagefolder:{tmp_path}").names == ("car", "ship", "train")


def test_pictures_to_test_on_without_labels_are_none(tmp_path: Path) -> None:
    for label in ("ape", "bee"):
        save(tmp_path / "train" / label / "1.png", pixels(8, 8, 3))
    save(tmp_path / "test" / "1.png", pixels(8, 8, 3))
    assert "add pictures to test on" in refused(f"imagefolder:{tmp_path}")


def test_what_systems_leave_behind_is_no_class_and_no_picture(tmp_path: Path) -> None:
    name = folder_of(tmp_path, *(pixels(8, 8, 3) for _ in range(4)))
    before = data_set(name)
    for litter in (".ipynb_checkpoints/a.png", "__MACOSX/b/._1.png", "a/.ipynb_checkpoints/x.png", "a/._0.png"):
        save(tmp_path / "test" / litter, pixels(8, 8, 3))
    for litter in ("Thumbs.db", "a/.DS_Store", "b/desktop.ini", "a/notes.txt", "b/more.txt"):
        (tmp_path / "test" / litter).write_text("")
    (tmp_path / "test" / "empty").mkdir()
    data = data_set(name)
    assert data.names == before.names == ("a", "b")
    assert torch.equal(data.load("test").images, before.load("test").images)
    assert data.content("test") == before.content("test")
    (note,) = data.notes
    for said in (".ipynb_checkpoints/", "__MACOSX/", "Thumbs.db", ".DS_Store", "2 *.txt", "empty of pictures"):
        assert said in note


def test_capital_endings_nested_folders_and_links(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "data", pixels(8, 8, 3), pixels(8, 8, 3), ending=".PNG")
    save(tmp_path / "data" / "test" / "a" / "more" / "deep" / "1.Png", pixels(8, 8, 3))
    save(tmp_path / "elsewhere" / "1.png", pixels(8, 8, 3))
    (tmp_path / "data" / "test" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "test" / "a" / "round").symlink_to(tmp_path / "data" / "test" / "a")
    (tmp_path / "data" / "test" / "a" / "gone.png").symlink_to(tmp_path / "none.png")
    data = data_set(name)
    assert data.names == ("a", "b", "c")
    assert data.load("test").classes.tolist() == [0, 0, 1, 2]
    assert any("broken link" in note for note in data.notes)


def test_classes_of_two_splits_meet_by_name(tmp_path: Path) -> None:
    for label in ("Ape", "bee", "Cat"):
        save(tmp_path / "train" / label / "1.png", pixels(8, 8, 3))
    for label in ("ape", "cat"):
        save(tmp_path / "test" / label / "1.png", pixels(8, 8, 3))
    name = f"imagefolder:{tmp_path}"
    data = data_set(name)
    assert data.names == ("Ape", "Cat", "bee")
    assert data.load("test").classes.tolist() == [0, 1], "a class that is not there shifts no number"
    assert any("ape is Ape" in note for note in data.notes)
    assert any("nothing to test on of the class bee" in note for note in data.notes)
    save(tmp_path / "test" / "dog" / "1.png", pixels(8, 8, 3))
    assert "dog is in the test split only" in refused(name)


def test_an_archive_that_unpacked_into_a_folder_of_its_own(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", pixels(8, 8, 3), pixels(8, 8, 3))
    assert f"did you mean imagefolder:{tmp_path / 'photos'}" in refused(f"imagefolder:{tmp_path}")


def test_the_content_of_a_folder_is_that_of_its_pictures(tmp_path: Path) -> None:
    """Neither the folder's name nor its files' tells data apart, and one pixel does."""
    first, second = pixels(8, 8, 3), pixels(8, 8, 3)
    one, other = folder_of(tmp_path / "one", first, second), folder_of(tmp_path / "other", first, second)
    assert data_set(one).content("test") == data_set(other).content("test")
    second[0, 0, 0] ^= 1
    changed = data_set(folder_of(tmp_path / "other", first, second))
    assert data_set(one).content("test") != changed.content("test")


# In a run


def test_names_and_fit_travel_to_check_and_report(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    for split, count in (("Train", 24), ("Test", 6)):
        for place, label in enumerate(("ape", "bee", "<b>cat</b>".replace("/", "-"))):
            for number in range(count):
                picture = RANDOM.integers(0, 40, (12, 20, 3), dtype=np.uint8)
                picture[..., place] += 200
                save(tmp_path / "shapes" / split / label / f"{number}.png", picture)
    given = ("--dataset", f"imagefolder:{tmp_path}/shapes", "--set", "data.size=[8,12]", "--set", "data.fit=pad")
    done = lra_bench("run", "--json", "--out", tmp_path / "runs", *tiny, *given, "--set", "teacher.epochs=8")
    assert done.code == 0, done.err
    assert "Train/ to train and Test/ to test on" in done.err
    assert "padded with black" in done.err
    for how in ((), ("--no-timing",)):
        dry = lra_bench("run", "--dry-run", *how, *tiny, *given, "--set", "teacher.epochs=8")
        noticed = [line for line in dry.err.splitlines() if "Train/ to train" in line or "padded with black" in line]
        assert noticed == [line for line in done.err.splitlines() if line in noticed]
        assert len(noticed) == 2
    result = json.loads(done.out)
    by_class = result["by_class"]
    assert by_class["images"] == [6, 6, 6]
    assert np.mean(by_class["student"]) == pytest.approx(result["accuracy"]["final"])
    assert np.mean(by_class["teacher"]) == pytest.approx(result["teacher"]["accuracy"])
    folder = Path(result["run_dir"])
    (tmp_path / "shapes").rename(tmp_path / "away")
    assert lra_bench("report", folder).code == 0
    page = (folder / "report.html").read_text()
    assert "Class by class" in page
    named = "in the table, on the maps of images and of accuracies, and on both axes of that of mistakes"
    assert page.count(">ape<") == page.count("&lt;b&gt;cat&lt;-b&gt;") == 5, named
    assert "<b>cat" not in page
    (tmp_path / "away").rename(tmp_path / "shapes")
    trained = lra_bench("teacher", "train", "--json", *tiny, *given, "--set", "teacher.epochs=8")
    file = json.loads(trained.out)["file"]
    checked = lra_bench("teacher", "check", file, *tiny, *given)
    assert checked.code == 0, checked.err
    assert "3x8x12, 18 to test on, resized to 8x12, padded with black (data.fit: squash, crop or pad)" in checked.out
    assert "3: <b>cat<-b>, ape, bee" in checked.out
    assert "network   one hidden layer of 32, ReLU" in checked.out
    assert "was trained on" not in checked.err
    other = lra_bench("teacher", "check", file, *tiny, *given, "--set", "data.fit=crop")
    assert "trained on images padded with black, and these are cropped about the middle" in other.err
    assert "data.fit=pad" in other.err


def test_networks_that_want_squares_say_so_in_a_line(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    name = folder_of(tmp_path, *(pixels(12, 20, 3) for _ in range(4)))
    for label in "ab":
        save(tmp_path / "train" / label / "1.png", pixels(12, 20, 3))
    given = ("--dataset", name, "--set", "data.size=[224,256]", "--steps", "1")
    done = lra_bench("run", *given, "--teacher", "torchvision:vit_b_16", "--out", tmp_path / "runs")
    assert (done.code, "torchvision:vit_b_16" in done.err.splitlines()[-1]) == (2, True)
