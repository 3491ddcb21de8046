"""Many runs from a grid: lists are axes, scalars are fixed, and the unit is a run folder.

    method: [predfkd, dfq]
    replay: [none, memory]
    meta: [false, true]
    seed: [0, 1, 2]
    steps: 400
    set: {student.lr: [0.03, 0.1]}

Finished runs are skipped and half-done ones go on, because `lra.benchmarks.runner.run` does so.
"""

import itertools
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lra.benchmarks.assemble import configuration
from lra.benchmarks.config import RunConfig
from lra.benchmarks.errors import LraError, UsageError, nearest

KEYS = ("method", "replay", "meta", "dataset", "teacher", "student", "steps", "seed", "preset", "device", "set")
"""What a grid may name: the flags of ``lra-bench run``, and ``set``."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run of a sweep."""

    label: str
    folder: Path | None
    error: str | None


def expand(grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations of a grid's axes, in order, the last axis fastest.

    Raises:
        UsageError: for an unknown key.
    """
    for key in grid:
        if key not in KEYS:
            raise UsageError(f"grid: unknown key {key!r}; did you mean {nearest(str(key), KEYS)!r}?")
    settings = {f"set:{key}": value for key, value in (grid.get("set") or {}).items()}
    flat = {key: value for key, value in grid.items() if key != "set"} | settings
    axes = [
        [(key, choice) for choice in (value if isinstance(value, list) else [value])] for key, value in flat.items()
    ]
    return [dict(choice) for choice in itertools.product(*axes)]


def resolve(cell: Mapping[str, Any]) -> RunConfig:
    """The configuration of one combination.

    Raises:
        UsageError: as for ``lra-bench run``.
    """
    flags = {key: value for key, value in cell.items() if not key.startswith("set:")}
    assignments = tuple(f"{key[4:]}={value}" for key, value in cell.items() if key.startswith("set:"))
    return configuration(**flags, assignments=assignments)


def sweep(grid: Mapping[str, Any], out: Path, workers: int, threads: int = 1) -> Iterator[Outcome]:
    """Run a grid on local processes, yielding outcomes as they come; one failure does not stop the others.

    Raises:
        UsageError: if a combination is no valid configuration; nothing has run then.
    """
    cells = expand(grid)
    configs = [resolve(cell).model_copy(update={"threads": threads}) for cell in cells]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = {pool.submit(_one, config, out): cell for config, cell in zip(configs, cells, strict=True)}
        for job in as_completed(jobs):
            label = " ".join(f"{key.removeprefix('set:')}={value}" for key, value in jobs[job].items())
            try:
                yield Outcome(label, job.result(), None)
            except LraError as error:
                yield Outcome(label, None, str(error))
            except Exception as error:
                yield Outcome(label, None, repr(error))


def _one(config: RunConfig, out: Path) -> Path:
    from lra.benchmarks.runner import run

    return run(config, out, quiet=True).path


def report(outcomes: Iterator[Outcome], total: int) -> int:
    """Print a line per outcome on stderr; returns the number of failures."""
    failures = []
    for done, outcome in enumerate(outcomes, start=1):
        print(f"{done}/{total} {outcome.label}: {outcome.error or outcome.folder}", file=sys.stderr, flush=True)
        if outcome.error:
            failures.append(outcome)
    return len(failures)
