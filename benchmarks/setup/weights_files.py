"""Files of weights, ours and those of others, and the teachers in them.

None is trusted to run code. Our own say what network they are of, and how images are normalised for it; of others the
network is told from the names and shapes of the weights.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from safetensors import safe_open

from lra.benchmarks.errors import MissingInput, UsageError, one_line
from lra.benchmarks.files import refuse_zip_bomb, write_atomically
from lra.benchmarks.setup.config import AUTO, TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, Normalisation
from lra.benchmarks.setup.datasets.labelled import DONE
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.pickles import why_refused
from lra.benchmarks.setup.user_code import refuse_changed
from lra.networks.families import VAGUE, canonical, recipe_of, vaguer
from lra.networks.foreign import is_foreign, runs_user_code

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lra.networks.normalized import Normalized
    from lra.networks.recognition import Recognised

FORMAT = "lra-teacher-2"
"""Names our notes in a file: the only entry, because safetensors writes several in any order."""


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
    """Names of the classes, in the order of the logits."""
    code: dict[str, str] | None = None
    """What the code said that builds ``network``, if it is a user's own: `lra.benchmarks.setup.user_code.code_of`."""
    quantization: dict[str, Any] | None = None
    """Where weights are stored as integers, the options of `lra.options.Precision`."""


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
        raise UsageError(f"weights file {path} {why_refused(path, str(error))}") from None
    # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        raise UsageError(f"weights file {path} cannot be read ({one_line(error)}): fetch or save it again") from None
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


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Notes]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, Notes.model_validate_json(metadata.get(FORMAT, "{}"))


class NoNormalisation(UsageError):
    """A file that does not state its normalisation, for data without a known one."""


def load_teacher(
    path: Path, options: TeacherOptions, data: DataSet, remark: Callable[[str], object] = lambda line: None
) -> tuple[Normalized, str, Normalisation]:
    """The network of a weights file for ``data``, the name of its architecture, and its normalisation.

    ``remark`` is called with what a user should know of it, a line each.

    Raises:
        MissingInput: if the file, or a package with its architecture, is not there.
        UsageError: if the file is corrupt or unsafe, or does not fit the data or its architecture, or if it does not
            say which of several networks its weights are of, or if it has the data's classes in another order.
    """
    from lra.networks.normalized import Normalized

    content, notes, name = _opened(path, options, data)
    _compare_names(path, notes.names or (), data, remark)
    if notes.fit in DONE and data.fit not in ("", notes.fit):
        remark(
            f"teacher {path.name} was trained on images {DONE[notes.fit]}, and these are {DONE[data.fit]}: "
            f"give --set data.fit={notes.fit}"
        )
    if notes.code:
        refuse_changed(name, notes.code, path)
    scale = _normalisation(path, options, notes, data)
    body = network_for(name, data.classes, data.image, f"teacher {path.name}, teacher.network", trains=False)
    try:
        network = Normalized(body, scale.mean, scale.std)
    except ValueError as error:
        raise UsageError(f"teacher {path.name}, its normalisation (teacher.mean, teacher.std): {error}") from None
    _fill(body, content, path, name, data)
    if options.features:
        try:
            network.features_from(options.features)
        except ValueError as error:
            raise UsageError(f"teacher.features: {error}") from None
    return network, name, scale


def architecture(options: TeacherOptions, data: DataSet) -> str:
    """The name of a teacher's network: of a file, what the file says or its weights are found to be of.

    Raises:
        MissingInput, UsageError: as `load_teacher`.
    """
    if options.file is None:
        return options.network
    return _opened(Path(options.file), options, data)[2]


def _opened(path: Path, options: TeacherOptions, data: DataSet) -> tuple[Mapping[str, Any], Notes, str]:
    """The weights in a file, our notes in it, and the network it says they are of, or they are found to be of."""
    if not path.is_file():
        raise MissingInput(f"teacher file {path} does not exist: train one with lra-bench teacher train")
    content, notes = read_weights(path)
    if not notes.network:
        return content, notes, _found(path, content, options, data)
    if runs_user_code(notes.network) and notes.network != options.network:
        raise UsageError(
            f"teacher {path.name} says that it is built by {notes.network}, which is code to be run: if you trust it, "
            f"give --set teacher.network={notes.network}"
        )
    _refuse_other_data(path, notes.image or data.image, notes.classes or data.classes, data)
    if options.network != AUTO and canonical(options.network) != canonical(notes.network):
        raise _disagreement(path, f"says that it is of {notes.network}", options)
    return content, notes, notes.network


def _found(path: Path, content: Mapping[str, Any], options: TeacherOptions, data: DataSet) -> str:
    """The network that weights are recognised as, if the user and the file's ``arch`` agree."""
    from lra.networks.recognition import Unrecognised, recognise

    given = None if options.network == AUTO else options.network
    # What is built elsewhere has names of its own.
    if given is not None and is_foreign(given):
        return given
    try:
        found = recognise(content, data.image)
    except Unrecognised as error:
        if given is not None:
            return given
        raise UsageError(
            f"teacher {path.name} has weights of no network known here (see: list models); {error}: give "
            "--set teacher.network=torchvision:NAME, timm:NAME or MODULE:FUNCTION of your own"
        ) from None
    except ValueError as error:
        raise UsageError(f"teacher {path.name}: {error}") from None
    arch = content.get("arch")
    if isinstance(arch, str) and _contradicts(arch, found):
        raise UsageError(
            f"teacher {path.name} says arch = {arch!r} and its weights are of {' or '.join(found.names)}: check where "
            "it is from; if the weights are the right ones, save them alone"
        )
    if given is None:
        _refuse_other_data(path, (found.channels, *data.image[1:]), found.classes, data)
        if found.doubt:
            raise _ambiguity(path, found)
        return found.names[0]
    if canonical(given) in VAGUE:
        raise _ambiguity(path, found)
    if not found.doubt and recipe_of(given) != recipe_of(found.names[0]):
        raise _disagreement(path, f"has the weights of {found.names[0]}", options)
    return given


def _contradicts(arch: str, found: Recognised) -> bool:
    """Whether ``arch`` is a network that we know by that name and that the weights are not of.

    Others call ``resnet20`` what is ``resnet20-b`` here.
    """
    known = recipe_of(arch) is not None
    names = [name.removeprefix("torchvision:").replace("_", "-") for name in found.names]
    return known and not any(vaguer(canonical(arch), name) for name in names)


def _ambiguity(path: Path, found: Recognised) -> UsageError:
    choices = " or ".join(f"--set teacher.network={name}" for name in found.names)
    return UsageError(
        f"teacher {path.name} has the weights of {' or '.join(found.names)}, but nothing in it says so: {found.doubt}; "
        f"if you know which it is, give {choices}"
    )


def _disagreement(path: Path, said: str, options: TeacherOptions) -> UsageError:
    return UsageError(
        f"teacher {path.name} {said} and teacher.network is {options.network}: leave it out, or give "
        f"--set teacher.network={AUTO}"
    )


def _refuse_other_data(path: Path, image: tuple[int, int, int], classes: int, data: DataSet) -> None:
    if (image, classes) != (data.image, data.classes):
        raise UsageError(
            f"teacher {path.name} takes images {image} of {classes} classes and {data.name} has "
            f"{data.image} of {data.classes}: choose a teacher of this data"
        )


def _compare_names(path: Path, names: Sequence[str], data: DataSet, remark: Callable[[str], object]) -> None:
    """Say that a teacher's classes are called otherwise than the data's, where both are known.

    Raises:
        UsageError: if they are the same in another order, where every answer would count for another class.
    """
    theirs, ours = ([name.casefold() for name in some] for some in (names, data.names))
    # One without names, or of another number of classes, says nothing here.
    place = next((place for place, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        return
    said = f"class {place} is {names[place]!r} to the teacher and {data.names[place]!r} here"
    if sorted(theirs) == sorted(ours):
        raise UsageError(
            f"teacher {path.name} has the classes of {data.name} in another order, {said}: number them as it does, or "
            "choose a teacher of this data"
        )
    remark(f"teacher {path.name} was trained on classes of other names, {said}: they are taken for the same, in order")


def _normalisation(path: Path, options: TeacherOptions, notes: Notes, data: DataSet) -> Normalisation:
    """What the user says, or the file, or the literature of the data set."""
    if (options.mean is None) == (options.std is None):
        for mean, std in ((options.mean, options.std), (notes.mean, notes.std)):
            if mean is not None and std is not None:
                if len(mean) != data.image[0]:
                    raise UsageError(
                        f"teacher {path.name}: teacher.mean has {len(mean)} channels and the images {data.image[0]}"
                    )
                return Normalisation(tuple(mean), tuple(std))
        if data.published is not None:
            return data.published
    raise NoNormalisation(f"teacher {path.name} does not state its normalisation: give teacher.mean and teacher.std")


def _fill(network: nn.Module, content: Mapping[str, Any], path: Path, name: str, data: DataSet) -> None:
    from lra.networks.weights import load_weights

    try:
        load_weights(network, content)
    except ValueError as error:
        raise UsageError(
            f"teacher {path.name} as {name} for {data.classes} classes of {data.image}: {error}; set teacher.network, "
            "or choose weights of this data"
        ) from None
    weights = network.state_dict().items()
    broken = next((key for key, tensor in weights if not bool(tensor.isfinite().all())), None)
    if broken:
        raise UsageError(f"teacher {path.name} has NaN or infinite weights in {broken}: train or fetch it again")
