"""Teachers from files: from weights to a network that fits the data, or one line on why not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.progress import tell
from lra.benchmarks.setup.config import AUTO, TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, Normalisation
from lra.benchmarks.setup.datasets.labelled import DONE
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.user_code import refuse_changed
from lra.benchmarks.setup.weights_files import Notes, read_weights
from lra.networks.families import VAGUE, canonical, recipe_of, vaguer
from lra.networks.foreign import is_foreign, runs_user_code
from lra.networks.normalized import Normalized
from lra.networks.recognition import Recognised, Unrecognised, recognise
from lra.networks.weights import load_weights


class NoNormalisation(UsageError):
    """A file that does not say its normalisation, of data that have none of their own."""


def load_teacher(path: Path, options: TeacherOptions, data: DataSet) -> tuple[Normalized, str, Normalisation]:
    """The network of a weights file for ``data``, the name of its architecture, and its normalisation.

    Raises:
        MissingInput: if the file, or a package with its architecture, is not there.
        UsageError: if the file is corrupt or unsafe, or does not fit the data or its architecture, or if it does not
            say which of several networks its weights are of, or if it has the data's classes in another order.
    """
    content, notes = _read(path)
    name = _named(path, content, notes, options, data)
    _compare_names(path, notes.names or (), data)
    if notes.fit in DONE and data.fit not in ("", notes.fit):
        tell(
            f"teacher {path.name} was trained on images {DONE[notes.fit]}, and these are {DONE[data.fit]}: "
            f"say --set data.fit={notes.fit}"
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
    path = Path(options.file)
    return _named(path, *_read(path), options, data)


def _read(path: Path) -> tuple[Mapping[str, Any], Notes]:
    if not path.is_file():
        raise MissingInput(f"teacher file {path} does not exist: train one with lra-bench teacher train")
    return read_weights(path)


def _named(path: Path, content: Mapping[str, Any], notes: Notes, options: TeacherOptions, data: DataSet) -> str:
    return _noted(path, notes, options, data) if notes.network else _found(path, content, options, data)


def _noted(path: Path, notes: Notes, options: TeacherOptions, data: DataSet) -> str:
    """The network that our own file says it is of."""
    assert notes.network is not None
    if runs_user_code(notes.network) and notes.network != options.network:
        raise UsageError(
            f"teacher {path.name} says that it is built by {notes.network}, which is code to be run: if you trust it, "
            f"say --set teacher.network={notes.network}"
        )
    _refuse_other_data(path, notes.image or data.image, notes.classes or data.classes, data)
    if options.network != AUTO and canonical(options.network) != canonical(notes.network):
        raise _disagreement(path, f"says that it is of {notes.network}", options)
    return notes.network


def _found(path: Path, content: Mapping[str, Any], options: TeacherOptions, data: DataSet) -> str:
    """The network that weights are recognised as, if the user and the file's ``arch`` agree."""
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
            f"teacher {path.name} has weights of no network known here (see: list models); {error}: say "
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
        f"if you know which it is, say {choices}"
    )


def _disagreement(path: Path, said: str, options: TeacherOptions) -> UsageError:
    return UsageError(
        f"teacher {path.name} {said} and teacher.network is {options.network}: leave it out, or say "
        f"--set teacher.network={AUTO}"
    )


def _refuse_other_data(path: Path, image: tuple[int, int, int], classes: int, data: DataSet) -> None:
    if (image, classes) != (data.image, data.classes):
        raise UsageError(
            f"teacher {path.name} takes images {image} of {classes} classes and {data.name} has "
            f"{data.image} of {data.classes}: choose a teacher of this data"
        )


def _compare_names(path: Path, names: Sequence[str], data: DataSet) -> None:
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
    tell(f"teacher {path.name} was trained on classes of other names, {said}: they are taken for the same, in order")


def _normalisation(path: Path, options: TeacherOptions, notes: Notes, data: DataSet) -> Normalisation:
    """What the user says, or the file, or the literature of the data set."""
    if (options.mean is None) == (options.std is None):
        for mean, std in ((options.mean, options.std), (notes.mean, notes.std)):
            if mean is not None and std is not None:
                return _fitting(path, Normalisation(tuple(mean), tuple(std)), data)
        if data.published is not None:
            return data.published
    raise NoNormalisation(f"teacher {path.name} does not say its normalisation: give teacher.mean and teacher.std")


def _fitting(path: Path, scale: Normalisation, data: DataSet) -> Normalisation:
    channels = data.image[0]
    if len(scale.mean) != channels:
        raise UsageError(f"teacher {path.name}: teacher.mean has {len(scale.mean)} channels and the images {channels}")
    return scale


def _fill(network: torch.nn.Module, content: Mapping[str, Any], path: Path, name: str, data: DataSet) -> None:
    try:
        load_weights(network, content)
    except ValueError as error:
        raise UsageError(
            f"teacher {path.name} as {name} for {data.classes} classes of {data.image}: {error}; say teacher.network, "
            "or choose weights of this data"
        ) from None
    weights = network.state_dict().items()
    broken = next((key for key, tensor in weights if not bool(torch.isfinite(tensor).all())), None)
    if broken:
        raise UsageError(f"teacher {path.name} has NaN or infinite weights in {broken}: train or fetch it again")
