"""The configuration of a run: sections of typed options, layered from defaults to flags.

Defaults < scale of the data set < preset < config file < ``--set`` < flags. The result is checked in full before
anything happens, and is itself a config file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, ValidationError

from lra.benchmarks.errors import UsageError, nearest
from lra.benchmarks.setup.teachers import TeacherOptions
from lra.distillation.objective import LossOptions
from lra.networks import NETWORKS
from lra.options import Count, Fraction, NonNegative, Options, Positive
from lra.strategies.extensions import replay_plugins
from lra.strategies.lra_options import LRAOptions
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

Tree = dict[str, Any]
"""A configuration as plain data, section by section."""

SCALARS = ("method", "seed", "device", "threads")
"""The keys of a configuration that are no sections."""


class DataOptions(Options):
    """The labelled data a student is evaluated on, and a teacher may be trained on."""

    name: str = "digits"
    size: Annotated[int, Field(ge=8)] | None = None
    """Side that images are resized to; the data set's own if not given."""
    test: bool = True
    """False: there is no test set; all but test accuracy is still measured."""


class StudentOptions(Options):
    """The student and its optimiser (SGD)."""

    network: str = "resnet18"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 5e-4
    loss: LossOptions = LossOptions()


class ScheduleOptions(Options):
    """How long, in what portions, and the student's learning rate over it."""

    batch_size: Count = 256
    """New images per student step."""
    steps_per_experience: Count = 10
    experiences_per_epoch: Count = 36
    epochs: Count = 400
    steps: Count | None = None
    """Student steps in all, in place of ``epochs``."""
    lr: Literal["cosine", "constant"] = "cosine"
    """Over epochs, to zero; or not at all."""

    @property
    def student_steps(self) -> int:
        """The budget in student steps."""
        return self.steps or self.epochs * self.experiences_per_epoch * self.steps_per_experience


class EvaluationOptions(Options):
    """What a run measures of itself."""

    every: Count = 1
    """Epochs between evaluations."""
    probes: Count = 32
    """Probes kept at most, evenly spread over the run."""
    probe_size: Count = 64
    """Images per probe."""
    samples: Annotated[int, Field(ge=0)] = 16
    """Generated images kept as a picture at some evaluations; 0 for none."""


class MetaOptions(LRAOptions):
    """The LRA step, on or off."""

    enabled: bool = False


class PluginOptions(Options):
    """Avalanche plugins from outside, and the options they take beside ``use``."""

    model_config = ConfigDict(extra="allow")

    use: list[str] = []
    """As ``package.module:Class``, or names of installed ones."""


class RunConfig(Options):
    """A whole run; ``synthesis`` and ``replay`` hold the options of the method and replay that are named."""

    method: str
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: str = "cpu"
    threads: Count | None = None
    """Torch threads; its own default if not given."""
    data: DataOptions
    teacher: TeacherOptions
    student: StudentOptions
    synthesis: Tree
    replay: Tree
    meta: MetaOptions
    schedule: ScheduleOptions
    evaluation: EvaluationOptions
    plugin: PluginOptions

    def tree(self) -> Tree:
        """As plain data, to be stored and run again."""
        return self.model_dump(mode="json")

    def fingerprint(self, teacher_sha256: str) -> str:
        """Eight hexadecimal digits that name everything but the seed and the machine."""
        content = {k: v for k, v in self.tree().items() if k not in ("seed", "device", "threads")}
        text = json.dumps([content, teacher_sha256], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def _book() -> Tree:
    text = (files("lra.benchmarks") / "presets.yaml").read_text()
    return yaml.safe_load(text)


def presets() -> dict[str, Tree]:
    """All presets by name."""
    return dict(_book()["presets"])


def resolve(layers: Iterable[Tree], preset: str | None = None) -> RunConfig:
    """Lay ``layers`` (config file, ``--set``, flags; later ones win) over the defaults and check the result.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, in one line.
    """
    given: Tree = {}
    for layer in layers:
        given = merged(given, _expanded(layer))
    named = {} if preset is None else _expanded(_preset(preset))
    chosen = merged(named, given)
    method = _name("method", chosen.get("method", "predfkd"), METHODS)
    data = str(chosen.get("data", {}).get("name", "digits"))
    replay = _name("replay", chosen.get("replay", {}).get("name", "none"), [*REPLAYS, *replay_plugins()])
    base = {"method": method, **_plain(METHODS[method].defaults)}
    scale = _scale(data, method, replay)
    return checked(merged(merged(base, scale), chosen))


def checked(tree: Tree) -> RunConfig:
    """The configuration in ``tree``, every section checked by its own options.

    Raises:
        UsageError: as `resolve`.
    """
    sections: Tree = {name: {} for name in ("data", "teacher", "student", "meta", "schedule", "evaluation", "plugin")}
    method = METHODS[tree["method"]]
    replay = dict(tree["replay"])
    name = replay.pop("name")
    try:
        synthesis = method.Options.model_validate(tree.get("synthesis", {}))
    except ValidationError as error:
        raise UsageError(explain(error, "synthesis", method.Options)) from None
    if name in REPLAYS:
        try:
            retained = REPLAYS[name].model_validate(replay).model_dump(mode="json")
        except ValidationError as error:
            raise UsageError(explain(error, "replay", REPLAYS[name])) from None
    else:
        # An installed plugin's options are its own affair, until it is built.
        retained = replay
    whole = (
        sections
        | tree
        | {
            "synthesis": synthesis.model_dump(mode="json"),
            "replay": {"name": name} | retained,
        }
    )
    try:
        config = RunConfig.model_validate(whole)
    except ValidationError as error:
        raise UsageError(explain(error, "", RunConfig)) from None
    for key, network in (("student", config.student.network), ("teacher", config.teacher.network)):
        _name(f"{key}.network", network.lower().replace("_", "-"), NETWORKS)
    return config


def _name(key: str, name: object, known: Iterable[str]) -> str:
    """``name``, if it is among the ``known`` ones."""
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"unknown {key} {name!r}; did you mean {nearest(str(name), known)!r}?")
    return name


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """``above`` over ``below``, section by section; another replay starts from its own defaults."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            # Options given without a name are for whichever replay is named above them.
            other = key == "replay" and "name" in old and value.get("name", old["name"]) != old["name"]
            result[key] = dict(value) if other else merged(old, value)
        else:
            result[key] = value
    return result


def explain(error: ValidationError, section: str, options: type[Options]) -> str:
    """One line on the first thing wrong: key, value, remedy."""
    first = error.errors()[0]
    path = ".".join([*filter(None, [section]), *map(str, first["loc"])])
    if first["type"] == "extra_forbidden":
        known = _fields(options, first["loc"][:-1])
        return f"unknown option {path!r}; did you mean {nearest(str(first['loc'][-1]), known)!r}?"
    if first["type"] == "value_error":
        return f"{path}: {first['ctx']['error']}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}{more}"


def _fields(options: Any, path: tuple[int | str, ...]) -> list[str]:
    for step in path:
        options = options.model_fields[step].annotation
    return list(options.model_fields)


def _expanded(layer: Mapping[str, Any]) -> Tree:
    """Write the short forms ``replay: memory``, ``meta: true``, ``data: digits`` and the like in full."""
    short = {"replay": "name", "meta": "enabled", "data": "name", "student": "network", "teacher": "network"}
    tree: Tree = {}
    for key, value in layer.items():
        if not isinstance(key, str):
            raise UsageError(f"unknown option {key!r}: options have names")
        if key in short and not isinstance(value, Mapping):
            tree[key] = {short[key]: value}
        elif key in RunConfig.model_fields:
            if key not in SCALARS and not isinstance(value, Mapping):
                raise UsageError(f"{key} = {value!r}: a section of options is expected, such as {key}: {{...}}")
            tree[key] = dict(value) if isinstance(value, Mapping) else value
        elif key != "source":
            raise UsageError(f"unknown option {key!r}; did you mean {nearest(key, RunConfig.model_fields)!r}?")
    return tree


def _preset(name: str) -> Tree:
    known = presets()
    if name not in known:
        raise UsageError(f"unknown preset {name!r}; did you mean {nearest(name, known)!r}? See lra-bench list presets")
    return known[name]


def _scale(data: str, method: str, replay: str) -> Tree:
    scale = dict(_book()["scales"].get(data, {}))
    own = scale.pop("methods", {}).get(method, {})
    tree: Tree = {"replay": {"name": replay}}
    for part in (scale, own):
        retained = part.get("replay", {}).get(replay, {})
        tree = merged(tree, {k: v for k, v in part.items() if k not in ("source", "replay")} | {"replay": retained})
    return tree


def _plain(sections: Mapping[str, Mapping[str, Any]]) -> Tree:
    return {key: dict(value) for key, value in sections.items()}


def parse_assignment(text: str) -> Tree:
    """``section.key=value`` as a tree; the value is read as YAML.

    Raises:
        UsageError: for anything else.
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {text!r}: write it as section.key=value, such as student.lr=0.05")
    try:
        leaf = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text!r}: the value is no YAML scalar, list or mapping") from None
    for key in reversed(keys):
        leaf = {key: leaf}
    return leaf
