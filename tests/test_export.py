"""Students in other formats: each is read back by its own library and gives the student's logits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from lra.benchmarks.errors import LraError
from lra.benchmarks.export import exporting
from lra.benchmarks.export.exporting import FORMATS, export, load_student
from lra.benchmarks.export.model_card import model_card
from lra.benchmarks.setup.weights_files import read_weights
from lra.networks.normalized import Normalized

pytestmark = pytest.mark.usefixtures("plain_report")

Bench = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    from lra.benchmarks.runs.runner import run as do
    from lra.benchmarks.setup.resolution import configuration

    pairs = dict(zip(tiny[0:6:2], tiny[1:6:2], strict=True))
    assert pairs == {"--teacher": "mlp", "--student": "mlp", "--steps": "20"}
    # A student with BatchNorm and convolutions, which exporters can get wrong.
    config = configuration(teacher="mlp", student="resnet8", steps=20, set=tuple(tiny[7::2]))
    return do(config, tmp_path_factory.mktemp("runs"), quiet=True).path


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def logits(run: Path, images: torch.Tensor) -> torch.Tensor:
    return load_student(run)[1](images)


def test_safetensors(run: Path, tmp_path: Path, images: torch.Tensor, lra_bench: Bench) -> None:
    file, card = export(run, ["safetensors"], tmp_path)
    student = load_student(run)[1]
    student.network.load_state_dict(load_file(file))
    assert torch.equal(student(images), logits(run, images))
    taught = lra_bench("teacher", "check", file, "--set", "data.size=8")  # it is a teacher file too
    assert taught.code in (0, 1)
    assert taught.code == 0 or "chance" in taught.err
    assert card.name == "README.md"


def test_torch_export(run: Path, tmp_path: Path, images: torch.Tensor) -> None:
    file, _ = export(run, ["pt2"], tmp_path)
    program = torch.export.load(file).module()
    for some in (images, images[:1]):
        torch.testing.assert_close(program(some), logits(run, some))


def test_onnx(run: Path, tmp_path: Path, images: torch.Tensor) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file, _ = export(run, ["onnx"], tmp_path)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for some in (images, images[:1]):
        (found,) = session.run(["logits"], {"images": some.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), logits(run, some), rtol=1e-4, atol=1e-4)


class Length(nn.Module):
    """Takes the batch's size as a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(len(x), -1))


class Double(Length):
    """Computes in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.fc.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double()).float()


class OneByOne(Length):
    """Goes through the images one by one: as many times as there were when it was written."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.fc(image.flatten()) for image in x])


class InNines(Length):
    """Is right for nine images, and for others something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) * (x.new_ones(9).sum() if torch.compiler.is_exporting() else len(x))


@pytest.fixture
def of(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Exports another network as if it were the run's student."""

    def export_(network: nn.Module, name: str) -> Path:
        known, _, notes = load_student(run)
        student = Normalized(network, [0.2], [0.5]).eval().requires_grad_(False)
        monkeypatch.setattr(exporting, "load_student", lambda folder: (known, student, notes))
        return export(run, [name], tmp_path)[0]

    return export_


@pytest.mark.parametrize("name", ["pt2", "onnx"])
@pytest.mark.parametrize("kind", [Length, Double])
def test_a_file_takes_any_number_of_images(
    of: Callable[..., Any], images: torch.Tensor, name: str, kind: type[nn.Module]
) -> None:
    if name == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    network = kind().eval().requires_grad_(False)
    file = of(network, name)
    for count in (5, 2, 1):
        found = FORMATS[name][1](file, images[:count])
        torch.testing.assert_close(found, network((images[:count] - 0.2) / 0.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OneByOne, "its forward treats their number as a constant"),
        (lambda: torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), "torch.jit.script"),
        (InNines, "differs from the student"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_network_that_fixes_the_number_of_images_is_refused_in_one_line(
    of: Callable[..., Any], kind: Callable[[], nn.Module], said: str, tmp_path: Path
) -> None:
    with pytest.raises(LraError, match=r"^pt2: ") as caught:
        of(kind(), "pt2")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()], "nothing is left"


def test_a_file_of_one_number_of_images_is_found_out(
    of: Callable[..., Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an exporter would write it that takes the number it is shown for the only one."""

    def write(student: Normalized, file: Path, images: torch.Tensor, notes: dict[str, Any]) -> None:
        torch.export.save(torch.export.export(student, (images,)), file)

    monkeypatch.setitem(FORMATS, "pt2", (write, FORMATS["pt2"][1]))
    with pytest.raises(LraError, match=r"pt2: the exported file does not accept 4 images"):
        of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "pt2")


def test_the_card_says_what_a_user_must_know(run: Path, lra_bench: Bench) -> None:
    done = lra_bench("export", run, "--format", "safetensors,pt2", "--licence", "CC|BY")
    assert done.code == 0, done.err
    names = ["student.safetensors", "student.pt2", "README.md"]
    assert done.out.splitlines() == [str(run / "export" / name) for name in names]
    card = (run / "export" / "README.md").read_text()
    result = json.loads((run / "result.json").read_text())
    for words in (
        result["teacher"]["sha256"],
        "No image of digits was used to train this network",
        "Method predfkd, replay reservoir, seed 0",
        f"| test accuracy | {result['accuracy']['final']:.2f} % |",
        "images (n × 1 × 8 × 8), float32 in [0, 1]; normalised inside",
        "| classes, in the order of the logits | 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |",
        "CC\\|BY",
    ):
        assert words in card
    assert read_weights(run / "export" / "student.safetensors")[1].names == list("0123456789")


def test_a_card_of_many_classes_says_where_all_are(run: Path) -> None:
    found, _, notes = load_student(run)
    for names, row in (
        (
            ["T|top", "<b>cat</b>"],
            "| classes, in the order of the logits | T\\\\|top, \\<b\\>cat\\</b\\> |",
        ),
        ([f"c{i}" for i in range(20)], "c18, c19 |"),
        ([f"c{i}" for i in range(1021)], "c18, c19 and 1,001 more: `data.json` in the run's folder has all |"),
    ):
        assert row in model_card(found, notes | {"names": names}, [], None)
    assert "classes, in" not in model_card(found, notes | {"names": None}, [], None)


def test_a_file_that_differs_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = exporting.FORMATS["pt2"]
    monkeypatch.setitem(exporting.FORMATS, "pt2", (write, lambda file, images: read(file, images) + 1))
    with pytest.raises(exporting.LraError, match="differs from the student"):
        export(run, ["pt2"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(run: Path, lra_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = lra_bench("export", run, "--format", "onnx")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "pip install onnx onnxscript onnxruntime" in done.err


@pytest.mark.parametrize(("formats", "words"), [("onx", "did you mean 'onnx'"), (",", "is empty")])
def test_wrong_formats_are_one_line(run: Path, lra_bench: Bench, formats: str, words: str) -> None:
    done = lra_bench("export", run, "--format", formats)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err


def test_the_card_of_an_odd_result_leaves_out_what_is_odd(run: Path, tmp_path: Path, lra_bench: Bench) -> None:
    odd = shutil.copytree(run, tmp_path / "odd")
    (odd / "result.json").write_text(json.dumps({"teacher": 3, "accuracy": [1], "method": None, "cost": "x"}))
    assert lra_bench("export", odd).code == 0
    assert "distilled from mlp" in (odd / "export" / "README.md").read_text()


def test_runs_that_cannot_be_exported(run: Path, tmp_path: Path, lra_bench: Bench) -> None:
    assert lra_bench("export", tmp_path).code == 3
    copy = shutil.copytree(run, tmp_path / "a")
    (copy / "student.safetensors").write_bytes(b"no")
    assert lra_bench("export", copy).code == 2
    (copy / "student.safetensors").unlink()
    done = lra_bench("export", copy)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "resume" in done.err


@pytest.mark.parametrize(
    ("given", "license_", "name"),
    [
        ("apache-2.0", "apache-2.0", None),
        ("Apache-2.0", "apache-2.0", None),
        ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0", None),
        ("GPL-3.0-or-later", "gpl-3.0", None),
        ("ours: [all] rights \"reserved\" # 'yes'", "other", "ours: [all] rights \"reserved\" # 'yes'"),
        ("two\nlines: x", "other", "two lines: x"),
        ("---", "other", "---"),
        (" ", "unknown", None),
        (None, "unknown", None),
    ],
)
def test_the_card_names_the_licence_it_is_given(
    run: Path, tmp_path: Path, given: str | None, license_: str, name: str | None
) -> None:
    """As YAML that says the same whatever the text: the head of a card is read by programs."""
    *_, card = export(run, ["safetensors"], tmp_path, given)
    text = card.read_text()
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert (head["license"], head.get("license_name")) == (license_, name)
    assert ("Not stated" in text) == (license_ == "unknown")
