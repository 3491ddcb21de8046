"""Teachers: trained once and kept by content; files from outside are refused unless whole, harmless and fitting."""

import os
import pickle
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lra.benchmarks import files
from lra.benchmarks.comparison.groups import settings as settings_of_run
from lra.benchmarks.errors import Interrupted, LraError, MissingInput, UsageError
from lra.benchmarks.files import held, read_checkpoint, sha256, write_checkpoint
from lra.benchmarks.records import read_run
from lra.benchmarks.setup import teacher_training
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, Labelled, Normalisation, data_set
from lra.benchmarks.setup.teacher_training import augmented, train
from lra.benchmarks.setup.teachers import TrainedTeacher, cached_path, obtain
from lra.benchmarks.setup.weights_files import FORMAT, read_weights, save_network
from lra.networks import build
from lra.networks.foreign import torchvision_classifier
from lra.networks.normalized import Normalized

pytestmark = pytest.mark.usefixtures("plain_report")

DIGITS = data_set("digits", 8)
TEST = DIGITS.load("test")
RECIPE = TeacherOptions(network="mlp", epochs=3, lr=0.1)


@pytest.fixture(scope="module")
def trained(alone: Path) -> TrainedTeacher:
    return obtain(RECIPE, DIGITS, TEST)


@pytest.fixture
def weights(trained: TrainedTeacher) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.network.network.state_dict().items()}


Refused = Callable[..., str]


@pytest.fixture
def refused() -> Refused:
    """Use a file as the teacher; gives the line that refuses it."""

    def use(path: Path, data: DataSet = DIGITS, kind: type[LraError] = UsageError, **options: Any) -> str:
        given = {"network": "mlp", "mean": [0.3], "std": [0.4]} | options
        with pytest.raises(kind) as error:
            obtain(TeacherOptions(file=str(path), **given), data, data.load("test"))
        assert "\n" not in str(error.value)
        return str(error.value)

    return use


def test_a_teacher_is_trained_once(trained: TrainedTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained.accuracy is not None
    assert trained.accuracy > 80
    assert trained.path == cached_path(RECIPE, DIGITS)

    def never(*arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("lra.benchmarks.setup.teacher_training.train", never)
    again = obtain(RECIPE, DIGITS, TEST)
    assert (again.sha256, again.accuracy) == (trained.sha256, trained.accuracy)


def test_training_is_reproducible_and_leaves_random_states_alone(trained: TrainedTeacher, tmp_path: Path) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    train(RECIPE, DIGITS, tmp_path / "again.safetensors", torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert sha256(tmp_path / "again.safetensors") == trained.sha256


@pytest.mark.parametrize("change", [{"epochs": 4}, {"seed": 1}, {"lr": 0.2}, {"network": "lenet5"}, {"augment": 0.0}])
def test_another_recipe_is_another_file(change: dict[str, Any]) -> None:
    assert cached_path(RECIPE.model_copy(update=change), DIGITS) != cached_path(RECIPE, DIGITS)
    assert cached_path(RECIPE, data_set("digits", 16)) != cached_path(RECIPE, DIGITS)


def test_a_teacher_file_says_all_by_itself(trained: TrainedTeacher, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(trained.path.read_bytes())
    found = obtain(TeacherOptions(file=str(copy)), DIGITS, TEST)
    assert (found.name, found.mean, found.std) == (trained.name, trained.mean, trained.std)
    assert found.accuracy == trained.accuracy
    assert found.sha256 == trained.sha256
    assert found.record()["sha256"] == trained.sha256


def test_names_of_classes_stay_with_a_teacher(
    trained: TrainedTeacher, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same names in another order are refused, others said, and what is known of one side alone is nothing."""
    assert read_weights(trained.path)[1].names == list("0123456789")
    options = TeacherOptions(file=str(trained.path))
    capfd.readouterr()
    for same in (DIGITS, replace(DIGITS, names=())):
        assert obtain(options, same, TEST, quiet=True).accuracy == trained.accuracy
    assert "names" not in capfd.readouterr().err
    obtain(options, replace(DIGITS, names=tuple("012x456789")), TEST)
    assert "class 3 is '3' to the teacher and 'x' here" in capfd.readouterr().err
    with pytest.raises(UsageError, match=r"in another order, class 8 is '8' to the teacher and '9' here: number them"):
        obtain(options, replace(DIGITS, names=tuple("0123456798")), TEST)


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["plain", "parallel", "compiled", "checkpoint", "both"],
)
def test_state_dicts_as_they_are_found(
    trained: TrainedTeacher, weights: dict[str, torch.Tensor], tmp_path: Path, dress: Callable[[Any], Any]
) -> None:
    file = tmp_path / "teacher.pt"
    torch.save(dress(weights), file)
    options = TeacherOptions(file=str(file), network="mlp", mean=list(trained.mean), std=list(trained.std))
    assert obtain(options, DIGITS, TEST).accuracy == trained.accuracy


def test_the_network_of_a_file_to_check_is_named_by_a_flag(
    weights: dict[str, torch.Tensor], trained: TrainedTeacher, tmp_path: Path, lra_bench: Callable[..., Any]
) -> None:
    """Whatever its name ends in."""
    file = tmp_path / "weights"
    torch.save(weights, file)
    scale = ("--set", f"teacher.mean={list(trained.mean)}", "--set", f"teacher.std={list(trained.std)}")
    checked = lra_bench("teacher", "check", file, "--teacher", "mlp", "--set", "data.size=8", *scale)
    assert (checked.code, f"accuracy  {trained.accuracy:.2f} %" in checked.out) == (0, True), checked
    planned = lra_bench("run", "--teacher", file, "--dry-run", "--no-timing")
    assert f"file: {file}" in planned.out


def test_a_missing_file_is_a_missing_input(refused: Refused, tmp_path: Path) -> None:
    assert "lra-bench teacher train" in refused(tmp_path / "none.pt", kind=MissingInput)


def test_no_better_than_chance_is_refused(refused: Refused, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({name: torch.randn_like(value) for name, value in weights.items()}, tmp_path / "t.pt")
    assert "chance is 10.0 %" in refused(tmp_path / "t.pt", kind=LraError)


def test_without_a_test_set_chance_cannot_be_told(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({name: torch.zeros_like(value) for name, value in weights.items()}, tmp_path / "t.pt")
    options = TeacherOptions(file=str(tmp_path / "t.pt"), network="mlp", mean=[0.3], std=[0.4])
    assert obtain(options, DIGITS, None).accuracy is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    refused: Refused, weights: dict[str, torch.Tensor], tmp_path: Path, value: float
) -> None:
    name = next(iter(weights))
    weights[name].view(-1)[0] = value
    torch.save(weights, tmp_path / "t.pt")
    assert name in refused(tmp_path / "t.pt")


class Gadget:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".safetensors", ""])
@pytest.mark.parametrize("write", [torch.save, lambda thing, file: file.write_bytes(pickle.dumps(thing))])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    refused: Refused, tmp_path: Path, write: Callable[..., Any], suffix: str
) -> None:
    file, witness = tmp_path / f"teacher{suffix}", tmp_path / "owned"
    write({"weight": Gadget(witness)}, file)
    line = refused(file)
    assert not witness.exists()
    assert "refused" in line or "cannot be read" in line
    # The gadget is live: plain unpickling makes the folder.
    pickle.loads(pickle.dumps(Gadget(witness)))
    assert witness.exists()


def test_content_that_is_no_state_dict_is_refused(refused: Refused, tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "no state dict" in refused(tmp_path / "tensor.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    assert "no weights" in refused(tmp_path / "empty.pt")
    torch.save({0: torch.zeros(3), "b": torch.zeros(2)}, tmp_path / "numbers.pt")
    refused(tmp_path / "numbers.pt")


def test_a_network_of_another_shape_is_refused(refused: Refused, tmp_path: Path) -> None:
    torch.save(build("mlp", 7, (1, 8, 8)).state_dict(), tmp_path / "classes.pt")
    assert "set teacher.network" in refused(tmp_path / "classes.pt")
    torch.save(build("lenet5", 10, (1, 8, 8)).state_dict(), tmp_path / "other.pt")
    assert "not of this" in refused(tmp_path / "other.pt")


def noted(path: Path, image: tuple[int, int, int], classes: int, **more: Any) -> Path:
    network = Normalized(build("mlp", classes, image), [0.5] * image[0], [0.5] * image[0])
    notes = {"network": "mlp", "image": image, "classes": classes, "mean": [0.5] * image[0], "std": [0.5] * image[0]}
    save_network(path, network, notes | more)
    return path


@pytest.mark.parametrize(("image", "classes"), [((3, 8, 8), 10), ((1, 16, 16), 10), ((1, 8, 8), 7)])
def test_a_teacher_of_other_data_is_refused(
    refused: Refused, tmp_path: Path, image: tuple[int, int, int], classes: int
) -> None:
    line = refused(noted(tmp_path / "t.safetensors", image, classes), network="resnet34")
    assert f"takes images {image} of {classes} classes" in line


@pytest.mark.parametrize(
    "notes",
    ["", "{", "3", "null", '"a"', '{"image": 3}', '{"image": [1, 8]}', '{"mean": ["a"]}', '{"network": 3}'],
)
def test_notes_that_make_no_sense_are_refused(
    refused: Refused, weights: dict[str, torch.Tensor], tmp_path: Path, notes: str
) -> None:
    save_file(weights, tmp_path / "t.safetensors", {FORMAT: notes})
    assert "cannot be read" in refused(tmp_path / "t.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mean": None}, "give teacher.mean and teacher.std"),
        ({"mean": [0.1, 0.2, 0.3]}, "teacher.mean"),
        ({"mean": [0.1, 0.2], "std": [0.1, 0.2]}, "teacher.mean has 2 channels and the images 1"),
        ({"std": [0.0]}, "std must be positive"),
        ({"std": [-1.0]}, "std must be positive"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(
    refused: Refused, weights: dict[str, torch.Tensor], tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    torch.save(weights, tmp_path / "t.pt")
    assert said in refused(tmp_path / "t.pt", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    noted(folder / "t.safetensors", (1, 8, 8), 10)
    torch.save(build("mlp", 10, (1, 8, 8)).state_dict(), folder / "t.pt")
    with (folder / "t.pkl").open("wb") as file:
        pickle.dump({"weight": [1.0, 2.0]}, file)
    return {file.suffix: file.read_bytes() for file in folder.iterdir()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(whole: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    """Cut short, or with bytes changed: never anything but a result or our own error."""
    suffix = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[suffix])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, min(len(content) - 1, 600)))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file = tmp_path / f"t{suffix}"
    file.write_bytes(content)
    with suppress(UsageError):
        read_weights(file)


@pytest.mark.parametrize("end", [b"", b"\x04", b"(" * 9])
def test_a_damaged_pickle_that_names_a_class_is_refused(refused: Refused, tmp_path: Path, end: bytes) -> None:
    """What explains the refusal reads the same damaged file."""
    (tmp_path / "t.pt").write_bytes(b"\x80\x02cmyown\nNet\n" + end)
    assert "t.pt" in refused(tmp_path / "t.pt")


def test_a_damaged_archive_that_names_a_class_is_refused(
    refused: Refused, whole: dict[str, bytes], tmp_path: Path
) -> None:
    content = whole[".pt"].replace(b"collections\nOrderedDict", b"collections\nOrderedDicu", 1)
    assert content != whole[".pt"], "the archive's own check of its parts does not fit any more"
    (tmp_path / "t.pt").write_bytes(content)
    assert "t.pt" in refused(tmp_path / "t.pt")


def test_an_unknown_network_is_named(refused: Refused, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "t.pt")
    assert "did you mean 'mlp'" in refused(tmp_path / "t.pt", network="mpl")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = noted(tmp_path / "t.safetensors", (1, 8, 8), 10)
    before = file.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device; the file before it is kept"):
        noted(file, (1, 8, 8), 7)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_labelled_data_is_what_it_says() -> None:
    train, test = DIGITS.load("train"), DIGITS.load("test")
    assert isinstance(train, Labelled)
    assert (len(train.images), len(test.images)) == (1437, 360)
    assert train.images.shape[1:] == DIGITS.image
    assert 0 <= float(train.images.min()) <= float(train.images.max()) <= 1
    assert torch.bincount(test.classes).min() >= 34, "stratified"
    assert torch.equal(DIGITS.load("train").images, train.images), "always the same split"
    # No image is in both.
    assert not {image.numpy().tobytes() for image in test.images} & {i.numpy().tobytes() for i in train.images}


def test_training_images_are_moved_and_mirrored_as_said() -> None:
    """Each by up to an eighth of the side, with black coming in; nothing is blurred or lost in the middle."""
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 16, 16)
    images[:, :, 7, 6:8] = torch.tensor([0.25, 1.0])
    assert augmented(images, 0) is images
    for how, mirrored in (("crop", False), ("crop-flip", True)):
        moved = augmented(images, how)
        assert torch.equal(moved.sum((1, 2, 3)), images.sum((1, 2, 3)))
        places = moved.flatten(1).argmax(1)
        rows = (places // 16 - 7).unique().tolist()
        assert rows == [-2, -1, 0, 1, 2]
        left = moved.flatten(1).gather(1, places[:, None] - 1).squeeze(1) == 0.25
        assert left.all() != mirrored


class Killed(BaseException):
    """As if by SIGKILL: nothing is caught or saved on the way out."""


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something in a teacher's training, as its minibatch of this number is made."""

    def arrange(number: int, do: Callable[[], object]) -> None:
        count = 0

        def counted(images: torch.Tensor, how: Any) -> torch.Tensor:
            nonlocal count
            count += 1
            if count == number:
                do()
            return augmented(images, how)

        monkeypatch.setattr(teacher_training, "augmented", counted)

    return arrange


def kill() -> None:
    raise Killed


STEPS = -(-len(DIGITS.load("train").images) // RECIPE.batch_size)
"""Of an epoch."""


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS + 2, 3 * STEPS], ids=["first", "in one", "in two", "last"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    trained: TrainedTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_step: Callable[[int, Callable[[], object]], None],
    step: int,
    killed: bool,
) -> None:
    """A signal costs nothing, a kill what came after the last state that was saved."""
    file = tmp_path / "teacher.safetensors"
    monkeypatch.setattr(teacher_training, "OFTEN", 0.0)
    monkeypatch.setattr(teacher_training, "DEAR", 0)
    at_step(step, kill if killed else lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Killed if killed else Interrupted) as stopped:
        train(RECIPE, DIGITS, file, torch.device("cpu"))
    assert not file.exists()
    if not killed:
        assert (stopped.value.code, "continue with teacher mlp" in str(stopped.value)) == (
            130,
            True,
        )
    left = []
    at_step(1, lambda: left.append(torch.get_rng_state()))
    random.seed(7)
    before = random.getstate(), torch.get_rng_state()
    train(RECIPE, DIGITS, file, torch.device("cpu"))
    assert sha256(file) == trained.sha256
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (left == []) == (step == 3 * STEPS and not killed), "nothing was left to do after the last step"
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".lock"}, "the state is gone"


def test_a_training_does_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_step: Callable[[int, Callable[[], object]], None]
) -> None:
    monkeypatch.setattr(teacher_training, "OFTEN", 0.0)
    monkeypatch.setattr(teacher_training, "DEAR", 0)
    at_step(2 * STEPS, kill)
    with pytest.raises(Killed):
        train(RECIPE, DIGITS, tmp_path / "t.safetensors", torch.device("cpu"))
    at_step(STEPS + 2, kill)  # there are no more than these
    train(RECIPE, DIGITS, tmp_path / "t.safetensors", torch.device("cpu"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b"nothing"),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: write_checkpoint(file, {"place": [0, 0], "order": None, "network": {}}),
        lambda file: write_checkpoint(file, read_checkpoint(file) | {"order": torch.arange(3)}),
        lambda file: write_checkpoint(file, read_checkpoint(file) | {"optimiser": {"state": 3}}),
        lambda file: write_checkpoint(file, read_checkpoint(file) | {"place": [99, 0]}),
    ],
)
def test_a_state_that_rots_is_begun_anew(
    trained: TrainedTeacher,
    tmp_path: Path,
    at_step: Callable[[int, Callable[[], object]], None],
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], object],
) -> None:
    file = tmp_path / "teacher.safetensors"
    at_step(STEPS + 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped:
        train(RECIPE, DIGITS, file, torch.device("cpu"))
    assert stopped.value.code == 75
    (state,) = tmp_path.glob(".*.training")
    harm(state)
    train(RECIPE, DIGITS, file, torch.device("cpu"))
    assert f"{state} is not a state of this teacher" in caplog.text
    assert sha256(file) == trained.sha256


def test_a_second_process_waits_for_the_first(
    trained: TrainedTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    progress_told: None,
) -> None:
    file, first = tmp_path / "teacher.safetensors", ExitStack()
    first.enter_context(held(tmp_path / ".teacher.lock"))

    def meanwhile(seconds: float) -> None:
        file.write_bytes(trained.path.read_bytes())
        first.close()

    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=meanwhile))
    train(RECIPE.model_copy(update={"lr": float("nan")}), DIGITS, file, torch.device("cpu"))
    assert sha256(file) == trained.sha256, "it took the other's"
    assert "another process trains mlp" in capfd.readouterr().err


def test_a_run_goes_on_with_the_training_of_its_teacher(
    lra_bench: Callable[..., Any],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_step: Callable[[int, Callable[[], object]], None],
) -> None:
    monkeypatch.setenv("LRA_CACHE", str(tmp_path / "cache"))
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopped = lra_bench("run", *tiny, "--out", tmp_path / "runs")
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == (
        "lra-bench: stopped; repeat the command to continue with teacher mlp at epoch 1 of 3"
    )
    assert lra_bench("run", *tiny, "--out", tmp_path / "runs").code == 0
    listed = lra_bench("teacher", "list").out.splitlines()
    assert len(listed) == 1
    assert listed[0].endswith(".safetensors")


def test_the_test_set_passes_the_teacher_once(
    trained: TrainedTeacher, lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    test = {image.numpy().tobytes() for images, _ in TEST.batches(512) for image in images}
    seen: Counter[int] = Counter()
    forward = Normalized.forward

    def counted(self: Normalized, images: torch.Tensor) -> torch.Tensor:
        seen[id(self)] += sum(image.detach().numpy().tobytes() in test for image in images)
        return forward(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Normalized, "forward", counted)
        assert lra_bench("run", *tiny, "--out", tmp_path).code == 0
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    evaluations = len(metrics.read_text().splitlines())
    passes = sorted(count / len(TEST.images) for count in seen.values() if count)
    assert passes == [1, evaluations], "the teacher once, the student each time"


# Files that say nothing of themselves: 3x16x16 pictures stand for a data set with a published normalisation.


def pictures(classes: int = 10, channels: int = 3, side: int = 16) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, channels, side, side, generator=generator)
    half = Normalisation((0.5,) * channels, (0.5,) * channels)
    labelled = Labelled(images, torch.arange(40) % classes)
    return DataSet("pictures", (channels, side, side), classes, lambda split: labelled, published=half)


def file_of(network: str, path: Path, **beside: Any) -> Path:
    torch.manual_seed(0)
    torch.save({"state_dict": build(network, 10, (3, 16, 16)).state_dict(), **beside}, path)
    return path


@pytest.mark.parametrize("name", ["resnet8", "resnet14-b", "resnet8x4", "resnet8-wide-stem", "wrn10-3", "vgg8-cmi"])
def test_the_network_of_a_file_is_told_by_its_weights(tmp_path: Path, name: str) -> None:
    """And its normalisation is that of the data set: a file alone is enough."""
    file = file_of(name, tmp_path / "t.pth", arch=name.split("-")[0], epoch=3)
    found = obtain(TeacherOptions(file=str(file)), pictures(), None)
    assert (found.name, found.mean) == (name, (0.5,) * 3)
    assert (
        obtain(TeacherOptions(file=str(file), network=name.replace("-", "_")), pictures(), None).sha256 == found.sha256
    )


@pytest.mark.parametrize(
    ("weights", "beside", "options", "said"),
    [
        ("resnet8", {}, {"network": "resnet8-b"}, "has the weights of resnet8 and teacher.network is resnet8-b: leave"),
        ("resnet8", {}, {"network": "resnet34"}, "--set teacher.network=auto"),
        ("resnet8", {"arch": "resnet20"}, {}, "says arch = 'resnet20' and its weights are of resnet8"),
        ("resnet8", {"arch": "wrn16_1"}, {"network": "resnet8"}, "says arch = 'wrn16_1'"),
        (
            "mobilenetv2",
            {},
            {},
            "mobilenetv2-stride8 or mobilenetv2-cmi, but nothing in it says so: torch",
        ),
        ("mobilenetv2", {}, {"network": "mobilenetv2"}, "give --set teacher.network=mobilenetv2-stride8 or --set"),
        ("mobilenetv2", {"arch": "mobilenetv2"}, {}, "mobilenetv2-stride8 or mobilenetv2-cmi"),
        ("resnet18", {}, {}, "resnet18 or resnet18-maxpool, but nothing in it says so"),
        ("lenet5", {}, {}, "has the weights of lenet5, but nothing in it says so: another activation"),
        ("torchvision:squeezenet1_0", {}, {"network": "resnet18"}, "has the weights of torchvision:squeezenet1_0 and "),
        ("torchvision:squeezenet1_0", {"arch": "wrn16_1"}, {}, "its weights are of torchvision:squeezenet1_0"),
        ("torchvision:squeezenet1_0", {}, {}, "takes images (3, 16, 16) of 12 classes and pictures has "),
        ("torchvision:googlenet", {}, {}, "transform_input"),
    ],
)
def test_what_a_file_does_not_say_or_says_otherwise_is_refused(
    tmp_path: Path, weights: str, beside: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    image, classes = (3, 64, 64) if "torchvision" in weights else (3, 16, 16), 12 if "12 classes" in said else 10
    torch.save({"state_dict": build(weights, classes, image, trains=False).state_dict(), **beside}, tmp_path / "t.pth")
    with pytest.raises(UsageError, match=r"\Ateacher t.pth .*\Z") as error:
        obtain(TeacherOptions(file=str(tmp_path / "t.pth"), **options), pictures(), None)
    assert said in str(error.value)


def test_weights_of_no_network_that_is_known_are_refused(tmp_path: Path) -> None:
    weights = build("resnet8", 10, (3, 16, 16)).state_dict() | {"extra.weight": torch.zeros(3)}
    torch.save(weights, tmp_path / "t.pth")
    with pytest.raises(
        UsageError, match=r"weights of no network known here \(see: list models\); the nearest is resnet8"
    ):
        obtain(TeacherOptions(file=str(tmp_path / "t.pth")), pictures(), None)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_a_file_of_torchvisions_weights_is_enough(tmp_path: Path, name: str) -> None:
    """Where the file says ``arch`` as torchvision does, that is the same opinion."""
    torch.manual_seed(0)
    theirs = torchvision_classifier(name, 10).eval()
    torch.save({"arch": name, "state_dict": theirs.state_dict()}, tmp_path / "t.pth")
    data = pictures(side=64)
    found = obtain(TeacherOptions(file=str(tmp_path / "t.pth")), data, None)
    images = data.load("test").images[:4]
    assert found.name == f"torchvision:{name}"
    torch.testing.assert_close(found.network.eval()(images), theirs((images - 0.5) / 0.5))


@pytest.mark.parametrize("name", ["mobilenetv2-cmi", "mobilenetv2-stride8", "resnet18", "lenet5"])
def test_a_name_that_says_what_the_file_does_not_is_enough(tmp_path: Path, name: str) -> None:
    file = file_of(name, tmp_path / "t.pth", arch="mobilenetv2" if "mobile" in name else "unheard of")
    found = obtain(TeacherOptions(file=str(file), network=name), pictures(), None)
    images = torch.rand(2, 3, 16, 16)
    assert found.name == name
    expected = build(name, 10, (3, 16, 16))
    expected.load_state_dict(torch.load(file)["state_dict"])
    torch.testing.assert_close(found.network.network(images), expected(images))


@pytest.mark.parametrize(("classes", "channels"), [(7, 3), (10, 1)])
def test_a_recognised_teacher_of_other_data_is_refused(tmp_path: Path, classes: int, channels: int) -> None:
    file = file_of("resnet8", tmp_path / "t.pth")
    with pytest.raises(UsageError, match=r"takes images \(3, 16, 16\) of 10 classes and pictures has"):
        obtain(TeacherOptions(file=str(file)), pictures(classes, channels), None)


def test_our_own_file_says_more_than_the_user(tmp_path: Path) -> None:
    file = noted(tmp_path / "t.safetensors", (1, 8, 8), 10)
    assert obtain(TeacherOptions(file=str(file), network="MLP"), DIGITS, None).name == "mlp"
    with pytest.raises(UsageError, match=r"says that it is of mlp and teacher.network is lenet5: leave it out"):
        obtain(TeacherOptions(file=str(file), network="lenet5"), DIGITS, None)


def test_a_file_takes_the_place_of_the_network_that_a_data_set_would_have(
    trained: TrainedTeacher, lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    """The network in the stored configuration is not one that the file contradicts when it is used again."""
    options = [part for part in tiny if part not in ("--teacher", "mlp", "--student")]
    done = lra_bench("run", "--teacher", trained.path, "--student", "mlp", *options, "--out", tmp_path)
    assert done.code == 0, done
    stored = next(tmp_path.rglob("config.yaml"))
    assert "network: auto" in stored.read_text()
    again = lra_bench("run", "--config", stored, "--out", tmp_path / "again")
    assert again.code == 0, again
    wrong = lra_bench("run", "--config", stored, "--set", "teacher.network=lenet5", "--out", tmp_path / "wrong")
    assert (wrong.code, "teacher.network is lenet5" in wrong.err) == (2, True)
    alone = lra_bench("run", "--teacher", "auto", "--dry-run")
    assert (alone.code, "unknown teacher.network 'auto'" in alone.err) == (2, True)
    assert settings_of_run(read_run(stored.parent))["teacher.network"] == "mlp", "comparisons name what it is"
