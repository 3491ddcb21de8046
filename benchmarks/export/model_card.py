"""The card of an exported student: what it is, where it comes from, how it was measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lra.benchmarks.records import Run, pick
from lra.benchmarks.text import markdown_table, number_text, quantity_text
from lra.metrics.quantities import ON_CARDS, QUANTITIES, Quantity, quantities

_SPELT = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENCES = frozenset(_SPELT.split())
"""Identifiers that a model card may have on the Hugging Face Hub, which refuses any other: mostly SPDX's, in lower
case."""

TESTED = "test accuracy"
"""What a card calls the accuracy of teacher and student."""
MOST_NAMES = 20
"""Most names of classes that are listed."""

USES = {
    ".safetensors": "`lra-bench run --teacher {name}`, or `safetensors.torch.load_file`",
    ".onnx": "any ONNX runtime; input `images`, output `logits`",
    ".pt2": '`torch.export.load("{name}").module()(images)`',
}
"""How a file is used, by its suffix."""
OF_OTHERS = {
    "average": "; the moving average of the student",
    "best": "; the student at its best evaluation, chosen on test data, so that its test accuracy is too optimistic",
}
"""What is said of files with other weights than the student's, by their stem."""


def model_card(run: Run, notes: dict[str, Any], files: Sequence[Path], licence: str | None) -> str:
    """The card as Markdown.

    Args:
        run: a finished run.
        notes: network, classes, image, mean and std, and names of the classes if they have any.
        files: what was exported.
        licence: of the weights, if that is known.
    """
    result, teacher = run.result, run.teacher
    dataset = _word(result.get("dataset"))
    meta = " with the LRA meta step" if result.get("meta") else ""
    lines = [
        *("---", "library_name: lra", *_licence(licence)),
        *("tags: [knowledge-distillation, data-free]", "---", ""),
        f"# {_word(notes['network'])}, distilled from {_word(teacher.get('name'))} without data",
        "",
        f"Method {_word(result.get('method'))}, replay {_word(result.get('replay'))}{meta}, seed {result.get('seed')}; "
        f"{number_text(pick(result, 'student', 'parameters'))} parameters.",
        *([f"Training was stopped before its end by {_word(run.stopped)}."] if run.stopped else []),
        "",
        "## Data",
        "",
        f"No image of {dataset} was used to train this network. It learned from generated images and the answers of "
        f"its teacher to them ({number_text(pick(result, 'cost', 'teacher_queries'))} queries, "
        f"{number_text(pick(result, 'cost', 'student_steps'))} student steps). "
        + (
            f"The test set of {dataset} was used only to evaluate it."
            if result.get("accuracy")
            else "There was no test set."
        ),
        "The teacher was trained on real data; information about them may have passed into this network.",
        "",
        *_section("Teacher", _teacher(teacher)),
        *_section("Measured", _measures(run)),
        *_quantization(run),
        *_section("Use", _use(notes, files)),
        "## Licence",
        "",
        _word(licence)
        if licence and licence.strip()
        else "Not stated. These weights derive from the teacher's, whose licence may apply to them.",
        "",
        f"Made by lra {_word(pick(result, 'versions', 'lra'))}; configuration {_word(result.get('config_hash'))}.",
    ]
    return "\n".join(lines) + "\n"


def _licence(given: str | None) -> list[str]:
    """The lines of a card's head that name a licence: by its identifier or, without one, by its name."""
    if given is None or not given.strip():
        return ["license: unknown"]
    name = " ".join(given.split())
    known = name.lower()
    # SPDX distinguishes -only from -or-later, cards do not.
    known = known.removesuffix("-only").removesuffix("-or-later") if known not in LICENCES else known
    if known in LICENCES:
        return [f"license: {known}"]
    return ["license: other", f"license_name: {json.dumps(name, ensure_ascii=False)}"]


def _section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"## {title}", "", markdown_table(["", ""], rows, words=(0, 1)), ""]


def _teacher(teacher: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("network", _word(teacher.get("name"))),
        ("SHA-256 of its file", f"`{_word(teacher.get('sha256'))}`"),
        (TESTED, _said(QUANTITIES["accuracy"], teacher.get("accuracy"))),
    ]


def _measures(run: Run) -> list[tuple[str, str]]:
    titles = {"accuracy": TESTED}
    shown = [q for q in quantities(*ON_CARDS) if q.usual or run.value(q) is not None]
    return [(titles.get(q.name, q.title_alone or q.title), _said(q, run.value(q))) for q in shown]


def _said(quantity: Quantity, value: object) -> str:
    return quantity_text(quantity, value, "not measured")


def _quantization(run: Run) -> list[str]:
    found = run.result.get("quantization")
    if not isinstance(found, dict):
        return []
    before = QUANTITIES["post_training"]
    rows = [
        (
            "bits of weights and of layers' inputs",
            f"{number_text(found.get('weight_bits'))}, {number_text(found.get('activation_bits'))}",
        ),
        ("bytes, at that many bits per weight", number_text(found.get("bytes"))),
        ("bytes of the teacher", number_text(found.get("bytes_full_precision"))),
        ("accuracy of min-max ranges from noise alone", _said(before, run.value(before))),
    ]
    layout = (
        "Simulated: layers compute in floats on the values that the bits can represent; latency is not measured. "
        "The files use a whole byte for each weight of 8 bits or fewer. For each layer they hold `weight` (int8), "
        "`weights.scale` and `weights.zero` for each output channel, `inputs.scale` and `inputs.zero`; an integer q "
        "stands for (q - zero) · scale, and inputs (uint8) are clipped to 0 … 2^bits - 1. ONNX expresses them as "
        "QuantizeLinear and DequantizeLinear."
    )
    return [*_section("Quantisation", rows), layout, ""]


def _use(notes: dict[str, Any], files: Sequence[Path]) -> list[tuple[str, str]]:
    shape = " × ".join(map(str, notes["image"]))
    return [
        ("input", f"images (n × {shape}), float32 in [0, 1]; normalised inside"),
        ("output", f"logits (n × {notes['classes']})"),
        *([("classes, in the order of the logits", _names(notes["names"]))] if notes["names"] else []),
        *(
            (f"`{file.name}`", USES[file.suffix].format(name=file.name) + OF_OTHERS.get(file.stem, ""))
            for file in files
        ),
    ]


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(map(_word, names[:MOST_NAMES]))
    more = len(names) - MOST_NAMES
    return f"{shown} and {more:,} more: `data.json` in the run's folder has all" if more > 0 else shown


def _word(value: object) -> str:
    """A user's string as plain text on one line of Markdown."""
    line = " ".join(str("—" if value is None else value).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)
