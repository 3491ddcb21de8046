"""What is asked for on the command line, checked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import plain_name
from lra.benchmarks.runs.machine import refuse_device
from lra.benchmarks.setup.datasets import DataSet, data_set
from lra.benchmarks.setup.layers import explain, known_name, merged, parse_assignment
from lra.benchmarks.setup.places import data_kind, data_label, placed_data
from lra.benchmarks.setup.user_code import identities, importable, modules_in
from lra.meta.options import LookAheadOptions
from lra.networks import instead, is_known
from lra.networks.foreign import is_foreign
from lra.options import Count, Options, Seed
from lra.strategies.increment.options import IncrementOptions
from lra.strategies.increment.strategies import DATA_FREE, STRATEGIES

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
    """As `RunConfig.threads`."""
    options: IncrementOptions = IncrementOptions()

    @field_validator("model")
    @classmethod
    def _spelled(cls, name: str) -> str:
        """One spelling of each name, and so one folder."""
        return name if is_foreign(name) else name.lower().replace("_", "-")

    @property
    def meta(self) -> bool:
        """Whether the LRA step is taken."""
        return self.options.alpha is not None

    def folder(self, out: Path, data: DataSet) -> Path:
        """Where under ``out`` the result on ``data`` belongs; runs that differ in the seed alone are neighbours."""
        settings = self.model_dump(mode="json", exclude={"seed", "device", "threads"})
        named = settings | {"benchmark": PREFIX + data_kind(data.name)}
        code = identities({"student": {"network": self.model}})
        content = json.dumps([named, data.content("train"), data.content("test"), code], sort_keys=True)
        label = f"increment-{PREFIX}{data_label(data.name)}-{self.strategy}{'+meta' if self.meta else ''}"
        return out / plain_name(label) / hashlib.sha256(content.encode()).hexdigest()[:8] / f"seed-{self.seed}"


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
        raise UsageError(f"--meta needs a strategy that replays without data; choose {' or '.join(DATA_FREE)}")
    refuse_device(config.device)
    name = config.benchmark.removeprefix(PREFIX)
    if name == config.benchmark:
        raise UsageError(f"unknown benchmark {name!r}: write {PREFIX}DATASET, such as split-digits")
    data = data_set(name, SIDES.get(name))
    if config.experiences < 2 or data.classes % config.experiences:
        fitting = [str(n) for n in range(2, data.classes + 1) if data.classes % n == 0]
        raise UsageError(
            f"the {data.classes} classes of {name} do not split into {config.experiences} experiences of equal size; "
            f"choose --experiences {', '.join(fitting)}"
        )
    return data


def configuration(given: Mapping[str, object], assignments: Sequence[str], meta: bool) -> IncrementConfig:
    """The configuration of options ``given`` by name, ``assignments`` KEY=VALUE to a strategy, and the LRA step.

    Raises:
        UsageError: for anything unknown, of the wrong type or out of range, in one line.
    """
    benchmark = given.get("benchmark")
    if isinstance(benchmark, str) and benchmark.startswith(PREFIX):
        given = {**given, "benchmark": PREFIX + placed_data(benchmark.removeprefix(PREFIX), [Path()])}
    model = given.get("model")
    if isinstance(model, str):
        modules = modules_in({"student": {"network": model}})
        importable(modules, {}, typed=[module.partition(".")[0] for module in modules.values()])
    options = {"alpha": LookAheadOptions().alpha} if meta else {}
    for assignment in assignments:
        options = merged(options, parse_assignment(assignment))
    try:
        return IncrementConfig.model_validate({**given, "options": IncrementOptions.model_validate(options)})
    except ValidationError as error:
        kind = IncrementOptions if error.title == "IncrementOptions" else IncrementConfig
        raise UsageError(explain(error, "", kind)) from None
