"""Students as files for use elsewhere: safetensors, ONNX, ``torch.export``, and a card that describes them.

Every file takes any number of images in [0, 1] and gives logits; it is read back to check that they are the student's.
Safetensors have the form that teachers have, so a student can be a teacher: ``lra-bench run --teacher
student.safetensors``. A quantised student's weights are written as integers, see `lra.quantization.network`.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import LraError, MissingInput, UsageError, suggestion
from lra.benchmarks.export.model_card import model_card
from lra.benchmarks.files import write_atomically, write_text
from lra.benchmarks.records import AVERAGE, BEST, DISTILLED, STUDENT, Run, read_run
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.user_code import code_of
from lra.benchmarks.setup.weights_files import read_weights, save_network
from lra.options import Precision

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from lra.benchmarks.setup.datasets import DataSet
    from lra.networks.normalized import Normalized

    Writer = Callable[[Normalized, Path, Tensor, dict[str, Any]], None]
    Reader = Callable[[Path, Tensor], Tensor]


TOLERANCE = 1e-4
"""How far a file's logits may be from the student's, relative to the largest: for every image or, if the student is
quantised, for half of the images, because a sum rounded differently sometimes takes an input to another level."""

IMAGES = (9, 4, 1)
"""Numbers of images that a file is tried on, as it should take any number."""


def export(folder: Path, formats: Sequence[str], out: Path | None = None, licence: str | None = None) -> list[Path]:
    """Write the student of a finished run in some formats, with a model card; also its average and its best, if kept.

    Args:
        folder: of the run.
        formats: names from `FORMATS`.
        out: folder to write to; by default ``export`` in the run folder.
        licence: of the weights, for the card.

    Returns:
        The files, the card last.

    Raises:
        MissingInput: if the run is not finished, or a package is not installed.
        UsageError: for an unknown format.
        LraError: if the student cannot be written in a format for a variable number of images, or a file does not give
            its logits.
    """
    names = list(dict.fromkeys(name.strip() for name in formats if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown {name!r}; {suggestion(name, FORMATS)}")
    if not names:
        raise UsageError(f"--format is empty: choose from {', '.join(FORMATS)}")
    if "onnx" in names:
        require_onnx()
    run, student, notes = load_student(folder)
    networks = {"student": student}
    for name, file in (("average", AVERAGE), ("best", BEST)):
        if (folder / file).is_file():
            networks[name] = load_student(folder, file)[1]

    import torch

    from lra.quantization.network import in_integers

    images = torch.rand(max(IMAGES), *notes["image"], generator=torch.Generator().manual_seed(0))
    place = out or folder / "export"
    files = []
    for what, network in networks.items():
        written = network if notes["quantization"] is None else in_integers(network)
        files += [_export(name, written, place / f"{what}.{name}", images, notes) for name in names]
    card = place / "README.md"
    write_text(card, model_card(run, notes, files, licence))
    return [*files, card]


def load_student(folder: Path, file: str = STUDENT) -> tuple[Run, Normalized, dict[str, Any]]:
    """A finished run, its student (or that in another ``file``) in evaluation mode, and the notes needed to use it.

    Raises:
        MissingInput: if the run is not finished.
        UsageError: if it is of a kind without a student, or its files are damaged or do not fit together.
    """
    from lra.benchmarks.setup.datasets import data_of

    run, weights = read_run(folder), folder / file
    if run.kind != DISTILLED:
        raise UsageError(f"{folder} is a run of lra-bench {run.kind}, which leaves no student to export")
    if not run.result or not weights.is_file():
        raise MissingInput(f"{folder} is not finished: continue with lra-bench resume {folder}")
    config = stored_configuration(folder)
    data = data_of(config.data)
    mean, std = run.teacher.get("mean"), run.teacher.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        raise UsageError(f"{folder / 'teacher.json'} has no normalisation: delete the run's result.json to run again")
    notes = _notes(config, data, mean, std)
    from lra.networks.weights import load_weights

    student = blank(notes)
    content, _ = read_weights(weights)
    try:
        load_weights(student, content)
    except ValueError as error:
        raise UsageError(f"{weights} does not fit config.yaml: {error}") from None
    return run, student.eval().requires_grad_(False), notes


def _notes(config: RunConfig, data: DataSet, mean: list[float], std: list[float]) -> dict[str, Any]:
    return {
        "network": config.student.network,
        "classes": data.classes,
        "image": list(data.image),
        "mean": mean,
        "std": std,
        "names": list(data.names) or None,
        "quantization": config.quantization and config.quantization.model_dump(include=set(Precision.model_fields)),
        # Unchanged since the run, as `stored_configuration` has checked.
        "code": code_of(config.student.network) or None,
    }


def _export(name: str, student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> Path:
    write, read = FORMATS[name]
    with tempfile.TemporaryDirectory() as draft:
        written = Path(draft) / file.name
        with quiet():
            try:
                write(student, written, images, notes)
            # Exporters may raise anything for a user's network.
            except Exception as error:
                raise LraError(
                    f"{name}: the student cannot be written for a variable number of images ({_line(error)}): change "
                    "its forward there, or choose another --format, such as safetensors"
                ) from error
            for count in IMAGES:
                _compare(name, student, read, written, images[:count], notes)
        write_atomically(file, lambda target: target.write(written.read_bytes()))
    return file


def _compare(
    name: str, student: Normalized, read: Reader, written: Path, images: Tensor, notes: dict[str, Any]
) -> None:
    """Raise `LraError` unless the file that was written gives the student's logits for these images."""
    wanted = student(images)
    try:
        found = read(written, images)
    except Exception as error:
        raise LraError(
            f"{name}: the exported file does not accept {len(images)} images ({_line(error)}): the network "
            "fixes their number; choose another --format, such as safetensors"
        ) from error
    if found.shape != wanted.shape:
        shapes = f"{tuple(found.shape)} and not {tuple(wanted.shape)}"
        raise LraError(f"{name}: the exported file gives logits {shapes} for {len(images)} images")
    errors = (found - wanted).abs().amax(dim=1) / wanted.abs().max().clamp_min(1e-6)
    far = (errors.max() if notes["quantization"] is None else errors.median()).item()
    if not far <= TOLERANCE:
        raise LraError(f"{name}: the exported file differs from the student by {far:.1e} of its largest logit")


def _line(error: Exception) -> str:
    if "Constraints violated" in str(error):
        return "its forward treats their number as a constant"
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def blank(notes: Mapping[str, Any]) -> Normalized:
    """A student as its notes describe it, without its weights.

    Args:
        notes: network, classes, image, mean, std and, of a quantised one, quantization.

    Raises:
        UsageError: if there is no such network, or parts do not fit.
        MissingInput: if it is in a package that is not installed.
    """
    from lra.benchmarks.setup.networks import network_for
    from lra.networks.normalized import Normalized
    from lra.quantization.network import quantized

    image = tuple(notes["image"] or (0, 0, 0))
    body = network_for(notes["network"] or "", notes["classes"] or 0, (image[0], image[1], image[2]), "network")
    try:
        network = Normalized(body, notes["mean"] or [], notes["std"] or [])
        return network if notes["quantization"] is None else quantized(network, Precision(**notes["quantization"]))
    except ValueError as error:
        raise UsageError(f"network {notes['network']}: {error}") from None


def _write_safetensors(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    save_network(file, student, notes)


def _read_safetensors(file: Path, images: Tensor) -> Tensor:
    import torch

    from lra.networks.weights import load_weights
    from lra.quantization.network import in_integers

    content, notes = read_weights(file)
    network = blank(notes.model_dump())
    if notes.quantization is not None:
        network = in_integers(network)
    load_weights(network.network, content)
    with torch.no_grad():
        return network.eval()(images)


def _write_pt2(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    import torch

    torch.export.save(_traced(student, images), file)


def _read_pt2(file: Path, images: Tensor) -> Tensor:
    import torch

    return torch.export.load(file).module()(images)


def _write_onnx(student: Normalized, file: Path, images: Tensor, notes: dict[str, Any]) -> None:
    import torch

    torch.onnx.export(
        _traced(student, images),
        (images,),
        file,
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,
        verbose=False,
        custom_translation_table=_translations(),
    )


def _translations() -> dict[Any, Any]:
    """What PyTorch's own table lacks: quantisation by a scale and a zero that are tensors."""
    import torch
    from onnxscript import opset18 as op

    def quantize(x: Any, scale: Any, zero: Any, low: int, high: int, dtype: int) -> Any:
        return op.QuantizeLinear(x, scale, op.Cast(zero, to=dtype))

    def dequantize(q: Any, scale: Any, zero: Any, low: int, high: int, dtype: int, out_dtype: int = -1) -> Any:
        return op.DequantizeLinear(q, scale, op.Cast(zero, to=dtype))

    operators = torch.ops.quantized_decomposed
    return {operators.quantize_per_tensor.tensor: quantize, operators.dequantize_per_tensor.tensor: dequantize}


def _read_onnx(file: Path, images: Tensor) -> Tensor:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)


def _traced(student: Normalized, images: Tensor) -> ExportedProgram:
    """The student as a graph that takes any number of images."""
    import torch

    any_number = ({0: torch.export.Dim("batch", min=1)},)
    try:
        return torch.export.export(student, (images,), dynamic_shapes=any_number, strict=False)
    except Exception:
        # Strict mode also reads the code, so that len(x) stays variable; running it alone gives a plain number.
        return torch.export.export(student, (images,), dynamic_shapes=any_number, strict=True)


def require_onnx() -> None:
    """Raise `MissingInput` unless the packages that ONNX needs are installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingInput(f"--format onnx needs {', '.join(missing)}, not installed: pip install {' '.join(missing)}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep log lines and warnings of the exporters off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
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
"""What writes each format, and what reads it back."""
