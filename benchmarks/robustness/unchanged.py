"""Record the outcome of short runs of everything, and later find out whether it is still the same.

    python -m lra.benchmarks.robustness.unchanged FILE [--sample N] [--only TEXT]

Every method with every replay, with and without the LRA step, and also tasks in sequence, increments and quantised
students: for each, the hashes of its records and of the student's weights. If FILE does not exist, it is written, with
all runs; if it does, the runs whose outcome differs are listed and the exit code is 1. Both must be done on one
machine, since processors round differently. It is for changes that must not change behaviour.

The runs take about a second each and use all the state they have; kills and tests build theirs from the same settings.
A new method needs no settings of its own here, unless a part of it would stay inactive.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from tqdm import tqdm

from lra.benchmarks.errors import LraError
from lra.benchmarks.files import write_json
from lra.benchmarks.records import TASKS as IN_SEQUENCE
from lra.benchmarks.runs.runner import run
from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.resolution import resolve
from lra.strategies.increment.strategies import DATA_FREE, GENERATING, STRATEGIES
from lra.strategies.method import OptimisedMethod
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

SIZES = {"width": 8, "images": 20, "warmup": 2, "bank": 64, "negatives": 64, "life": 3, "renew_first_at": 4}
"""Sizes for any method that has such an option; buffers wrap around, and a generator's life ends, within the run."""
EXTRA: dict[str, dict[str, Any]] = {
    "predfkd": {"phase": 1.0, "phase_length": 2},
    "aeahl-rg": {"hard_loss": True, "aea": {"width": 4, "probability": 0.1}},
    "zskd": {"restart": False},
    "cudfkd": {"adversarial": 0.1, "adversarial_slope": 0.1, "age_rate": 0.1},
    "adadfkd": {"adversarial": 0.1, "adversarial_slope": 0.1, "age_rate": 0.1},
    # A squared gap of logits, which G maximises, is too steep for the look-ahead in so few steps.
    "cpsc": {"squared": 0.1},
    "cpnet": {"prior": 1.0, "warmup_life": 1},
}
"""What activates parts of a method that otherwise stay inactive in so short a run."""
REPLAY: dict[str, dict[str, Any]] = {
    "memory": {"slots": 3, "period": 1},
    "reservoir": {"capacity": 24},
    "generative": {"latent": 10, "width": 8},
    # BatchNorm has nothing to normalise in a single new image.
    "pool": {"least": 2},
}


def quick(method: str, replay: str, meta: bool) -> Tree:
    """Settings of twelve experiences of two student steps, an evaluation every second one.

    Args:
        method: how samples are made.
        replay: what is replayed.
        meta: whether to take the LRA step.
    """
    fields = METHODS[method].Options.model_fields
    synthesis = {name: value for name, value in SIZES.items() if name in fields} | EXTRA.get(method, {})
    if "images" in fields:
        synthesis["steps"] = 3
    return {
        "method": method,
        "threads": 1,
        "teacher": {"network": "lenet5-half-bn", "epochs": 3},
        "student": {"network": "lenet5-half-bn", "lr": 0.02},
        "replay": {"name": replay, **REPLAY.get(replay, {})},
        "meta": meta,
        "synthesis": synthesis,
        "schedule": {"batch_size": 16, "steps_per_experience": 2, "experiences_per_epoch": 2, "steps": 24},
        "evaluation": {"probe_size": 16, "samples": 0},
    }


def small(method: str, replay: str, meta: bool, **more: Any) -> RunConfig:
    """A run with the settings of `quick`, and more of them section by section."""
    return resolve([quick(method, replay, meta), more])


def every(methods: Sequence[str] = (), replays: Sequence[str] = ()) -> Iterator[tuple[str, str, bool]]:
    """All combinations that make sense, of all methods and replays or of some.

    No LRA step with nothing to retain; no average of a generator that is renewed with every batch.
    """
    for method in methods or METHODS:
        for replay in replays or REPLAYS:
            if replay != "ema" or not issubclass(METHODS[method], OptimisedMethod):
                for meta in (False, True) if replay != "none" else (False,):
                    yield method, replay, meta


RECORDS = ("metrics.jsonl", "forgetting.json", "student.safetensors")
"""Files of a run that are hashed; for increments, the accuracy matrix in ``result.json`` is hashed instead."""

SMALL = ["--set", "data.size=8", "--set", "schedule.batch_size=16", "--set", "evaluation.samples=0"]
TASKS = {
    "method": "aeahl-rg",
    "replay": "pool",
    "steps": 12,
    "tasks": [{"name": "first", "dataset": "digits"}, {"name": "turned", "dataset": "digits-turned"}],
    "set": {
        "teacher.epochs": 1,
        "data.size": 8,
        "schedule.steps_per_experience": 4,
        "synthesis": {"images": 16, "steps": 3, "warmup": 2, "width": 8},
    },
}


def ends(folder: Path) -> dict[str, str]:
    """The hash of each record of the runs in ``folder``, in the order in which they ended; tasks stand for chains."""
    found: dict[str, bytes] = {}
    files = sorted(folder.rglob("result.json"), key=lambda file: file.stat().st_mtime_ns)
    results = [(file, result) for file in files if (result := json.loads(file.read_text())).get("kind") != IN_SEQUENCE]
    for index, (file, result) in enumerate(results):
        if "accuracy_matrix" in result:
            found[f"{index}/accuracy_matrix"] = json.dumps(result["accuracy_matrix"]).encode()
        else:
            there = [name for name in RECORDS if (file.parent / name).is_file()]
            found |= {f"{index}/{name}": (file.parent / name).read_bytes() for name in there}
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in found.items()}


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands to run, each with its name."""
    for reuse in ("anew", "common", "finetune", "fix"):
        yield f"tasks {reuse}", ["tasks", str(folder / "tasks.yaml"), "--reuse", reuse]
    for meta in ("--no-meta", "--meta"):
        for strategy in STRATEGIES:
            if meta == "--no-meta" or strategy in DATA_FREE:
                short = ["--steps", "4", "--experiences", "2", "--threads", "1", "--set", "generator_steps=3"]
                plain = short if strategy in GENERATING else short[:-2]
                yield f"increment {strategy} {meta}", ["increment", "--strategy", strategy, meta, *plain]
    quantized = ["--steps", "6", "--set", "teacher.epochs=1", "--set", "synthesis={warmup: 4, width: 8}"]
    for more in ([], ["--rgal"], ["--replay", "memory", "--meta"]):
        yield " ".join(["quantize", *more]), ["quantize", *SMALL, *quantized, *more]


def recorded(every_so_many: int, only: str = "") -> dict[str, dict[str, str]]:
    """Do every ``every_so_many``-th of the runs with ``only`` in their name, and hash what they leave."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        os.environ["LRA_CACHE"] = str(place / "cache")
        (place / "tasks.yaml").write_text(yaml.safe_dump(TASKS))
        cells = {
            f"{method} {replay}{' meta' if meta else ''}": (method, replay, meta) for method, replay, meta in every()
        }
        chosen = [name for name in cells if only in name][::every_so_many]
        for index, name in enumerate(tqdm(chosen, "runs")):
            out = place / f"run-{index}"
            run(small(*cells[name]), out, quiet=True)
            found[name] = ends(out)
        asked = [(name, words) for name, words in commands(place) if only in name][::every_so_many]
        for index, (name, words) in enumerate(tqdm(asked, "commands")):
            out = place / f"command-{index}"
            call = [sys.executable, "-m", "lra.benchmarks", *words, "--out", str(out)]
            done = subprocess.run(call, capture_output=True, text=True, check=False)
            if done.returncode:
                raise LraError(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
            found[name] = ends(out)
    return found


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--sample", type=click.IntRange(1), default=1, metavar="N", help="Do only every N-th run.")
@click.option("--only", default="", metavar="TEXT", help="Do only runs with this in their name.")
def main(file: Path, sample: int, only: str) -> None:
    """Write FILE, or compare with it."""
    if not file.exists() and (sample > 1 or only):
        raise click.UsageError(f"{file} does not exist: record all runs there first, without --sample and --only")
    now = recorded(sample, only)
    if not file.exists():
        write_json(file, now)
        click.echo(f"{len(now)} runs recorded")
        return
    before = json.loads(file.read_text())
    common = [name for name in now if name in before]
    other = [name for name in common if now[name] != before[name]]
    for name in other:
        parts = [part for part in {**before[name], **now[name]} if before[name].get(part) != now[name].get(part)]
        click.echo(f"{name}: {', '.join(parts)}")
    click.echo(f"{len(common) - len(other)} of {len(common)} runs end as recorded; {len(now) - len(common)} are new")
    sys.exit(bool(other))


if __name__ == "__main__":
    main()
