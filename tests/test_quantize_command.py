"""``lra-bench quantize``: from a teacher to files of a student in few bits."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lra.benchmarks.export.exporting import load_student
from lra.benchmarks.setup.weights_files import read_weights

pytestmark = pytest.mark.usefixtures("plain_report")

Call = Callable[..., Any]

SHORT = [
    *("--teacher", "resnet8", "--steps", "6", "--set", "data.size=8", "--set", "teacher.epochs=3"),
    *("--set", "schedule={batch_size: 16, experiences_per_epoch: 3}"),
    *("--set", "synthesis.warmup=4", "--set", "synthesis.width=8", "--set", "quantization.noise=64"),
    *("--set", "evaluation.probe_size=16", "--set", "evaluation.samples=0"),
]


def quantized(call: Call, out: Path, *options: object) -> dict[str, Any]:
    done = call("quantize", *SHORT, "--out", out, "--json", *options)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_a_student_of_few_bits_with_its_baseline_and_size(lra_bench: Call, tmp_path: Path) -> None:
    result = quantized(lra_bench, tmp_path, "--weight-bits", 3, "--activation-bits", 5)
    found = result["quantization"]
    assert (found["weight_bits"], found["activation_bits"], found["simulated"]) == (3, 5, True)
    assert found["bytes"] < found["bytes_full_precision"] / 4
    assert 3 < found["bits_per_weight"] < 8
    assert 0 <= found["post_training"]["accuracy"] <= 100
    assert result["student"]["name"] == result["teacher"]["name"] == "resnet8"
    again = quantized(lra_bench, tmp_path, "--weight-bits", 3, "--activation-bits", 5)
    assert again == result
    text = lra_bench("quantize", *SHORT, "--out", tmp_path, "--weight-bits", 3, "--activation-bits", 5).out
    assert "W3A5 (simulated)" in text
    done = lra_bench("compare", tmp_path, "--columns", "lost,post_training,gained,bits", "--format", "csv")
    assert done.code == 0, done.err
    means = {row["column"]: float(row["mean"]) for row in csv.DictReader(done.out.splitlines())}
    assert means["gained"] == pytest.approx(result["accuracy"]["final"] - found["post_training"]["accuracy"])


def test_of_several_processes_one_prints(lra_bench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized(lra_bench, tmp_path)
    monkeypatch.setattr("lra.benchmarks.runs.machine.leads", lambda: False)
    done = lra_bench("quantize", *SHORT, "--out", tmp_path, "--json")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize("extra", [["--rgal"], ["--replay", "memory", "--meta"]])
def test_with_rgal_and_with_the_meta_step(lra_bench: Call, tmp_path: Path, extra: list[str]) -> None:
    result = quantized(lra_bench, tmp_path, *extra)
    assert result["accuracy"]["final"] > 20
    tree = (Path(result["run_dir"]) / "config.yaml").read_text()
    assert ("student_triplet: 0.1" in tree) == ("--rgal" in extra)


def test_what_is_exported_gives_the_students_logits_again(lra_bench: Call, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = Path(quantized(lra_bench, tmp_path)["run_dir"])
    done = lra_bench("export", folder, "--format", "safetensors,onnx,pt2")
    assert done.code == 0, done.err
    content, notes = read_weights(folder / "export" / "student.safetensors")
    assert notes.quantization is not None
    assert notes.quantization["weight_bits"] == 4
    assert content["conv1.weight"].dtype == torch.int8
    assert content["layer1.0.conv1.weight"].min() >= -8
    card = (folder / "export" / "README.md").read_text()
    assert "Simulated" in card
    assert "latency" in card
    _, student, noted = load_student(folder)
    images = torch.rand(5, *noted["image"])
    program = torch.export.load(folder / "export" / "student.pt2").module()
    assert torch.allclose(program(images), student(images), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weight-bits", "9"], "9 is not in the range 2<=x<=8"),
        (["--activation-bits", "1"], "1 is not in the range 2<=x<=8"),
        (["--set", "quantization.weight_bits=1"], "quantization.weight_bits = 1"),
        (["--set", "student.precision=bfloat16"], "student.precision is for students of full precision"),
        (["--student", "lenet5"], "student.network=resnet8"),
        (["--teacher", "lenet5"], "synthesis.bn=0"),
    ],
)
def test_bad_input_is_one_line(lra_bench: Call, tmp_path: Path, options: list[str], said: str) -> None:
    done = lra_bench("quantize", *SHORT, "--out", tmp_path, *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert not list(tmp_path.rglob("result.json"))


def test_a_teacher_of_other_classes_is_refused(lra_bench: Call, tmp_path: Path) -> None:
    from lra.benchmarks.setup.weights_files import save_network
    from lra.networks import build
    from lra.networks.normalized import Normalized

    notes = {"network": "mlp", "classes": 7, "image": (1, 8, 8), "mean": [0.3], "std": [0.3]}
    save_network(tmp_path / "seven.safetensors", Normalized(build("mlp", 7, (1, 8, 8)), [0.3], [0.3]), notes)
    done = lra_bench("quantize", *SHORT, "--teacher", tmp_path / "seven.safetensors", "--out", tmp_path)
    assert done.code == 2
    assert "of 7 classes" in done.err
