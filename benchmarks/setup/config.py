"""The configuration of a run: sections of typed options, which also make up a configuration file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lra.benchmarks.errors import MissingInput
from lra.benchmarks.files import sha256
from lra.benchmarks.setup.datasets.labelled import Fit
from lra.benchmarks.setup.places import data_kind
from lra.benchmarks.setup.user_code import identities
from lra.meta.options import LRAOptions
from lra.options import LARGEST, Count, Fraction, LossOptions, NonNegative, Options, Positive, Precision, Seed, Whole

Tree = dict[str, Any]
"""A configuration as plain data, section by section."""

Identity = Mapping[str, Any]
"""What identifies a run, by part: ``settings``, ``teacher``, ``test``, ``code``, ``carry``, as far as it has them."""

SCALARS = ("method", "seed", "device", "threads", "on_divergence", "scale", "preset")
"""The keys of a configuration that hold one value, not a section."""


LEAST_SIDE = 8
"""The smallest side of an image, in pixels."""

AUTO = "auto"
"""In place of a network's name: the one that its weights are recognised as; elsewhere: a choice made automatically."""

FULL_PRECISION = ("precision", "channels_last", "features")
"""Options of a student that is not a quantised copy of its teacher."""

RECIPE = ("epochs", "lr", "weight_decay", "batch_size", "augment", "seed")
"""How a teacher is trained."""


class DataOptions(Options):
    """The labelled data on which the student is evaluated, and on which a teacher may be trained."""

    name: str = "digits"
    """Name of a data set (see: list datasets), or your own data: ``imagefolder:DIR``, ``npz:TRAIN,TEST``."""
    size: int | list[int] | None = None
    """Side that images are resized to, or [height, width]; the data set's own if not given."""
    fit: Fit = "squash"
    """How images with other proportions are brought to the size: ``squash``, as torchvision's ``Resize((height,
    width))``; ``crop``, cut centrally to its proportions first; or ``pad``, kept whole with black beside them."""
    channels: Literal[1, 3] | None = None
    """3 repeats grey images, for networks that take colour; 1 turns colour into grey; the data set's own if not
    given."""
    test: bool = True
    """Whether there is a test set; if false, everything but test accuracy is still measured."""

    @field_validator("size", mode="before")
    @classmethod
    def _sides(cls, value: object) -> object:
        sides = value if isinstance(value, list | tuple) else [value, value]
        if value is None:
            return None
        if len(sides) != 2 or not all(type(side) is int and LEAST_SIDE <= side <= LARGEST for side in sides):
            raise PydanticCustomError(
                "size", f"input should be a side or [height, width], whole numbers from {LEAST_SIDE}"
            )
        return sides[0] if sides[0] == sides[1] else list(sides)


class TeacherOptions(Options):
    """The teacher: a weights file, or a network trained here with this recipe."""

    network: str = "resnet34"
    """One of ours, or ``torchvision:NAME``, ``timm:NAME``, ``package.module:function``; ``auto`` (the default with a
    file): recognised from its weights."""
    file: str | None = None
    """Weights file: safetensors (ours describe themselves), or a state dict, whose network is recognised by the names
    and shapes of its weights."""
    mean: list[float] | None = None
    """Mean of each channel in [0, 1], where the file does not state it; by default the data set's published one."""
    std: list[float] | None = None
    """Standard deviation of each channel, likewise."""
    features: str | None = None
    """Where the penultimate features are, if the forward pass does not reveal it: the name of the module that outputs
    them, or ``input:NAME`` for the one that takes them as input."""
    epochs: Count = 100
    """Epochs of the teacher's training; its learning rate falls to 0 along a cosine."""
    lr: Positive = 0.1
    """Initial learning rate of the teacher's SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of the teacher's SGD."""
    batch_size: Count = 128
    """Images per step of the teacher's training."""
    augment: float | str = 0.12
    """A number: random shifts by that fraction of half the side, with rotation and scaling in proportion. Or as usual
    for CIFAR, ``crop``: padded by an eighth of the shorter side and cropped; or ``crop-flip``: mirrored too."""
    seed: Seed = 0
    """Seed of the teacher's weights and training."""

    @model_validator(mode="before")
    @classmethod
    def _told_by_the_file(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("file") is not None and "network" not in given:
            return {**given, "network": AUTO}
        return given

    @field_validator("augment")
    @classmethod
    def _known(cls, value: float | str) -> float | str:
        if value in ("crop", "crop-flip") or (isinstance(value, float) and 0 <= value <= 1):
            return value
        raise ValueError(f"{value!r} is none of: a number from 0 to 1, crop, crop-flip")


class StudentOptions(Options):
    """The student and its optimiser (SGD)."""

    network: str = "resnet18"
    """The student's network, given as for ``teacher.network``."""
    lr: Positive = 0.1
    """Initial learning rate of the student's SGD (see ``schedule.lr``)."""
    momentum: Fraction = 0.9
    """Momentum of the student's SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of the student's SGD."""
    loss: LossOptions = LossOptions()
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the student's training passes: bfloat16 (autocast) halves their time for a ResNet where the hardware
    supports it; weights, losses, evaluation and synthesis stay in float32."""
    channels_last: bool | Literal["auto"] = "auto"
    """Use the channels-last memory format: a fifth less time for a ResNet's plain step on a CPU. ``auto``: on a CPU, if
    images have at least 16 pixels a side, channel numbers are multiples of 8, and the network can be run that way."""
    features: str | None = None
    """Where the student's penultimate features are, given as for ``teacher.features``."""
    ema: Fraction | None = None
    """Keep a moving average of the student's weights and BatchNorm statistics, with this decay per step (0.99, say). It
    is evaluated, saved and exported too; training is the same with and without it."""


class ComputeOptions(Options):
    """How a run is computed, apart from the student's own passes, as far as results depend on it."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the passes of synthesis, and of the teacher's: bfloat16 (autocast) where the hardware supports it;
    weights, losses, memory generators and evaluation stay in float32."""
    random: Literal["host", "device"] = "host"
    """Where random numbers are drawn in training: on the host, so that all devices see the same ones, or on the device
    that computes, which saves copies to a GPU. Target labels and the jitter of whole batches stay on the host."""


class ScheduleOptions(Options):
    """The length of a run, its division into experiences, and the schedule of the student's learning rate."""

    batch_size: Count = 256
    """New images per student step."""
    steps_per_experience: Count = 10
    """Student steps on each experience."""
    experiences_per_epoch: Count = 36
    """Experiences that make up an epoch, the unit of the schedule and of evaluations."""
    epochs: Count = 400
    """Budget in epochs."""
    steps: Count | None = None
    """Budget in student steps, in place of ``epochs``."""
    lr: Literal["cosine", "constant"] = "cosine"
    """Schedule of the student's learning rate over epochs: along a cosine to ``least_lr``, or constant."""
    rise: Whole = 0
    """Epochs of linear warm-up of the learning rate, before the cosine."""
    least_lr: NonNegative = 0.0
    """Learning rate at the end of the cosine."""

    @property
    def student_steps(self) -> int:
        """The budget in student steps."""
        return self.steps or self.epochs * self.experiences_per_epoch * self.steps_per_experience

    @property
    def experiences(self) -> int:
        """The budget in experiences, the last of which may be shorter."""
        return -(-self.student_steps // self.steps_per_experience)


class EvaluationOptions(Options):
    """What a run measures of itself."""

    every: Count | None = 1
    """Epochs between evaluations. ``null``: one epoch, or less in a short run, so that there are 20 evaluations or one
    per experience. That is also the default where ``steps`` alone sets a budget too short for 20 evaluations."""
    probes: Count = 32
    """Most probes kept, evenly spread over the run."""
    probe_size: Count = 64
    """Images per probe."""
    samples: Whole = 16
    """Generated images saved as a picture at some evaluations; 0 for none."""
    keep_best: bool = False
    """Also keep the student with the highest test accuracy of all evaluations (the first, if several are equal). It is
    chosen on test data: its accuracy is no unbiased estimate, and no result here uses it."""


class MetaOptions(LRAOptions):
    """The LRA step, on or off, and its settings."""

    enabled: bool = False
    """Whether the LRA step is taken."""


class PluginOptions(Options):
    """Avalanche plugins to add; besides ``use``, the section holds their options."""

    model_config = ConfigDict(extra="allow")

    use: list[str] = []
    """Plugins as ``package.module:Class``, by the name of an installed one, or a second replay by its name."""

    @field_validator("use")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is given {names.count(twice[0])} times; once is enough")
        return names


class QuantizationOptions(Precision):
    """A student that is a quantised copy of its teacher."""

    noise: Count = 1024
    """Images of Gaussian noise that set its initial ranges: min-max post-training quantization, the baseline."""
    calibration: Whole = 10
    """Experiences whose images then set its ranges, a batch of each; 0 keeps the ranges from noise."""


class CarryOptions(Options):
    """What a run takes over from an earlier one, and what it leaves for a later one."""

    generator: str | None = None
    """``generator.safetensors`` of an earlier run; a run leaves one if its generator persists across experiences."""
    replay: str | None = None
    """``replay.pt`` of an earlier run: its buffer or memory generator."""
    keep_replay: bool = False
    """Leave a ``replay.pt`` for later runs."""

    def identity(self) -> Tree:
        """The content of the files in place of their names.

        Raises:
            MissingInput: if one does not exist.
        """
        files = {"generator": self.generator, "replay": self.replay}
        there = {key: Path(file) for key, file in files.items() if file is not None}
        for key, file in there.items():
            if not file.is_file():
                raise MissingInput(f"carry.{key}: file {file} does not exist: give one that an earlier run left")
        found = {key: sha256(file) for key, file in there.items()}
        return found | {"keep_replay": self.keep_replay}


def fingerprint(identity: Identity) -> str:
    """Eight hexadecimal digits that name a run by what identifies it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


EVALUATIONS = 20
"""Evaluations that make a curve, where there are as many experiences."""


class RunConfig(Options):
    """A whole run; ``synthesis`` and ``replay`` hold the options of the named method and replay."""

    method: str
    """How samples are made (see: list methods)."""
    seed: Seed = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where to compute: ``cpu``, ``cuda``, ``cuda:1``."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Torch threads. If not given: 1 on a GPU, or where networks are too small to gain from more; otherwise one per
    processor. A stored configuration has the number that was used."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """When a number becomes NaN or infinite: stop, or return to the last evaluation and go on at half the learning
    rate."""
    scale: str | None = None
    """The settings that all others override: those of a scale (see: list scales), by default the one that fits the
    data, or ``published``, those of the method's paper. Set when flags and files are resolved."""
    preset: str | None = None
    """The preset, which overrides the scale. Left out of a stored configuration without one."""
    data: DataOptions
    teacher: TeacherOptions
    student: StudentOptions
    synthesis: Tree
    replay: Tree
    meta: MetaOptions
    schedule: ScheduleOptions
    evaluation: EvaluationOptions
    plugin: PluginOptions
    compute: ComputeOptions = ComputeOptions()
    """Left out of a stored configuration where all of it is default."""
    quantization: QuantizationOptions | None = None
    """How a low-bit student is made. Left out of a stored configuration of full precision."""
    carry: CarryOptions | None = None
    """What is taken over from other runs. Left out of a stored configuration of a run that stands alone."""
    code: dict[str, str] | None = None
    """Folders of the user's own modules that are named, by top-level name. Left out where there are none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = self.student.model_dump(include={*FULL_PRECISION}, exclude_defaults=True)
        if self.quantization is not None and found:
            raise ValueError(f"student.{next(iter(found))} is for students of full precision; leave it out")
        if self.quantization is not None and self.compute.precision != "float32":
            raise ValueError("compute.precision is for students of full precision; leave it out")
        if self.evaluation.keep_best and not self.data.test:
            raise ValueError("evaluation.keep_best chooses on test data and data.test is false: leave one of them out")
        if self.meta.enabled and self.meta.along == "momentum" and not self.student.momentum:
            raise ValueError("meta.along=momentum and student.momentum is 0: raise it, or drop meta.along")
        return self

    @property
    def between(self) -> int:
        """Experiences between evaluations."""
        epoch, every = self.schedule.experiences_per_epoch, self.evaluation.every
        return epoch * every if every else max(1, min(epoch, self.schedule.experiences // EVALUATIONS))

    @property
    def evaluations(self) -> int:
        """The number of evaluations in all, including the one at the end."""
        return -(-self.schedule.experiences // self.between)

    @property
    def student_steps(self) -> int:
        """Steps of the student in all."""
        return self.schedule.student_steps

    def tree(self) -> Tree:
        """The configuration as plain data, to be stored and run again."""
        optional = ("scale", "preset", "quantization", "carry", "code")
        left_out = {name for name in optional if getattr(self, name) is None}
        left_out |= {"compute"} if self.compute == ComputeOptions() else set()
        return self.model_dump(mode="json", exclude=left_out)

    def identity(self, teacher_sha256: str, tested_on: str = "") -> Tree:
        """What identifies the run, part by part; see `lra.benchmarks.runs.run_folder.IDENTITY`.

        It leaves out the seed, the machine, what to do about a divergence, and where files lie.

        Args:
            teacher_sha256: hash of the teacher's weights.
            tested_on: what distinguishes the test set from others of the same name.

        Raises:
            MissingInput: if a file to start from does not exist.
        """
        apart = ("seed", "device", "threads", "on_divergence", "scale", "preset", "carry", "code")
        settings = {k: v for k, v in self.tree().items() if k not in apart}
        settings["data"] |= {"name": data_kind(self.data.name)}
        if self.teacher.file is not None:  # How others are trained is nothing to a teacher that is there.
            settings["teacher"] = {k: v for k, v in settings["teacher"].items() if k not in ("file", *RECIPE)}
        if not self.meta.enabled:  # What it would be is nothing to a run without it.
            settings["meta"] = {"enabled": False}
        parts = {
            "settings": settings,
            "teacher": teacher_sha256,
            "test": tested_on,
            "code": identities(self.tree()),
            "carry": None if self.carry is None else self.carry.identity(),
        }
        return {name: part for name, part in parts.items() if part}

    def fingerprint(self, teacher_sha256: str, tested_on: str = "") -> str:
        """Eight hexadecimal digits that name its `identity`."""
        return fingerprint(self.identity(teacher_sha256, tested_on))

    @property
    def provisional(self) -> str:
        """A fingerprint by names, for configurations whose teacher and data have not been read yet."""
        return self.fingerprint(self.teacher.file or "", self.data.name)
