"""The configuration of a run that learns classes a few at a time, and what makes it the one it is."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from lra.benchmarks.errors import UsageError, concerning, suggestion
from lra.benchmarks.records import INCREMENT
from lra.benchmarks.runs.machine import refuse_device
from lra.benchmarks.setup.config import Identity, Tree, fingerprint
from lra.benchmarks.setup.datasets import DataSet, data_set
from lra.benchmarks.setup.layers import explain, known_name, merged, parse_assignment
from lra.benchmarks.setup.places import data_kind, data_label, placed, placed_data
from lra.benchmarks.setup.presets import book, printed
from lra.benchmarks.setup.resolution import NothingRetained, origin, read_options
from lra.benchmarks.setup.user_code import identities, importable, modules_in
from lra.meta.options import LookAheadOptions
from lra.networks import instead, is_known
from lra.networks.foreign import is_foreign
from lra.options import Count, Options, Seed
from lra.strategies.increment.options import IncrementOptions
from lra.strategies.increment.strategies import DATA_FREE, OWN_OPTIONS, STRATEGIES, TRAINED_ONCE

PREFIX = "split-"

SIDES = {"digits": 8}
"""Data sets used in another size than `data_set` gives them: the digits as they were scanned."""


class IncrementConfig(Options):
    """All that determines a result."""

    benchmark: str = "split-digits"
    strategy: str = "generative"
    experiences: Count = 5
    steps: Count = 200
    """Per experience."""
    seed: Seed = 0
    """Seed of everything random, the order of the classes too."""
    model: str = "resnet8"
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Torch threads, as `RunConfig.threads`."""
    options: IncrementOptions = IncrementOptions()
    code: dict[str, str] | None = None
    """Folders of the user's own modules, as `RunConfig.code`."""

    @field_validator("model")
    @classmethod
    def _spelled(cls, name: str) -> str:
        """One spelling of each name, and so one folder."""
        return name if is_foreign(name) else name.lower().replace("_", "-")

    @property
    def meta(self) -> bool:
        """Whether the LRA step is taken."""
        return self.options.alpha is not None

    @property
    def student_steps(self) -> int:
        """Steps of the model in all."""
        return self.steps * (1 if self.strategy in TRAINED_ONCE else self.experiences)

    @property
    def dataset(self) -> str:
        """Name of the data set whose classes are split."""
        return self.benchmark.removeprefix(PREFIX)

    @property
    def label(self) -> str:
        """The first part of a run folder's path."""
        return f"{INCREMENT}-{PREFIX}{data_label(self.dataset)}-{self.strategy}{'+meta' if self.meta else ''}"

    @property
    def provisional(self) -> str:
        """A fingerprint by names, for configurations whose data are not looked at yet."""
        return fingerprint({"settings": self._settings() | {"benchmark": self.benchmark}})

    def tree(self) -> Tree:
        """The configuration as plain data, to be stored and run again."""
        absent = {"code"} if self.code is None else set()
        return {"kind": INCREMENT} | self.model_dump(mode="json", exclude=absent)

    def identity(self) -> Identity:
        """What makes the run the one it is, part by part: settings, the content of its data, the user's own code.

        Raises:
            LraError: for data that are not there.
        """
        data, code = data_of(self), identities(_networks(self.model))
        parts = {"settings": self._settings(), "data": data.content("train") + data.content("test"), "code": code}
        return {name: part for name, part in parts.items() if part}

    def _settings(self) -> Tree:
        settings = self.model_dump(mode="json", exclude={"seed", "device", "threads", "code"})
        return {"kind": INCREMENT} | settings | {"benchmark": PREFIX + data_kind(self.dataset)}


def data_of(config: IncrementConfig) -> DataSet:
    """The data set whose classes are split."""
    return data_set(config.dataset, SIDES.get(config.dataset))


def checked(config: IncrementConfig) -> DataSet:
    """The data set of a configuration that makes sense.

    Raises:
        UsageError: for unknown names, classes that cannot be split so, and the LRA step where nothing is replayed
            without data.
        MissingInput: for data that are not there.
    """
    known_name("strategy", config.strategy, STRATEGIES)
    if not is_foreign(config.model) and not is_known(config.model):
        raise UsageError(f"unknown --model {config.model!r}; {instead(config.model)}")
    if config.meta and config.strategy not in DATA_FREE:
        raise NothingRetained(f"--meta needs a strategy that replays without data; choose {' or '.join(DATA_FREE)}")
    refuse_device(config.device)
    if config.dataset == config.benchmark:
        raise UsageError(f"unknown benchmark {config.benchmark!r}: write {PREFIX}DATASET, such as split-digits")
    data = data_of(config)
    if config.experiences < 2 or data.classes % config.experiences:
        fitting = [str(n) for n in range(2, data.classes + 1) if data.classes % n == 0]
        raise UsageError(
            f"the {data.classes} classes of {data.name} do not split into {config.experiences} experiences of equal "
            f"size; choose --experiences {', '.join(fitting)}"
        )
    return data


def protocols() -> dict[str, Tree]:
    """Presets of increments by name."""
    return dict(book()["increments"])


def protocol(name: str, strategy: str) -> Tree:
    """What the preset ``name`` sets for a strategy.

    Raises:
        UsageError: if there is none of this name.
    """
    known = protocols()
    if name not in known:
        raise UsageError(f"unknown --preset {name!r}; {suggestion(name, known, 'lra-bench list presets')}")
    tree: Tree = {key: value for key, value in known[name].items() if key not in ("source", "strategies")}
    return merged(tree, known[name]["strategies"].get(strategy, {}))


def figures(config: IncrementConfig) -> Iterator[str]:
    """What others print for such a run, in words."""
    if config.meta:
        return
    for entry in printed():
        found = {"method": config.strategy, "student": config.model, "dataset": config.benchmark}
        if all(entry[key] == value for key, value in found.items()) and entry["experiences"] == config.experiences:
            spread = f" ± {entry['deviation']:g}" if "deviation" in entry else ""
            yield f"published: {entry['value']:g}{spread} % accuracy at the end ({entry['source']})"


FLAGS = ("benchmark", "strategy", "meta", "experiences", "steps", "seed", "model", "config", "set", "device", "preset")
"""What a grid of increments may name."""


def configuration(
    given: Mapping[str, object],
    assignments: Sequence[str] = (),
    meta: bool | None = None,
    file: Path | None = None,
    base: Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> IncrementConfig:
    """The configuration of options ``given`` by name, over those of a ``file``.

    Args:
        given: what was typed, a ``preset`` too; ``None`` for what was not.
        assignments: KEY=VALUE, to `IncrementOptions`.
        meta: whether to take the LRA step; ``None`` leaves it to the rest.
        file: an earlier run's ``config.yaml``, or one like it.
        base: the folder that relative paths count from first, of options in a file.
        settings: likewise to `IncrementOptions`, by name.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, in one line.
        MissingInput: for a file that is not there.
    """
    bases = [Path()] if base is None else [base, Path()]
    below: Tree = {} if file is None else _stored(Path(placed(str(file), "config", bases)))
    typed = {name: value for name, value in given.items() if value is not None}
    if isinstance(benchmark := typed.get("benchmark"), str) and benchmark.startswith(PREFIX):
        typed["benchmark"] = PREFIX + placed_data(benchmark.removeprefix(PREFIX), bases)
    strategy = str(typed.get("strategy") or below.get("strategy") or IncrementConfig().strategy)
    if (preset := typed.pop("preset", None)) is not None:
        named = protocol(str(preset), strategy)
        below = named | below | {"options": named["options"] | dict(below.get("options") or {})}
    options: Tree = OWN_OPTIONS.get(strategy, {}) | dict(below.get("options") or {})
    if meta is not None:
        options["alpha"] = (options.get("alpha") or LookAheadOptions().alpha) if meta else None
    for assignment in assignments:
        options = merged(options, parse_assignment(assignment))
    options |= settings or {}
    config = restored(below | typed | {"options": options})
    tops = [module.partition(".")[0] for module in modules_in(_networks(typed.get("model"))).values()]
    return importing(config, tops)


def restored(tree: Tree) -> IncrementConfig:
    """A configuration from plain data.

    Raises:
        UsageError: if it is none.
    """
    given = {name: value for name, value in tree.items() if name != "kind"}
    try:
        options = IncrementOptions.model_validate(given.get("options") or {})
        return IncrementConfig.model_validate({**given, "options": options})
    except ValidationError as error:
        kind = IncrementOptions if error.title == "IncrementOptions" else IncrementConfig
        raise UsageError(explain(error, "", kind)) from None


def stored_configuration(folder: Path) -> IncrementConfig:
    """The configuration that a run folder was made with.

    Raises:
        UsageError: if it is none.
    """
    file = folder.absolute() / "config.yaml"
    with concerning(origin("config", file)):
        config = restored(_stored(file))
    return importing(config)


def _stored(file: Path) -> Tree:
    """What a configuration file says; what is relative in it counts from its folder."""
    tree = read_options(file, "config")
    if tree.get("kind") != INCREMENT:
        raise UsageError(f"config {file} is not for lra-bench {INCREMENT}: it has no line 'kind: {INCREMENT}'")
    name = str(tree.get("benchmark", ""))
    if name.startswith(PREFIX):
        tree["benchmark"] = PREFIX + placed_data(name.removeprefix(PREFIX), [file.parent, Path()])
    return tree


def importing(config: IncrementConfig, typed: Sequence[str] = (), trusted: bool = False) -> IncrementConfig:
    """``config``, whose user's own network can be imported from now on.

    Args:
        config: a configuration.
        typed: first names of modules that the user typed.
        trusted: take them from where the configuration says.

    Raises:
        UsageError: for a folder that was not used before.
    """
    code = config.code or {}
    found = importable(modules_in(_networks(config.model)), code, typed, code if trusted else ())
    return config.model_copy(update={"code": found or None})


def _networks(model: object) -> Any:
    """A tree in which modules are looked for."""
    return {"student": {"network": model}} if isinstance(model, str) else {}
