"""Teachers from files: from weights to a network that fits the data, or one line on why not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, Normalisation
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.weights_files import Notes, read_weights
from lra.networks.foreign import runs_user_code
from lra.networks.normalized import Normalized
from lra.networks.weights import load_weights


def load_teacher(path: Path, options: TeacherOptions, data: DataSet) -> tuple[Normalized, str, Normalisation]:
    """The network of a weights file for ``data``, the name of its architecture, and its normalisation.

    Raises:
        MissingInput: if the file, or a package with its architecture, is not there.
        UsageError: if the file is corrupt or unsafe, or does not fit the data or its architecture.
    """
    if not path.is_file():
        raise MissingInput(f"teacher file {path} does not exist: train one with lra-bench teacher train")
    content, notes = read_weights(path)
    name = notes.network or options.network
    if runs_user_code(name) and name != options.network:
        raise UsageError(
            f"teacher {path.name} says that it is built by {name}, which is code to be run: if you trust it, say "
            f"--set teacher.network={name}"
        )
    image, classes = notes.image or data.image, notes.classes or data.classes
    if (image, classes) != (data.image, data.classes):
        raise UsageError(
            f"teacher {path.name} takes images {image} of {classes} classes and {data.name} has "
            f"{data.image} of {data.classes}: choose a teacher of this data"
        )
    scale = _normalisation(path, options, notes, data)
    body = network_for(name, data.classes, data.image, f"teacher {path.name}, teacher.network")
    try:
        network = Normalized(body, scale.mean, scale.std)
    except ValueError as error:
        raise UsageError(f"teacher {path.name}, its normalisation (teacher.mean, teacher.std): {error}") from None
    _fill(body, content, path, name, data)
    return network, name, scale


def _normalisation(path: Path, options: TeacherOptions, notes: Notes, data: DataSet) -> Normalisation:
    """What the user says, or the file, or the literature of the data set."""
    if (options.mean is None) == (options.std is None):
        for mean, std in ((options.mean, options.std), (notes.mean, notes.std)):
            if mean is not None and std is not None:
                return _fitting(path, Normalisation(tuple(mean), tuple(std)), data)
        if data.published is not None:
            return data.published
    raise UsageError(f"teacher {path.name} does not say its normalisation: give teacher.mean and teacher.std")


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
