"""Networks and weights from elsewhere: torchvision, timm, a user's own function."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lra.anatomy import stages
from lra.benchmarks.errors import LraError, MissingInput, UsageError
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import Labelled, Normalisation
from lra.benchmarks.setup.datasets.labelled import DataSet
from lra.benchmarks.setup.teachers import better, obtain
from lra.benchmarks.setup.weights_files import save_network
from lra.features import BatchNormStatistics, FeatureTap
from lra.networks import build
from lra.networks.normalized import Normalized

pytestmark = pytest.mark.usefixtures("plain_report")

IMAGE = (3, 32, 32)
MODULE = """
import torch
from torch import nn

def network(classes, image):
    return nn.Sequential(nn.Flatten(), nn.Linear(image[0] * image[1] * image[2], classes))

def other_classes(classes, image):
    return network(classes + 1, image)

def no_module(classes, image):
    return lambda images: images

def broken(classes, image):
    raise RuntimeError("out of order\\nand more")

def picky(classes, image):
    raise ValueError("not these\\nimages")

def unlike_in_training(classes, image):
    class Two(nn.Module):
        def forward(self, images):
            logits = images.flatten(1)[:, :classes]
            return (logits, logits) if self.training else logits
    return Two()

def auxiliary(classes, image):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.aside, self.head = (nn.Linear(image[0] * image[1] * image[2], classes) for _ in range(2))
        def forward(self, images):
            x = images.flatten(1)
            return (self.head(x), self.aside(x)) if self.training else self.head(x)
    return Auxiliary()

def viewing(classes, image):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.head = nn.Conv2d(image[0], 4, 3), nn.Linear(4 * (image[1] - 2) ** 2, classes)
        def forward(self, images):
            return self.head(self.convolution(images).view(len(images), -1))
    return Views()

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's module, importable."""
    (tmp_path / "own_networks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return "own_networks"


def test_torchvisions_networks_are_torchvisions() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs = resnet18(num_classes=7)
    torch.manual_seed(0)
    network = build("torchvision:resnet18", 7, IMAGE)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), theirs.parameters(), strict=True))
    assert network.training
    assert network.bn1.num_batches_tracked == 0, "trying it leaves no trace"


def test_features_of_foreign_networks_are_there_for_methods_that_look() -> None:
    network = build("torchvision:shufflenet_v2_x0_5", 7, IMAGE).eval()
    with FeatureTap(network, IMAGE) as tap, BatchNormStatistics(network, IMAGE) as statistics:
        network(torch.rand(2, *IMAGE))
    assert tap.features.shape == (2, 1024)
    assert len(statistics.layers) == 56
    assert stages(network, IMAGE)


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("torchvision:resnet81", IMAGE, "did you mean 'resnet18'"),
        ("torchvision:fcn_resnet50", IMAGE, "no classifier"),
        ("torchvision:resnet18", (1, 32, 32), "3 channels"),
        ("torchvision:alexnet", (3, 16, 16), "does not take images"),
        ("own_networks:other_classes", IMAGE, "gives (2, 8) for two images"),
        ("own_networks:no_module", IMAGE, "not a torch module"),
        ("own_networks:broken", IMAGE, "out of order"),
        ("own_networks:picky", IMAGE, "7 classes of (3, 32, 32): not these"),
        (":network", IMAGE, "importing  failed"),
        ("own_networks:unlike_in_training", IMAGE, "gives tuple for two images in training mode"),
        ("own_networks:number", IMAGE, "no function 'number'"),
        ("own_networks:", IMAGE, "no function"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    own: str, name: str, image: tuple[int, int, int], said: str
) -> None:
    with pytest.raises(ValueError, match=r"\A.*\Z") as error:
        build(name, 7, image)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["nowhere:network", "timm:resnet10t"])
def test_a_package_that_is_not_installed(
    lra_bench: Callable[..., Any], tiny: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    done = lra_bench("run", *tiny, "--student", name)
    # Which libraries were loaded before depends on the tests before this one.
    said = [line for line in done.err.splitlines() if not line.startswith("loading ")]
    assert (done.code, len(said)) == (3, 1), done
    assert ("pip install timm" if "timm" in name else "PYTHONPATH") in said[0]


def test_timms_networks_take_any_channels() -> None:
    pytest.importorskip("timm")
    assert build("timm:resnet10t", 5, (1, 32, 32))(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    with pytest.raises(ValueError, match="did you mean 'resnet10t'"):
        build("timm:resnet10tt", 5, IMAGE)


def test_a_network_of_ones_own_teaches_and_learns(
    lra_bench: Callable[..., Any], own: str, tiny: list[str], tmp_path: Path
) -> None:
    """Trained, checked as a file under its wrapper's prefix, and distilled into another of the same."""
    name = f"{own}:network"
    done = lra_bench("run", *tiny, "--teacher", name, "--student", name, "--steps", "4", "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    network = build(name, 10, (1, 8, 8))
    nn.init.zeros_(network[1].weight)
    network[1].weight.data[:, :10] = torch.eye(10)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "t.pth")
    settings = ["data.size=8", f"teacher.network={name}", "teacher.mean=[0]", "teacher.std=[1]"]
    given = [part for setting in settings for part in ("--set", setting)]
    (tmp_path / "a:colon.pth").write_bytes((tmp_path / "t.pth").read_bytes())
    for file in ("t.pth", "a:colon.pth"):
        done = lra_bench("teacher", "check", tmp_path / file, *given)
        # It is read as it is: its network tells digits by their first pixels, which is no better than chance.
        assert done.code == 1
        assert f"{file} is right on" in done.err


def test_a_teacher_may_answer_with_more_than_logits_in_training_mode(
    lra_bench: Callable[..., Any], own: str, tiny: list[str], tmp_path: Path
) -> None:
    """As GoogLeNet and Inception do. Trained here, its auxiliary classifiers learn too; from a file it never trains."""
    name = f"{own}:auxiliary"
    done = lra_bench("run", *tiny, "--teacher", name, "--out", tmp_path)
    assert done.code == 0, done.err
    trained = load_file(json.loads(lra_bench("teacher", "train", *tiny[4:], "--teacher", name, "--json").out)["file"])
    torch.manual_seed(0)
    before = build(name, 10, (1, 8, 8), auxiliary=True).state_dict()
    assert not any(torch.allclose(trained[key], before[key]) for key in ("head.weight", "aside.weight"))
    learnt = trained["aside.weight"].norm()
    assert learnt > 1.2 * before["aside.weight"].norm(), "both heads have learnt"
    torch.save(trained, tmp_path / "t.pt")
    given = ["--teacher", tmp_path / "t.pt", "--set", f"teacher.network={name}", "--out", tmp_path]
    scale = ["--set", "teacher.mean=[0.3]", "--set", "teacher.std=[0.4]"]
    done = lra_bench("run", *tiny[2:], *given, *scale)
    assert done.code == 0, done.err
    done = lra_bench("run", *tiny, "--student", name, "--out", tmp_path)
    assert (done.code, "gives tuple for two images in training mode" in done.err) == (2, True), done


def test_what_a_teacher_answers_with_in_evaluation_mode_is_logits(own: str) -> None:
    assert build(f"{own}:unlike_in_training", 7, IMAGE, trains=False)(torch.rand(2, *IMAGE))[0].shape == (2, 7)
    with pytest.raises(ValueError, match=r"gives \(2, 8\) for two images in evaluation mode"):
        build(f"{own}:other_classes", 7, IMAGE, trains=False)


def test_googlenet_of_torchvision_can_teach() -> None:
    network = build("torchvision:googlenet", 3, IMAGE, auxiliary=True)
    main, *others = network.train()(torch.rand(2, *IMAGE))
    assert [logits.shape for logits in (main, *others)] == [(2, 3)] * 3


# Weights files of foreign networks


def problem(classes: int = 4, published: Normalisation | None = None) -> DataSet:
    """Images whose class is their brightest channel of three: a linear network tells it."""
    torch.manual_seed(0)
    images = torch.rand(60, 3, 8, 8)
    means = images.mean((2, 3))
    return DataSet("bright", (3, 8, 8), classes, lambda split: Labelled(images, means.argmax(1)), published=published)


def brightest(classes: int = 4) -> dict[str, torch.Tensor]:
    weight = torch.zeros(classes, 3, 64)
    for channel in range(3):
        weight[channel, channel] = 1
    return {"1.weight": weight.flatten(1), "1.bias": torch.tensor([0.0] * 3 + [-100.0] * (classes - 3))}


def found(file: Path, network: str, data: DataSet, **more: Any) -> float | None:
    options = TeacherOptions(file=str(file), network=network, **more)
    return obtain(options, data, data.load("test")).accuracy


def test_the_normalisation_is_the_users_or_the_data_sets(own: str, tmp_path: Path) -> None:
    torch.save(brightest(), tmp_path / "t.pt")
    name = f"{own}:network"
    assert found(tmp_path / "t.pt", name, problem(), mean=[0.5] * 3, std=[0.5] * 3) == 100
    assert found(tmp_path / "t.pt", name, problem(published=Normalisation((0.5,) * 3, (0.5,) * 3))) == 100
    blind = Normalisation((0.5, 0.5, 100.0), (0.5,) * 3)
    accuracy = found(tmp_path / "t.pt", name, problem(published=blind))
    assert accuracy is not None
    assert accuracy < 90, "one channel in three is never the brightest"
    for one in ({"mean": [0.5] * 3}, {"std": [0.5] * 3}):
        with pytest.raises(UsageError, match=r"give teacher.mean and teacher.std"):
            found(tmp_path / "t.pt", name, problem(published=blind), **one)


def test_a_normalisation_that_another_beats_is_said_and_kept(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(brightest(), tmp_path / "t.pt")
    name, half = f"{own}:network", {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert found(tmp_path / "t.pt", name, problem(), **half) == 100
    assert capsys.readouterr().err == "", "nothing is said of the right one"
    accuracy = found(tmp_path / "t.pt", name, problem(), mean=[0.5, 0.5, 9.0], std=[0.5] * 3)
    said = capsys.readouterr().err
    assert accuracy is not None
    assert accuracy < 90
    assert f"against {accuracy:.1f} % as it is" in said
    assert "is right on 100.0 % of 60 test images" in said
    assert '--set "teacher.mean=[0.5, 0.5, 0.5]"' in said
    assert said.count("\n") == 1
    # No better than chance, it is refused with the same advice.
    with pytest.raises(LraError, match=r"chance is 25.0 %: with the 0.5 normalisation it is right on 100.0 %"):
        found(tmp_path / "t.pt", name, problem(), mean=[9.0, 9.0, -9.0], std=[1.0] * 3)


def test_a_normalisation_that_is_missing_is_looked_for(own: str, tmp_path: Path) -> None:
    torch.save(brightest(), tmp_path / "t.pt")
    with pytest.raises(
        UsageError, match=r"give teacher.mean and teacher.std; with the 0.5 normalisation .* 100.0 % of"
    ):
        found(tmp_path / "t.pt", f"{own}:network", problem())
    options = TeacherOptions(file=str(tmp_path / "t.pt"), network=f"{own}:network")
    with pytest.raises(UsageError, match=r"give teacher.mean and teacher.std\Z"):
        obtain(options, problem(), None)


def test_the_test_set_is_not_passed_again_for_each_normalisation() -> None:
    torch.manual_seed(0)
    seen = 0

    def count(module: nn.Module, images: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        nonlocal seen
        seen += len(images[0])

    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    body.register_forward_hook(count)
    test = Labelled(torch.rand(5000, 3, 2, 2), torch.arange(5000) % 4)
    better(Normalized(body, [0.5] * 3, [0.5] * 3), torch.zeros(5000, 4), test, torch.device("cpu"))
    assert 0 < seen <= 5 * 256


def test_weights_that_do_not_fit_name_the_first_few(own: str, tmp_path: Path) -> None:
    given = {"mean": [0.5] * 3, "std": [0.5] * 3}
    torch.save({f"layer{i}.weight": torch.zeros(2) for i in range(9)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"2 missing \['1.weight', '1.bias'\], 9 unknown \['layer0.weight', ") as error:
        found(tmp_path / "other.pt", f"{own}:network", problem(), **given)
    assert "'layer3.weight'" not in str(error.value)
    torch.save(brightest(5), tmp_path / "five.pt")
    with pytest.raises(UsageError, match=r"for 4 classes .* is \(5, 192\) in the weights, not \(4, 192\)"):
        found(tmp_path / "five.pt", f"{own}:network", problem(), **given)


def test_a_file_cannot_have_code_run_that_the_user_did_not_name(own: str, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    network = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), [0.5] * 3, [0.5] * 3)
    network.network.load_state_dict(brightest())
    notes = {"network": f"{own}:network", "classes": 4, "image": (3, 8, 8), "mean": [0.5] * 3, "std": [0.5] * 3}
    save_network(file, network, notes)
    with pytest.raises(UsageError, match="code to be run"):
        found(file, "mlp", problem())
    assert own not in sys.modules
    assert found(file, f"{own}:network", problem()) == 100


def test_a_missing_module_of_a_teacher_is_a_missing_input(tmp_path: Path) -> None:
    torch.save(brightest(), tmp_path / "t.pt")
    with pytest.raises(MissingInput, match="nowhere"):
        found(tmp_path / "t.pt", "nowhere:network", problem(), mean=[0.5] * 3, std=[0.5] * 3)


def test_a_network_that_needs_contiguous_maps_cannot_have_them_channels_last(
    own: str, tiny: list[str], lra_bench: Callable[..., Any], tmp_path: Path
) -> None:
    options = ("run", *tiny, "--student", "own_networks:viewing", "--out", tmp_path)
    assert lra_bench(*options).code == 0
    done = lra_bench(*options, "--set", "student.channels_last=true")
    assert done.code == 2
    assert "student.channels_last: own_networks:viewing cannot be run so (view size is not compatible" in done.err
    assert done.err.rstrip().endswith("leave it out")
    assert done.err.count("\n") == 1
