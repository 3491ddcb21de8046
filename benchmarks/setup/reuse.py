"""What a run leaves for later runs and takes over from earlier ones: generators and replays, with their provenance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lra import __version__
from lra.benchmarks.errors import MissingInput, UsageError, one_line
from lra.benchmarks.files import refuse_zip_bomb, write_atomically
from lra.benchmarks.records import GENERATOR, REPLAY, SYNTHETIC
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.benchmarks.setup.weights_files import save_weights
from lra.problem import Problem
from lra.state import State
from lra.strategies.strategy import Replay

FORMAT = "lra-generator-1"
"""The name of the provenance in a generator's file."""


class Provenance(BaseModel):
    """The origin of a generator, its inputs and its outputs."""

    method: str
    dataset: str
    teacher: str
    """SHA-256 of its weights."""
    image: tuple[int, int, int]
    latent: int | None
    mean: list[float]
    std: list[float]
    """With ``mean``, the normalisation of the teacher it learnt from; the images are in [0, 1]."""
    version: str


def save_for_reuse(folder: Path, experiment: Experiment, teacher: TrainedTeacher) -> None:
    """Write what a finished run leaves for later runs or analyses into its folder."""
    config, problem = experiment.config, experiment.problem
    generator = experiment.stream.synthesizer.generator_to_reuse()
    if generator is not None:
        notes = Provenance(
            method=config.method,
            dataset=config.data.name,
            teacher=teacher.sha256,
            image=problem.image,
            latent=latent_of(generator),
            mean=list(problem.mean),
            std=list(problem.std),
            version=__version__,
        )
        save_generator(folder / GENERATOR, generator, notes)
    last = experiment.stream.synthesizer.batch()
    if last is not None:
        images = save({"images": last.images.cpu().contiguous(), "labels": last.labels.cpu().contiguous()})
        write_atomically(folder / SYNTHETIC, lambda file: file.write(images))
    replay = replay_of(experiment)
    if config.carry is not None and config.carry.keep_replay and replay is not None:
        content = {"replay": config.replay["name"], "image": list(problem.image), "state": replay.state_dict()}
        write_atomically(folder / REPLAY, lambda file: torch.save(content, file))


def reuse(experiment: Experiment) -> None:
    """Initialise a built run from the files of earlier runs that its configuration names.

    Raises:
        MissingInput: if a file does not exist.
        UsageError: if a file is damaged or does not fit, or a required one is not named.
    """
    carry, synthesizer = experiment.config.carry, experiment.stream.synthesizer
    if carry is not None and carry.generator is not None:
        file = Path(carry.generator)
        weights, notes = load_generator(file)
        refuse_unfit(file, notes, experiment.problem, latent_of(synthesizer.generator_to_reuse()))
        try:
            synthesizer.begin_with(weights)
        except ValueError as error:
            raise UsageError(f"generator {file} and method {experiment.config.method!r}: {error}") from None
    elif synthesizer.awaits_generator:
        raise UsageError("synthesis.reuse needs a generator: give --set carry.generator=FILE, or take reuse anew")
    if carry is not None and carry.replay is not None:
        _reuse_replay(Path(carry.replay), experiment)


def save_generator(path: Path, generator: nn.Module, notes: Provenance) -> None:
    """Write weights, buffers and provenance as safetensors."""
    save_weights(path, generator, {FORMAT: notes.model_dump_json()})


def load_generator(path: Path) -> tuple[dict[str, Tensor], Provenance]:
    """Read what `save_generator` wrote.

    Raises:
        MissingInput: if the file does not exist.
        UsageError: if it is damaged or has no provenance.
    """
    if not path.is_file():
        raise MissingInput(f"generator {path} does not exist: a run leaves one in its folder when it is finished")
    try:
        with safe_open(path, framework="pt") as file:
            notes = Provenance.model_validate_json((file.metadata() or {})[FORMAT])
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except KeyError:
        raise UsageError(f"generator {path} does not say where it is from: give one that a run left") from None
    except (SafetensorError, ValidationError, OSError) as error:
        line = one_line(error)
        raise UsageError(f"generator {path} cannot be read ({line}): run its task again") from None


def refuse_unfit(path: Path, notes: Provenance, problem: Problem, latent: int | None) -> None:
    """Raise `UsageError` for a generator of another image or latent size."""
    if notes.image != problem.image:
        raise UsageError(
            f"generator {path} of {notes.dataset} makes images {_sizes(notes.image)} and this task has "
            f"{_sizes(problem.image)}: set data.size, or start from nothing"
        )
    if latent is not None and notes.latent != latent:
        raise UsageError(
            f"generator {path} of {notes.dataset} takes {notes.latent} latents and this task's {latent}: "
            f"set synthesis.latent={notes.latent}, or start from nothing"
        )


def latent_of(generator: nn.Module | None) -> int | None:
    """The latent dimensions of a generator, if it states them."""
    latent = getattr(generator, "latent", None)
    return latent if isinstance(latent, int) else None


def replay_of(experiment: Experiment) -> Replay | None:
    """The replay of a run, if it is one of ours."""
    return next((plugin for plugin in experiment.strategy.plugins if isinstance(plugin, Replay)), None)


def _reuse_replay(path: Path, experiment: Experiment) -> None:
    replay, name = replay_of(experiment), experiment.config.replay["name"]
    content = _replay_file(path)
    if replay is None or content["replay"] != name:
        raise UsageError(f"{path} holds replay {content['replay']!r} and this run's is {name!r}: choose the same")
    image = tuple(content["image"])
    if image != experiment.problem.image:
        needed = _sizes(experiment.problem.image)
        raise UsageError(f"{path} is of images {_sizes(image)} and this task has {needed}: set data.size")
    try:
        replay.begin_with(content["state"], experiment.stream.teacher)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path} does not fit replay {name!r} as it is set here: {one_line(error)}") from None


def _replay_file(path: Path) -> Mapping[str, Any]:
    refuse_zip_bomb(path)
    try:
        content: State = torch.load(path, map_location="cpu", weights_only=True)
        if {"replay", "image", "state"} <= content.keys():
            return content
    # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
    except Exception as error:
        raise UsageError(f"{path} cannot be read ({one_line(error)}): run its task again") from None
    raise UsageError(f"{path} holds no replay: give the replay.pt that a run left")


def _sizes(image: tuple[int, ...]) -> str:
    return "x".join(map(str, image))
