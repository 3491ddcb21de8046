"""Kill runs at random moments, resume them, and compare how they end with runs that were left alone.

    python -m lra.benchmarks.robustness.kills [--kills N] [--method M]... [--replay R]... [--sample N] [--seed N]

For every method and replay, with and without the LRA step, a tiny run is done once undisturbed. A second one is killed
(SIGKILL) and started again, over and over, alternately at a random moment and while it writes a checkpoint. Checkpoints
are written after every experience here, so that there almost always is one to continue from. In the end
``metrics.jsonl``, ``forgetting.json`` and ``student.safetensors`` must be the same byte for byte, and ``result.json``
the same except for time and memory.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lra.benchmarks.files import DRAFT
from lra.benchmarks.robustness.unchanged import every, small
from lra.benchmarks.runs import runner, training
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import data_set

FILES = ("metrics.jsonl", "forgetting.json", "student.safetensors")


@dataclass
class Survived:
    """How often a run was killed before it ended.

    Attributes:
        kills: in all.
        in_writing: kills that left a half-written file behind.
        same: whether it ended like the run that was left alone.
    """

    kills: int = 0
    in_writing: int = 0
    same: bool = False


def start(config: RunConfig, out: Path) -> int:
    """Do a run in a process of its own, with a checkpoint after every experience; return the process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        training.CHECKPOINT_SECONDS = 0.0
        # A report would take most of the time, and comes after the result.
        runner.finish = lambda kind, folder: folder.drop_checkpoints()
        runner.run(config, out, quiet=True)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def left_alone(config: RunConfig, out: Path) -> tuple[Path, float]:
    """Do a run undisturbed; return its folder and the seconds it took."""
    begun = time.monotonic()
    _, status = os.waitpid(start(config, out), 0)
    if status:
        raise click.ClickException(f"{config.method} fails even when it is left alone")
    (result,) = out.rglob("result.json")
    return result.parent, time.monotonic() - begun


def harassed(config: RunConfig, out: Path, kills: int, seconds: float, chance: random.Random) -> Survived:
    """Do a run that takes ``seconds``: kill it up to ``kills`` times, spread over it, then let it end."""
    found, longest = Survived(), 2 * seconds / (kills + 1)
    while found.kills < kills:
        process = start(config, out)
        moment = time.monotonic() + chance.uniform(0, longest)
        if _ended(process, moment, out if found.kills % 2 else None):
            return found
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            found.kills += 1
            found.in_writing += bool(_drafts(out))
    left_alone(config, out)
    return found


def _ended(process: int, moment: float, writing: Path | None) -> bool:
    """Wait until ``moment``, then until a file is being written below ``writing``; whether the process ended before."""
    while time.monotonic() < moment or (writing and not _drafts(writing)):
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.0002)
    return False


def _drafts(out: Path) -> list[Path]:
    return list(out.rglob(f".*{DRAFT}"))


def same(first: Path, second: Path) -> bool:
    """Whether the outcome in two run folders is the same."""
    return _result(first) == _result(second) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in FILES
    )


def _result(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "processor_seconds", "peak_memory_mb"):
        del result["cost"][name]
    return result


def survive(config: RunConfig, kills: int, chance: random.Random) -> Survived:
    """Compare a run that is left alone with one that is killed again and again."""
    with tempfile.TemporaryDirectory() as place:
        whole, seconds = left_alone(config, Path(place) / "whole")
        found = harassed(config, Path(place) / "killed", kills, seconds, chance)
        (result,) = (Path(place) / "killed").rglob("result.json")
        found.same = same(result.parent, whole)
    return found


@click.command()
@click.option("--kills", default=4, show_default=True, help="Kills per run.")
@click.option("--method", "methods", multiple=True, help="Only this method; may be repeated.")
@click.option("--replay", "replays", multiple=True, help="Only this replay; may be repeated.")
@click.option("--sample", type=int, help="Number of combinations, drawn at random. [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the moments and of the sample.")
def main(kills: int, methods: tuple[str, ...], replays: tuple[str, ...], sample: int | None, seed: int) -> None:
    """Try all and print a table; exit 1 if any run does not end as it should."""
    data_set("digits").load("test")  # Child processes need not import this again,
    with tempfile.TemporaryDirectory() as place:
        left_alone(small("predfkd", "none", False), Path(place))  # nor train the teacher.
    chance = random.Random(seed)
    choices = list(every(methods, replays))
    rows: list[Survived] = []
    click.echo("| method | replay | meta | kills | while writing | ends the same |\n|---|---|---|---:|---:|---|")
    for method, replay, meta in choices if sample is None else chance.sample(choices, sample):
        found = survive(small(method, replay, meta), kills, chance)
        rows.append(found)
        words = (method, replay, "yes" if meta else "no", found.kills, found.in_writing, "yes" if found.same else "NO")
        click.echo(f"| {' | '.join(map(str, words))} |")
    ended = sum(row.same for row in rows)
    total, writing = sum(row.kills for row in rows), sum(row.in_writing for row in rows)
    click.echo(f"\n{ended} of {len(rows)} runs end the same; {total} kills survived, {writing} of them while writing.")
    sys.exit(ended < len(rows))


if __name__ == "__main__":
    main()
