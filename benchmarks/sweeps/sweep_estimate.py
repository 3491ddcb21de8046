"""What a sweep would cost: finished runs of the same configuration, or else a few timed experiences."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lra.benchmarks.errors import LraError, in_one_line
from lra.benchmarks.progress import clock
from lra.benchmarks.runs.threads import threaded
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, data_of
from lra.benchmarks.setup.experiment import budget, prepare
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.teachers import TrainedTeacher, cached_path, obtain
from lra.benchmarks.sweeps.sweep import Entry
from lra.meta import MetaStepError
from lra.networks.normalized import Normalized
from lra.state import seed_everything
from lra.strategies.extensions import PluginFailed
from lra.synthesis.batches import Diverged

TIMED = 4
"""Experiences that are timed; the first is left out, and the last has an evaluation on top."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        seconds: of its own, ``None`` if it cannot be told.
        basis: where that is from, or why it cannot be told.
    """

    seconds: float | None
    basis: str


def estimates(entries: Sequence[Entry]) -> list[Estimate]:
    """The cost of each run; configurations that differ in the seed alone are timed once."""
    known: dict[str, Estimate] = {}
    for entry in entries:
        key = entry.config.fingerprint("")
        if key not in known:
            twins = [e for e in entries if e.config.fingerprint("") == key]
            known[key] = _finished(twins) or _timed(entry.config)
    return [known[entry.config.fingerprint("")] for entry in entries]


def _finished(entries: Sequence[Entry]) -> Estimate | None:
    results = [entry.folder.result for entry in entries if entry.folder]
    seconds = [result["cost"]["seconds"] for result in results if result]
    return Estimate(fmean(seconds), "from finished runs") if seconds else None


def _timed(config: RunConfig) -> Estimate:
    try:
        with in_one_line():
            seconds = timed(config)
    except (LraError, Diverged, MetaStepError, PluginFailed) as error:
        return Estimate(None, str(error))
    return Estimate(seconds, f"from {TIMED} timed experiences")


def timed(config: RunConfig) -> float:
    """Seconds that a run would take, from a few of its experiences and an evaluation; nothing is written.

    Raises:
        LraError: if it cannot be run.
    """
    schedule = config.schedule
    steps = min(schedule.student_steps, TIMED * schedule.steps_per_experience)
    short = config.model_copy(update={"schedule": schedule.model_copy(update={"steps": steps})})
    data = data_of(config.data)
    short = threaded(short, data)
    test = data.load("test") if config.data.test else None
    seed_everything(config.seed)
    experiment = prepare(short, data, stand_in(config, data), test, lambda record: None)
    times = [time.perf_counter()]
    experiment.stream.at_rest = lambda: times.append(time.perf_counter())
    experiment.strategy.train(experiment.stream)
    times.append(time.perf_counter())
    spans = [after - before for before, after in pairwise(times)]
    each = median(spans[2:-1] or spans)
    evaluation = max(0.0, spans[-1] - each)
    experiences, _ = budget(config)
    return each * experiences + evaluation * config.evaluations


def stand_in(config: RunConfig, data: DataSet) -> TrainedTeacher:
    """The teacher if it is there, or an untrained one, which costs as much to ask."""
    options = config.teacher
    if options.file or cached_path(options, data).is_file():
        return obtain(options, data, None)
    mean, std = (0.5,) * data.image[0], (0.5,) * data.image[0]
    network = Normalized(network_for(options.network, data.classes, data.image, "teacher.network"), mean, std)
    return TrainedTeacher(network, options.network, mean, std, "untrained", Path("untrained"), None)


def record(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Which runs there are, which are done, and what the rest would take, as plain data."""
    return [
        {"label": entry.label, "status": _state(entry), "seconds": cost.seconds, "basis": cost.basis}
        for entry, cost in zip(entries, estimates(entries), strict=True)
    ]


def dry_run(entries: Sequence[Entry], workers: int) -> Iterator[str]:
    """The same as lines to be read."""
    runs = record(entries)
    rows = [(run["status"], run["label"], _cost(run)) for run in runs]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for state, label, cost in rows:
        yield f"{state:{widths[0]}}  {label:{widths[1]}}  {cost}".rstrip()
    todo = [run["seconds"] for run, entry in zip(runs, entries, strict=True) if entry.status == "waiting"]
    total, unknown = sum(seconds or 0 for seconds in todo), todo.count(None)
    yield (
        f"{len(entries)} runs, {len(todo)} to do: {clock(total)} of work, "
        f"about {clock(total / workers)} on {workers} workers"
    )
    if unknown:
        yield f"{unknown} of them could not be timed"
    missing = {e.config.teacher.model_dump_json() for e in entries if e.folder is None and e.status == "waiting"}
    if missing:
        yield f"{len(missing)} teacher{'s' if len(missing) > 1 else ''} would be trained first"


def _state(entry: Entry) -> str:
    if entry.status == "waiting" and entry.folder and entry.folder.checkpoint.is_file():
        return "half done"
    return {"finished before": "finished", "waiting": "to do"}.get(entry.status, entry.status)


def _cost(run: dict[str, Any]) -> str:
    return run["basis"] if run["seconds"] is None else f"{clock(run['seconds'])} ({run['basis']})"
