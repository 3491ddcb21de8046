"""Files of weights: ours, and those of others, which are never trusted to run code."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.untrusted import refuse_zip_bomb
from lra.networks.normalized import Normalized

FORMAT = "lra-teacher-2"
"""Names our notes in a file: the only entry, because safetensors writes several in any order."""


class Notes(BaseModel):
    """What our weights files say of themselves; other files say nothing."""

    network: str | None = None
    image: tuple[int, int, int] | None = None
    classes: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    quantization: dict[str, Any] | None = None
    """Of weights stored as integers, the options of `lra.quantization.options.Precision`."""


def save_network(path: Path, network: Normalized, notes: Mapping[str, Any]) -> None:
    """Write weights and what is needed to use them, as safetensors."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.network.state_dict().items()}
    write_atomically(path, lambda file: file.write(save(tensors, {FORMAT: json.dumps(notes)})))


def read_weights(path: Path) -> tuple[Mapping[str, Any], Notes]:
    """What a weights file holds, and our notes in it, without running anything.

    Safetensors, or a pickled checkpoint read by torch's restricted loader.

    Raises:
        UsageError: if the file is corrupt or would run code.
    """
    refuse_zip_bomb(path)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"weights file {path} is corrupt or would run code when loaded, which is refused: "
            "save a plain state dict, or safetensors"
        ) from None
    # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        line = str(error).split("\n")[0]
        raise UsageError(f"weights file {path} cannot be read ({line}): fetch or save it again") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"weights file {path} holds no state dict: save network.state_dict()")
    return content, Notes()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Notes]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, Notes.model_validate_json(metadata.get(FORMAT, "{}"))
