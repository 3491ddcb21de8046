"""Files of weights: ours, and those of others, which are never trusted to run code."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from safetensors import safe_open

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import write_atomically
from lra.benchmarks.untrusted import refuse_zip_bomb

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lra.networks.normalized import Normalized


FORMAT = "lra-teacher-2"
"""Names our notes in a file: the only entry, because safetensors writes several in any order."""


SYSTEM = ("builtins", "nt", "os", "posix", "runpy", "subprocess", "sys")
"""Modules that no saved weights need, only somebody's code."""

HARMLESS = re.compile(r"torch\.\w+$|torch\._utils\.|collections\.")
"""What pickled weights consist of."""


class Notes(BaseModel):
    """What our weights files say of themselves; other files say nothing."""

    network: str | None = None
    image: tuple[int, int, int] | None = None
    classes: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    fit: str | None = None
    """`DataSet.fit` of what it was trained on."""
    names: list[str] | None = None
    """Of the classes, in the order of the logits."""
    code: dict[str, str] | None = None
    """What the code said that builds ``network``, if it is a user's own: `lra.benchmarks.setup.user_code.code_of`."""
    quantization: dict[str, Any] | None = None
    """Of weights stored as integers, the options of `lra.quantization.options.Precision`."""


def save_network(path: Path, network: Normalized, notes: Mapping[str, Any]) -> None:
    """Write weights and what is needed to use them, as safetensors."""
    save_weights(path, network.network, {FORMAT: json.dumps(notes)})


def save_weights(path: Path, network: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write parameters and buffers as safetensors; what layers share stands there under each of its names."""
    from safetensors.torch import save

    tensors, seen = {}, set()
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().contiguous().cpu()
        memory = tensor.untyped_storage().data_ptr()
        # Safetensors takes no two tensors that share memory.
        tensors[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    write_atomically(path, lambda file: file.write(save(tensors, metadata)))


def read_weights(path: Path) -> tuple[Mapping[str, Any], Notes]:
    """What a weights file holds, and our notes in it, without running anything.

    Safetensors, or a pickled checkpoint read by torch's restricted loader; its content tells which, not its name.

    Raises:
        UsageError: if the file is corrupt or would run code.
    """
    import torch

    refuse_zip_bomb(path)
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
        # Opened here: by its name torch would take it for what its suffix says. What it warns of are forms of pickle.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(f"weights file {path} {_why_not(path, str(error))}") from None
    # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        line = str(error).split("\n")[0]
        raise UsageError(f"weights file {path} cannot be read ({line}): fetch or save it again") from None
    if not isinstance(content, Mapping):
        raise UsageError(f"weights file {path} holds no state dict: save network.state_dict()")
    return content, Notes()


def says_all(path: Path) -> bool:
    """Whether a weights file is one of ours, with notes."""
    if not _is_safetensors(path):
        return False
    with safe_open(path, framework="pt") as file:
        return FORMAT in (file.metadata() or {})


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: the length of a header, and the brace that opens it."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _why_not(path: Path, said: str) -> str:
    """What of a pickled file is refused, and how to save it again if it is trusted."""
    found = re.search(r"GLOBAL (\S+)", said)
    refused = found.group(1) if found else next(iter(_imported(path)), None)
    if refused is None:
        return "cannot be read, or would run code when loaded, which is refused: save a state dict, or safetensors"
    if refused.split(".")[0] in SYSTEM:
        return f"would run {refused} when loaded, which is refused: fetch it again, from where it can be trusted"
    inside = "['state_dict']"
    if refused.startswith("numpy"):
        what = "a number or array of numpy beside its weights"
    elif re.match(r"(torch\.nn|torchvision|timm|__main__)\b", refused):
        what, inside = "a whole module in place of its weights", ".state_dict()"
    else:
        what = "more than weights"
    return (
        f"holds {what} ({refused}), which could run code when loaded and is refused: if you trust it, save its weights "
        f"alone, torch.save(torch.load({path.name!r}, weights_only=False){inside}, 'weights.pt')"
    )


def _imported(path: Path) -> Iterator[str]:
    """Names of what a pickle would import beside torch's own and plain containers, read off without running it."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    member = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
                    content = b"" if member is None else archive.read(member)
            else:
                content = file.read()
        stream, texts = io.BytesIO(content), [""]
        # The older form of torch.save is several pickles, one behind another.
        while True:
            for code, argument, _ in pickletools.genops(stream):
                if "UNICODE" in code.name:
                    texts.append(str(argument))
                name = str(argument).replace(" ", ".") if code.name == "GLOBAL" else ".".join(texts[-2:])
                if code.name in ("GLOBAL", "STACK_GLOBAL") and not HARMLESS.match(name):
                    yield name
    # Behind the last pickle are bytes of tensors; a damaged file need be no pickle, and its archive raises anything.
    except Exception:
        return


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Notes]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, Notes.model_validate_json(metadata.get(FORMAT, "{}"))
