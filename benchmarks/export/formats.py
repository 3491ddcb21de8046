"""The formats a student leaves in: how each is written, and read again to see that it gives the same logits."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.weights_files import read_weights, save_network
from lra.options import Precision

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from lra.networks.normalized import Normalized

    Writer = Callable[[Normalized, Path, Tensor, dict[str, Any]], None]
    Reader = Callable[[Path, Tensor], Tensor]


def blank(notes: Mapping[str, Any]) -> Normalized:
    """A student as its notes describe it, before its weights are in it.

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
    from lra.quantization.integers import in_integers

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
    """What PyTorch's own table lacks: a scale and a zero that are tensors."""
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
        # Reads the code as well, and so knows len(x) for what it is, where running it gives a plain number.
        return torch.export.export(student, (images,), dynamic_shapes=any_number, strict=True)


def require_onnx() -> None:
    """Raise `MissingInput` unless the packages that ONNX takes are installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingInput(f"--format onnx needs {', '.join(missing)}, not installed: pip install 'lra[export]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' remarks about themselves off the terminal."""
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
