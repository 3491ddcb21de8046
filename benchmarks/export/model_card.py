"""The card of an exported student: what it is, where it comes from, what it was measured at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lra.benchmarks.markdown import table
from lra.benchmarks.records import Run, number, pick

USES = {
    "student.safetensors": "`lra-bench run --teacher student.safetensors`, or `safetensors.torch.load_file`",
    "student.onnx": "any ONNX runtime; input `images`, output `logits`",
    "student.pt2": '`torch.export.load("student.pt2").module()(images)`',
}


def model_card(run: Run, notes: dict[str, Any], files: Sequence[Path], licence: str | None) -> str:
    """The card as Markdown.

    Args:
        run: a finished run.
        notes: network, classes, image, mean and std.
        files: what was exported.
        licence: of the weights, if that is known.
    """
    result, teacher = run.result, run.teacher
    dataset = _word(result.get("dataset"))
    meta = " with the LRA meta step" if result.get("meta") else ""
    lines = [
        *("---", "library_name: lra", f"license: {'other' if licence else 'unknown'}"),
        *("tags: [knowledge-distillation, data-free]", "---", ""),
        f"# {_word(notes['network'])}, distilled from {_word(teacher.get('name'))} without data",
        "",
        f"Method {_word(result.get('method'))}, replay {_word(result.get('replay'))}{meta}, seed {result.get('seed')}; "
        f"{_count(pick(result, 'student', 'parameters'))} parameters.",
        "",
        "## Data",
        "",
        f"No image of {dataset} was used to train this network. It learned from generated images and the answers of "
        f"its teacher to them ({_count(pick(result, 'cost', 'teacher_queries'))} queries, "
        f"{_count(pick(result, 'cost', 'student_steps'))} student steps). "
        + (
            f"The test set of {dataset} served to measure it, and for nothing else."
            if result.get("accuracy")
            else "There was no test set."
        ),
        "The teacher was trained on real data; what it knows of them may be in this network too.",
        "",
        *_section("Teacher", _teacher(teacher)),
        *_section("Measured", _measures(result)),
        *_quantization(result),
        *_section("Use", _use(notes, files)),
        "## Licence",
        "",
        _word(licence)
        if licence
        else "Not stated. These weights derive from the teacher's: its licence may bind them.",
        "",
        f"Made by lra {_word(pick(result, 'versions', 'lra'))}; configuration {_word(result.get('config_hash'))}.",
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"## {title}", "", table(["", ""], rows, words=(0, 1)), ""]


def _teacher(teacher: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("network", _word(teacher.get("name"))),
        ("SHA-256 of its file", f"`{_word(teacher.get('sha256'))}`"),
        ("test accuracy", _number(teacher.get("accuracy"), " %")),
    ]


def _measures(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("test accuracy", _number(pick(result, "accuracy", "final"), " %")),
        ("agreement with the teacher", _number(result.get("agreement"), " %")),
        ("mean accuracy over the run, μ", _number(pick(result, "accuracy", "mean"), " %")),
        ("variance over the run, σ²", _number(pick(result, "accuracy", "variance"))),
        ("forgetting of probes", _number(pick(result, "forgetting", "average"), " points")),
    ]


def _quantization(result: dict[str, Any]) -> list[str]:
    found = result.get("quantization")
    if not isinstance(found, dict):
        return []
    rows = [
        (
            "bits of weights and of layers' inputs",
            f"{_count(found.get('weight_bits'))}, {_count(found.get('activation_bits'))}",
        ),
        ("bytes, with so many bits a weight", _count(found.get("bytes"))),
        ("bytes of the teacher", _count(found.get("bytes_full_precision"))),
        (
            "accuracy by min-max on noise alone",
            _number(pick(result, "quantization", "post_training", "accuracy"), " %"),
        ),
    ]
    layout = (
        "Simulated: layers compute in floats on the values that the bits can represent; nothing is said of latency. "
        "The files keep a whole byte for each weight of 8 bits or fewer. Of each layer they hold `weight` (int8), "
        "`weights.scale` and `weights.zero` for each output channel, `inputs.scale` and `inputs.zero`; an integer q "
        "stands for (q - zero) · scale, and inputs (uint8) are clipped to 0 … 2^bits - 1. ONNX has them as "
        "QuantizeLinear and DequantizeLinear."
    )
    return [*_section("Quantization", rows), layout, ""]


def _use(notes: dict[str, Any], files: Sequence[Path]) -> list[tuple[str, str]]:
    shape = " × ".join(map(str, notes["image"]))
    return [
        ("input", f"images (n × {shape}), float32 in [0, 1]; normalised inside"),
        ("output", f"logits (n × {notes['classes']})"),
        *((f"`{file.name}`", USES[file.name]) for file in files),
    ]


def _word(value: object) -> str:
    """A user's string on one line of Markdown, and nothing more than text."""
    line = " ".join(str("—" if value is None else value).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)


def _count(value: object) -> str:
    found = number(value)
    return "—" if found is None else f"{found:,.0f}"


def _number(value: object, unit: str = "") -> str:
    found = number(value)
    return "not measured" if found is None else f"{found:.2f}{unit}"
