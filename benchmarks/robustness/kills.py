"""Kill runs at random moments, let them go on, and compare how they end with runs that were left alone.

    python -m lra.benchmarks.robustness.kills [--kills N] [--method M]... [--replay R]... [--sample N] [--seed N]

For every method, replay and meta choice, a tiny run is done once in peace. Then a second one is killed (SIGKILL) and
started again, over and over: by turns at a random moment, and while it writes a checkpoint. Checkpoints are written
after every experience here, so that most of the time there is one to go on from. In the end ``result.json`` (but for
time and memory), ``metrics.jsonl``, ``forgetting.json`` and ``student.safetensors`` must be the same byte for byte.
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
        in_writing: of which left a half-written file behind.
        same: whether it ended as the run that was left alone.
    """

    kills: int = 0
    in_writing: int = 0
    same: bool = False


def start(config: RunConfig, out: Path) -> int:
    """Do a run in a process of its own, with a checkpoint after every experience; gives the process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        training.CHECKPOINT_SECONDS = 0.0
        # A report would be most of the time, and comes after the result.
        runner.finish = lambda kind, folder: folder.drop_checkpoints()
        runner.run(config, out, quiet=True)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def left_alone(config: RunConfig, out: Path) -> tuple[Path, float]:
    """Do a run in peace; gives its folder and the seconds it took."""
    begun = time.monotonic()
    _, status = os.waitpid(start(config, out), 0)
    if status:
        raise click.ClickException(f"{config.method} fails even when it is left alone")
    (result,) = out.rglob("result.json")
    return result.parent, time.monotonic() - begun


def harassed(config: RunConfig, out: Path, kills: int, seconds: float, chance: random.Random) -> Survived:
    """Do a run of ``seconds`` that is killed up to ``kills`` times, spread over it, and done to its end then."""
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
    """Wait for a moment, and then until a file is being written below ``writing``; whether the process ended first."""
    while time.monotonic() < moment or (writing and not _drafts(writing)):
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.0002)
    return False


def _drafts(out: Path) -> list[Path]:
    return list(out.rglob(f".*{DRAFT}"))


def same(first: Path, second: Path) -> bool:
    """Whether two run folders hold the same outcome."""
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
@click.option("--kills", default=4, show_default=True, help="Of each run.")
@click.option("--method", "methods", multiple=True, help="Of these methods only.")
@click.option("--replay", "replays", multiple=True, help="Of these replays only.")
@click.option("--sample", type=int, help="So many combinations, drawn at random. [default: all]")
@click.option("--seed", default=0, show_default=True, help="Of the moments, and of the sample.")
def main(kills: int, methods: tuple[str, ...], replays: tuple[str, ...], sample: int | None, seed: int) -> None:
    """Try all and print a table; exits 1 if any run ended otherwise than it should."""
    data_set("digits").load("test")  # What this imports, no child has to import again.
    with tempfile.TemporaryDirectory() as place:
        left_alone(small("predfkd", "none", False), Path(place))  # And none has to train the teacher.
    chance = random.Random(seed)
    choices = list(every(methods, replays))
    rows: list[Survived] = []
    click.echo(
        "| method | replay | meta | kills | of which while writing | ends the same |\n|---|---|---|---:|---:|---|"
    )
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
