"""Networks of the kinds that users bring, as teacher and as student, from the first step to the export."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lra.networks import build
from lra.options import Precision
from lra.quantization.network import Unquantizable, quantized, size

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm


def pixels(image):
    return image[0] * image[1] * image[2]


class Extra(nn.Module):
    def __init__(self, classes, image):
        super().__init__()
        self.fc = nn.Linear(pixels(image), classes)
        self.rotation = nn.Linear(4, 4)
        self.unused = nn.BatchNorm1d(7)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Cosine(nn.Module):
    def __init__(self, classes, image):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(image[0], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.weight = nn.Parameter(torch.randn(classes, 8 * (image[1] - 2) * (image[2] - 2)))

    def forward(self, x):
        return 10 * F.linear(F.normalize(self.body(x), dim=1), F.normalize(self.weight, dim=1))


class Shared(nn.Module):
    def __init__(self, classes, image):
        super().__init__()
        self.first = nn.Conv2d(image[0], 4, 3, padding=1)
        self.a, self.n = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.m = self.a, self.n
        self.fc = nn.Linear(4 * image[1] * image[2], classes)

    def forward(self, x):
        x = self.n(self.a(self.first(x))).relu()
        return self.fc(self.m(self.b(x)).relu().flatten(1))


class Tied(Shared):
    def __init__(self, classes, image):
        super().__init__(classes, image)
        self.b, self.m = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b.weight = self.a.weight
        self.m.weight, self.m.bias = self.n.weight, self.n.bias
        self.m.running_mean = self.n.running_mean


class Overlapping(Shared):
    def __init__(self, classes, image):
        super().__init__(classes, image)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.b.weight = nn.Parameter(self.a.weight.data.mT)


def between(layer):
    return lambda classes, image: nn.Sequential(
        nn.Conv2d(image[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), layer(nn.Conv2d(4, 4, 3, padding=1)),
        nn.Flatten(), layer(nn.Linear(4 * image[1] * image[2], classes)),
    )


weight_normed, spectral_normed = between(weight_norm), between(spectral_norm)
weight_parametrised = between(parametrizations.weight_norm)
spectral_parametrised = between(parametrizations.spectral_norm)


def lazy(classes, image):
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))


class Special(nn.Conv2d):
    pass


def special(classes, image):
    return nn.Sequential(Special(image[0], 2, 3), nn.Flatten(), nn.LazyLinear(classes))


def batch_only(classes, image):
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(image[0], 2, 3), norm, nn.Flatten(), nn.LazyLinear(classes))
"""

IMAGE, CLASSES = (1, 8, 8), 10
NORMED = ["weight_normed", "spectral_normed", "weight_parametrised", "spectral_parametrised"]

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")


@pytest.fixture(scope="module", autouse=True)
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "their_networks.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    sys.modules.pop("their_networks", None)


@pytest.fixture
def run(lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path) -> Callable[..., Any]:
    def call(*options: object, command: str = "run") -> Any:
        return lra_bench(command, *tiny, "--steps", 8, "--set", "teacher.lr=0.02", *options, "--out", tmp_path)

    return call


def their(name: str) -> str:
    return f"their_networks:{name}"


@pytest.mark.parametrize("method", ["predfkd", "dfme", "dafl", "softtarget"])
def test_a_layer_that_is_registered_last_and_unused_is_no_classifier(run: Callable[..., Any], method: str) -> None:
    extra = ("--set", "synthesis.activation=0.1") if method == "dafl" else ()
    done = run("--method", method, "--teacher", their("Extra"), *extra)
    if method == "softtarget":  # A single layer has no other that makes its features.
        assert (done.code, done.err.count("Traceback")) == (2, 0)
        assert "as many inputs" in done.err
    else:
        assert done.code == 0, done.err


def test_what_a_method_does_not_need_is_not_asked_of_a_teacher(run: Callable[..., Any]) -> None:
    assert run("--method", "dfme", "--teacher", their("Cosine"), "--student", their("Cosine")).code == 0


def test_features_that_cannot_be_found_can_be_named(run: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--method", "dafl", "--teacher", their("Cosine"), "--set", "synthesis.activation=0.1")
    refused = run(*options)
    assert refused.code == 2
    assert "Cosine cannot be found" in refused.err.splitlines()[-1]
    assert "teacher.features" in refused.err
    wrong = run(*options, "--set", "teacher.features=bodi")
    assert "teacher.features: Cosine has no module 'bodi'; did you mean 'body'?" in wrong.err
    named = run(*options, "--set", "teacher.features=body")
    assert named.code == 0, named.err
    (folder,) = (file.parent for file in tmp_path.rglob("result.json"))
    assert '"drift": null' not in (folder / "metrics.jsonl").read_text().splitlines()[-1]
    assert "features: body" in (folder / "config.yaml").read_text()
    students = ("--student", their("Cosine"), "--set", "student.features=input:weight")
    assert "student.features: Cosine has no module 'weight'" in run(*options, *students).err


@pytest.mark.parametrize("kind", ["Shared", "Tied"])
def test_what_layers_share_is_trained_resumed_kept_and_exported(
    run: Callable[..., Any], lra_bench: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    done = run("--student", their(kind), "--replay", "memory", "--meta")
    assert done.code == 0, done.err
    (folder,) = (file.parent for file in tmp_path.rglob("result.json"))
    weights = load_file(folder / "student.safetensors")
    assert torch.equal(weights["network.a.weight"], weights["network.b.weight"])
    assert torch.equal(weights["network.n.running_mean"], weights["network.m.running_mean"])
    exported = lra_bench("export", folder, "--format", "safetensors,pt2")
    assert exported.code == 0, exported.err
    as_teacher = ("--teacher", folder / "export" / "student.safetensors", "--set", f"teacher.network={their(kind)}")
    again = run("--method", "dfme", *as_teacher)
    assert again.code in (0, 1)  # a student of eight steps may be no better than chance
    assert "Traceback" not in again.err


@pytest.mark.parametrize("kind", ["Shared", "Tied"])
def test_a_killed_run_of_shared_parameters_ends_as_if_it_had_not_been_killed(
    lra_bench: Callable[..., Any], tiny: list[str], killed: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    options = (*tiny, "--student", their(kind), "--replay", "memory", "--meta", "--set", "replay.period=1")
    done = lra_bench("run", *options, "--out", tmp_path / "whole", "--json")
    assert done.code == 0, done.err
    whole = Path(json.loads(done.out)["run_dir"])
    folder = killed("--out", tmp_path / "killed", *options)
    resumed = lra_bench("resume", folder)
    assert resumed.code == 0, resumed.err
    assert "resumed at experience 5 of 10" in (folder / "log.txt").read_text()
    for name in ("student.safetensors", "generator.safetensors", "metrics.jsonl", "forgetting.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_shared_statistics_go_with_the_lean_engine_and_are_refused_of_the_other(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    refused = run("--student", their("Shared"), "--replay", "memory", "--meta", "--set", "meta.engine=higher")
    assert refused.code == 2
    assert "network.n.running_mean = network.m.running_mean" in refused.err
    assert not [*tmp_path.rglob("metrics.jsonl")], "before the first step"


def test_two_parameters_in_one_memory_are_refused(run: Callable[..., Any]) -> None:
    refused = run("--student", their("Overlapping"))
    assert refused.code == 2
    assert "'a.weight' and 'b.weight' share memory" in refused.err


@pytest.mark.parametrize("kind", ["Shared", "Tied"])
def test_a_quantised_copy_shares_what_the_network_shares(
    run: Callable[..., Any], lra_bench: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    network = build(their(kind), CLASSES, IMAGE)
    copied = quantized(network, Precision())
    assert copied.a.weight is copied.b.weight
    assert (copied.a is copied.b) == (kind == "Shared")
    names = [name for name, _ in network.named_parameters()]
    assert [name for name, _ in copied.named_parameters()] == names
    found = size(copied)
    assert 0 < found["bytes"] < found["bytes_full_precision"]
    done = run("--teacher", their(kind), "--student", their(kind), "--method", "gdfq", command="quantize")
    assert done.code == 0, done.err
    (folder,) = (file.parent for file in tmp_path.rglob("result.json"))
    weights = load_file(folder / "student.safetensors")
    names = [name for name in weights if name.endswith("a.weight")]
    assert names
    for name in names:
        assert torch.equal(weights[name], weights[name.removesuffix("a.weight") + "b.weight"])
    exported = lra_bench("export", folder, "--format", "safetensors,pt2")
    assert exported.code == 0, exported.err


@pytest.mark.parametrize("kind", [*NORMED, "lazy"])
def test_computed_and_lazy_weights_are_taught_by_and_learn(run: Callable[..., Any], kind: str) -> None:
    assert run("--teacher", their(kind), "--method", "adadfkd", "--student", "lenet5-half").code == 0
    meta = run("--student", their(kind), "--replay", "memory", "--meta")
    assert meta.code == 0, meta.err


@pytest.mark.parametrize("kind", NORMED)
def test_computed_weights_are_quantised_as_they_stand(kind: str) -> None:
    torch.manual_seed(0)
    network = build(their(kind), CLASSES, IMAGE).eval().requires_grad_(False)
    images = torch.rand(4, *IMAGE)
    before = network(images)
    copied = quantized(network, Precision(weight_bits=8, activation_bits=8))
    assert torch.allclose(copied[3].weight, network[3].weight)
    assert torch.equal(network(images), before), "the network itself stays as it was"
    assert {"3.weight", "5.weight"} <= dict(copied.named_parameters()).keys()
    assert not any(copied[index]._forward_pre_hooks for index in (3, 5))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("batch_only", "layer '1' (BatchNorm2d) cannot be quantised: it keeps no running statistics"),
        ("special", "layer '0' (Special) cannot be quantised: it is a Conv2d that may compute otherwise"),
        ("Cosine", "layer '' (Cosine) cannot be quantised: layers with parameters have to be"),
        ("Extra", "layer 'unused' (BatchNorm1d) cannot be quantised: layers with parameters have to be"),
    ],
)
def test_what_cannot_be_quantised_is_said_with_the_reason(kind: str, said: str) -> None:
    with pytest.raises(Unquantizable) as caught:
        quantized(build(their(kind), CLASSES, IMAGE), Precision())
    assert said in str(caught.value)
