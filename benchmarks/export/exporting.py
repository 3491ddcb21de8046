"""The student leaves the house: safetensors, ONNX, ``torch.export``, and a card that says what it is.

Every file takes images in [0, 1], any number of them, and gives logits. Safetensors are of the form that teachers
have, so a student can be a teacher: ``lra-bench run --teacher student.safetensors``.
"""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lra.benchmarks.errors import LraError, MissingInput, UsageError, nearest
from lra.benchmarks.export.model_card import model_card
from lra.benchmarks.files import write_atomically, write_text
from lra.benchmarks.records import Run, read_run
from lra.benchmarks.setup.assemble import stored_configuration
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, data_set
from lra.benchmarks.setup.weights_files import read_weights, save_network
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.networks.weights import load_weights

TOLERANCE = 1e-4
"""How far a file's logits may be from the student's, relative to the largest."""

Writer = Callable[[Normalized, Path, Tensor, dict[str, Any]], None]
Reader = Callable[[Path, Tensor], Tensor]


def export(folder: Path, formats: Sequence[str], out: Path | None = None, licence: str | None = None) -> list[Path]:
    """Write the student of a finished run in some formats, with a model card.

    Args:
        folder: of the run.
        formats: names from `FORMATS`.
        out: where to; ``export`` in the run folder if not given.
        licence: of the weights, for the card.

    Returns:
        The files, the card last.

    Raises:
        MissingInput: if the run is not finished, or a package is not installed.
        UsageError: for an unknown format.
        LraError: if a file does not give the student's logits.
    """
    names = list(dict.fromkeys(name.strip() for name in formats if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown {name!r}; did you mean {nearest(name, FORMATS)!r}?")
    if not names:
        raise UsageError(f"--format is empty: choose of {', '.join(FORMATS)}")
    if "onnx" in names:
        _require_onnx()
    run, student, notes = load_student(folder)
    images = torch.rand(3, *notes["image"], generator=torch.Generator().manual_seed(0))
    place = out or folder / "export"
    files = [_export(name, student, place / f"student.{name}", images, notes) for name in names]
    card = place / "README.md"
    write_text(card, model_card(run, notes, files, licence))
    return [*files, card]


def load_student(folder: Path) -> tuple[Run, Normalized, dict[str, Any]]:
    """A finished run, its student in evaluation mode, and what is needed to use it.

    Raises:
        MissingInput: if the run is not finished.
        UsageError: if its files are damaged or do not fit together.
    """
    run, weights = read_run(folder), folder / "student.safetensors"
    if not run.result or not weights.is_file():
        raise MissingInput(f"{folder} is not finished: go on with lra-bench resume {folder}")
    config = stored_configuration(folder)
    data = data_set(config.data.name, config.data.size)
    mean, std = run.teacher.get("mean"), run.teacher.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        raise UsageError(f"{folder / 'teacher.json'} has no normalisation: delete the run's result.json to run again")
    student = _filled(config, data, mean, std, weights)
    return run, student.eval().requires_grad_(False), _notes(config, data, mean, std)


def _filled(config: RunConfig, data: DataSet, mean: list[float], std: list[float], weights: Path) -> Normalized:
    content, _ = read_weights(weights)
    try:
        student = Normalized(build(config.student.network, data.classes, data.image), mean, std)
        load_weights(student, content)
    except ValueError as error:
        raise UsageError(f"{weights} does not fit config.yaml: {error}") from None
    return student


def _notes(config: RunConfig, data: DataSet, mean: list[float], std: list[float]) -> dict[str, Any]:
    return {
        "network": config.student.network,
        "classes": data.classes,
        "image": list(data.image),
        "mean": mean,
        "std": std,
    }


def _export(name: str, student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> Path:
    write, read = FORMATS[name]
    with tempfile.TemporaryDirectory() as draft:
        written = Path(draft) / file.name
        with _quiet():
            write(student, written, images, notes)
            found = read(written, images)
        wanted = student(images)
        error = ((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6)).item()
        if not error <= TOLERANCE:
            raise LraError(f"{name}: what was written differs from the student by {error:.1e} of its largest logit")
        write_atomically(file, lambda target: target.write(written.read_bytes()))
    return file


def _write_safetensors(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    save_network(file, student, notes)


def _read_safetensors(file: Path, images: Tensor) -> Tensor:
    content, notes = read_weights(file)
    body = build(notes.network or "", notes.classes or 0, notes.image or (0, 0, 0))
    network = Normalized(body, notes.mean or [], notes.std or [])
    load_weights(network.network, content)
    with torch.no_grad():
        return network.eval()(images)


def _write_pt2(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    torch.export.save(torch.export.export(student, (images,), dynamic_shapes=_any_number()), file)


def _read_pt2(file: Path, images: Tensor) -> Tensor:
    return torch.export.load(file).module()(images)


def _write_onnx(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    torch.onnx.export(
        student,
        (images,),
        file,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_any_number(),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _read_onnx(file: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)


def _any_number() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingInput(f"--format onnx needs {', '.join(missing)}, not installed: pip install 'lra[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks about themselves off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: dict[str, tuple[Writer, Reader]] = {
    "safetensors": (_write_safetensors, _read_safetensors),
    "onnx": (_write_onnx, _read_onnx),
    "pt2": (_write_pt2, _read_pt2),
}
