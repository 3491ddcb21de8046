"""Runs found in folders, and put together by configuration: what is left to differ in a group is the seed."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.records import INCREMENT, TASKS, Record, Run, flatten, inner, of_increment, parts_of, pick, read_run
from lra.benchmarks.setup.config import AUTO
from lra.benchmarks.setup.places import data_kind, data_label
from lra.meta.options import LRAOptions
from lra.metrics.quantities import Quantity
from lra.options import Options
from lra.strategies.increment.options import IncrementOptions
from lra.strategies.increment.strategies import OWN_OPTIONS
from lra.strategies.retention import REPLAYS

UNHEEDED = ("seed", "device", "threads", "on_divergence", "scale", "preset")
"""Settings that make no other configuration: the seed, what changes no result, what only says where others are from.
Nor do those of an LRA step that is off."""

SHORT = {
    "method": "method",
    "strategy": "strategy",
    "replay": "replay.name",
    "plugin": "plugin.use",
    "meta": "meta.enabled",
    "dataset": "data.name",
    "teacher": "teacher.network",
    "student": "student.network",
}
"""The settings that name a run, by the flag that sets them."""

TASK_RECORD = "tasks.json"
"""Beside the folders of the chains of one file of tasks: which they are, and what became of each."""

PACE = "schedule.steps_per_experience"
"""What differs between the rows of a grid of equal seconds, in which it goes without saying."""
CONTENT = "data.content"
"""Where the hash of a user's own data is, which says more than their name, which may have changed."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration and teacher.

    Attributes:
        settings: the configuration as dotted keys, without the seed.
        runs: by seed.
        label: what sets it apart from the groups it was found with.
    """

    settings: Record
    runs: dict[int, Run]
    label: str = ""

    @property
    def teacher(self) -> str:
        """Hash of the teacher's file."""
        return str(pick(next(iter(self.runs.values())).result, "teacher", "sha256"))

    def values(self, quantity: Quantity) -> dict[int, float]:
        """A quantity of each run that has it, by seed."""
        found = {seed: run.value(quantity) for seed, run in sorted(self.runs.items())}
        return {seed: value for seed, value in found.items() if value is not None}


def run_folders(places: Iterable[Path]) -> list[Path]:
    """Every run folder in ``places``, which are run folders, sweeps, or folders of such; each once, in name order.

    Raises:
        MissingInput: for a place that does not exist, or without runs.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise MissingInput(f"folder {place} does not exist: give run folders, or folders that hold some")
        inside = list(_inside(place))
        if not inside:
            raise MissingInput(f"no runs in {place}: make some with lra-bench run or sweep --out {place}")
        found |= {folder.resolve(): None for folder in inside}
    return list(found)


def _inside(place: Path) -> Iterator[Path]:
    sweep = place / "sweep.json"
    if sweep.is_file() or (place / TASK_RECORD).is_file():
        record = sweep_record(sweep)["runs"] if sweep.is_file() else task_record(place)["chains"]
        listed = (place / run["folder"] for run in record if run["folder"])
        yield from (folder for folder in listed if (folder / "config.yaml").is_file())
    else:
        found = sorted({file.parent for name in ("config.yaml", "result.json") for file in place.rglob(name)})
        yield from (folder for folder in found if not of_increment(folder))


def sweep_record(file: Path) -> Record:
    """The record a sweep left of itself.

    Raises:
        UsageError: if it is damaged.
    """
    try:
        record = json.loads(file.read_text())
        if not all(inner(run["folder"]) for run in record["runs"]):
            raise ValueError
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        raise UsageError(f"{file} is damaged: run the sweep again to write it again") from None
    return dict(record)


def swept_by(record: Record, out: Path) -> str:
    """The command that made the sweep in the folder ``out``, as far as its ``record`` says."""
    file = record.get("file")
    grid = shlex.quote(file) if isinstance(file, str) and file.isprintable() else "GRID"
    return f"lra-bench sweep {grid} --out {out}"


def task_record(folder: Path) -> Record:
    """The record that the chains of a file of tasks left of themselves.

    Raises:
        MissingInput: if there is none.
        UsageError: if it is damaged.
    """
    file = folder / TASK_RECORD
    if not file.is_file():
        raise MissingInput(f"no {TASK_RECORD} in {folder}: make one with lra-bench tasks FILE --out {folder}")
    try:
        record = json.loads(file.read_text())
        if (
            isinstance(record["file"], dict)
            and isinstance(record.get("code", {}), dict)
            and all(map(_sound, record["chains"]))
        ):
            return dict(record)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        pass
    raise UsageError(f"{file} is damaged: do the tasks again to write it again")


def _sound(chain: Record) -> bool:
    """Whether a chain's record has all that is read of it."""
    named = isinstance(chain["reuse"], str) and isinstance(chain["seed"], int) and inner(chain["folder"])
    return named and all(isinstance(t["name"] + t["status"], str) and inner(t["folder"]) for t in chain["tasks"])


def finished(folders: Iterable[Path]) -> tuple[list[Run], int]:
    """The finished runs among ``folders``, and how many are not.

    Raises:
        MissingInput: if none is finished.
        UsageError: for a folder with a damaged file.
    """
    folders = list(folders)
    runs = [read_run(folder) for folder in folders if (folder / "result.json").is_file()]
    of_others = {run.folder.parents[2] / part for run in runs if run.kind == TASKS for part in parts_of(run).values()}
    folders = [folder for folder in folders if folder not in of_others]
    runs = [run for run in runs if run.folder not in of_others]
    if not runs:
        raise MissingInput(f"none of {len(folders)} runs is finished: continue with lra-bench resume {folders[0]}")
    return runs, len(folders) - len(runs)


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs by configuration, labelled, in a readable order; of a seed done twice the later run counts."""
    groups: dict[str, Group] = {}
    for run in sorted(runs, key=lambda run: (run.folder / "result.json").stat().st_mtime):
        found = settings(run)
        told = {k: v for k, v in found.items() if k != SHORT["dataset"] or CONTENT not in found}
        key = json.dumps([told, pick(run.result, "teacher", "sha256")], sort_keys=True, default=str)
        groups.setdefault(key, Group(found, {})).runs[seed_of(run)] = run
    ordered = sorted(groups.values(), key=_order)
    return [Group(g.settings, g.runs, label) for g, label in zip(ordered, labels(ordered), strict=True)]


def seed_of(run: Run) -> int:
    """The seed of a run.

    Raises:
        UsageError: if its result has none.
    """
    seed = run.result.get("seed")
    if not isinstance(seed, int):
        raise UsageError(f"{run.folder / 'result.json'} has no seed: delete it to run again")
    return seed


def settings(run: Run) -> Record:
    """A run's configuration as dotted keys, without what a group leaves open."""
    result = run.result
    if run.kind == INCREMENT:
        return _by_content(_of_increments(run.config), run.identity)
    if run.kind == TASKS:
        return _of_tasks(run)
    named = {
        "method": result.get("method"),
        "replay": {"name": result.get("replay")},
        "meta": {"enabled": result.get("meta")},
        "data": {"name": result.get("dataset")},
        "student": {"network": pick(result, "student", "name")},
        "teacher": {"network": pick(result, "teacher", "name")},
    }
    found = heeded(run.config or named)
    if found.get("teacher.network") == AUTO:
        found["teacher.network"] = pick(result, "teacher", "name") or pick(run.teacher, "name") or AUTO
    return _by_content(found, run.identity)


def heeded(tree: Record) -> Record:
    """A configuration as dotted keys, without what a group leaves open."""
    if not pick(tree, "meta", "enabled"):
        tree = tree | {"meta": {"enabled": False}}
    return dict(flatten({k: v for k, v in tree.items() if k not in UNHEEDED}))


def _of_tasks(run: Run) -> Record:
    """What a chain of tasks carries, and the settings of its tasks: of one that differs, those of all in a row."""
    listed = run.config.get("tasks")
    tasks = [task for task in listed if isinstance(task, dict)] if isinstance(listed, list) else []
    alone = [
        _by_content(heeded(dict(pick(task, "set") or {})), pick(run.identity, "tasks", str(task.get("name"))) or {})
        for task in tasks
    ]
    found = {"reuse": run.config.get("reuse"), "carry": run.config.get("carry")}
    for key in dict.fromkeys(key for one in alone for key in one):
        values = [one.get(key) for one in alone]
        found[key] = values[0] if len(set(map(text_of, values))) == 1 else ", ".join(map(text_of, values))
    return found


def _of_increments(config: Record) -> Record:
    """Settings of a run of increments, by the names that its command has for them; those of the LRA step together."""
    found = config.get("options")
    options: Record = found if isinstance(found, dict) else {}
    meta = options.get("alpha") is not None
    named = {
        SHORT["strategy"]: config.get("strategy"),
        SHORT["meta"]: meta,
        SHORT["dataset"]: str(config.get("benchmark")).removeprefix("split-"),
        SHORT["student"]: config.get("model"),
    }
    beside = {key: config.get(key) for key in ("experiences", "steps")}
    ahead = {f"meta.{key}": options[key] for key in ("alpha", "alpha_rate") if meta and key in options}
    return named | beside | ahead | {k: v for k, v in options.items() if k not in ("alpha", "alpha_rate")}


def _by_content(found: Record, identity: Record) -> Record:
    """Settings with what is in files in place of where these lie, if the run says it."""
    if not identity:
        return found
    places = ("teacher.file", "carry.generator", "carry.replay", "code.")
    there = {key: value for key, value in found.items() if not key.startswith(places)}
    name = str(found.get(SHORT["dataset"]))
    if data_kind(name) != name:
        there |= {SHORT["dataset"]: data_label(name), CONTENT: str(identity.get("test") or identity.get("data"))[:8]}
    parts = {part: identity.get(part) for part in ("code", "carry") if isinstance(identity.get(part), dict)}
    return there | {key: str(value)[:8] for key, value in flatten(parts) if key.startswith(places)}


def labels(groups: Sequence[Group]) -> list[str]:
    """A label for each group that shows only what sets it apart from the others."""
    if len(groups) == 1:
        named = ("strategy", "meta") if SHORT["strategy"] in groups[0].settings else ("method", "replay", "meta")
        return [_name(groups[0].settings, named)]
    shown = [key for key, path in SHORT.items() if len({text_of(g.settings.get(path)) for g in groups}) > 1]
    names = [_name(group.settings, shown) for group in groups]
    return [", ".join(filter(None, [name, *_rest(i, names, groups)])) for i, name in enumerate(names)]


def _name(found: Record, shown: Sequence[str]) -> str:
    used = found.get(SHORT["plugin"]) if "plugin" in shown else None
    named = [key for key in shown if key not in ("plugin", "meta", "dataset", "teacher", "student")]
    parts = [text_of(found.get(SHORT[key])) for key in named]
    parts += [str(spec).rpartition(":")[2] for spec in used] if isinstance(used, list) else []
    if "meta" in shown:
        meta = found.get(SHORT["meta"])
        parts += ["meta"] if meta else [] if parts else ["no meta"]
    pair = [f"{key} {text_of(found.get(SHORT[key]))}" for key in ("teacher", "student", "dataset") if key in shown]
    return ", ".join(filter(None, [" + ".join(parts), *pair]))


def _rest(index: int, names: Sequence[str], groups: Sequence[Group]) -> Iterator[str]:
    """The other settings in which a group differs from those of its name; its teacher's hash as the last resort."""
    twins = [group for group, name in zip(groups, names, strict=True) if name == names[index]]
    own = groups[index].settings
    keys = dict.fromkeys(key for group in twins for key in group.settings)
    apart = [
        key for key in keys if key not in SHORT.values() and len({text_of(t.settings.get(key)) for t in twins}) > 1
    ]
    said = [key for key in apart if key in own and not is_default(key, own)]
    shown = [key for key in said if not _usual(key, own, twins)] or said
    if PACE in shown and _told_apart(twins, [key for key in apart if key != PACE]):
        shown.remove(PACE)
    yield from (f"{key}={text_of(own.get(key))}" for key in shown)
    if len(twins) > 1 and len({json.dumps(t.settings, sort_keys=True, default=str) for t in twins}) < len(twins):
        yield f"teacher {groups[index].teacher[:8]}"


def _told_apart(twins: Sequence[Group], keys: Sequence[str]) -> bool:
    """Whether no two groups have the same values of these settings."""
    return len({tuple(text_of(twin.settings.get(key)) for key in keys) for twin in twins}) == len(twins)


def is_default(key: str, own: Record) -> bool:
    """Whether an option of the replay, the LRA step or an increment has its default, which goes without saying."""
    part, _, name = key.partition(".")
    strategy = own.get(SHORT["strategy"])
    kind: type[Options] | None = None
    if part == "meta":
        kind = LRAOptions
    elif part == "replay":
        kind = REPLAYS.get(str(own.get(SHORT["replay"])))
    elif strategy is not None:
        kind, name = IncrementOptions, key
    if kind is None or name not in kind.model_fields or key not in own:
        return False
    usual = OWN_OPTIONS.get(str(strategy), {}) if kind is IncrementOptions else {}
    return bool(usual.get(name, kind.model_fields[name].default) == own[key])


def _usual(key: str, own: Record, twins: Sequence[Group]) -> bool:
    """Whether nearly all have the same value, so that only the others need to say theirs."""
    if any(is_default(key, twin.settings) for twin in twins):
        return False
    same = sum(text_of(twin.settings.get(key)) == text_of(own.get(key)) for twin in twins)
    return len(twins) > 3 and same > 0.75 * len(twins)


def text_of(value: object) -> str:
    """The value of a setting as a configuration file has it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _order(group: Group) -> tuple[Any, ...]:
    replay, found = str(group.settings.get("replay.name")), group.settings
    known = [*REPLAYS]
    rank = known.index(replay) if replay in known else len(known)
    rest = json.dumps(found, sort_keys=True, default=str)
    return str(found.get("method") or found.get(SHORT["strategy"])), rank, replay, bool(found.get("meta.enabled")), rest
