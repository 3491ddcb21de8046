"""Photographs: how long a student step takes, where the time goes, and how that compares, interleaved on one machine.

    python -m lra.benchmarks.cost.photographs --against PYTHON --named 13f1ced --out cost-photographs.md

Colour images of 32x32 in ten classes; the teacher has random weights unless a file of weights is given. ``PYTHON`` is
the interpreter of an environment with another version of the toolkit, which then does the same work, in turn with this
version and with a bare PyTorch loop: the same student and teacher, on as many images, which are ready beforehand.

A row is one method with the settings of its paper, except for the batch size, and with less synthesis where its steps
are all alike (`WORK`). "s per step" is the time of a student step with its share of everything else: the work of
opening an experience is divided by the student steps that the paper takes in one, and an evaluation of 10,000 images by
the steps between two evaluations. Ratios are taken within a round; the median over rounds is given. "of the peak" is
the rate of the method's convolutions and matrix products, as a share of the rate of one large matrix product. With
``--whole`` whole processes are timed, from the first line to the result: a run on digits with generative replay and the
LRA step, and an increment on split digits. Seconds are processor seconds of one thread or, on a GPU, wall seconds until
its work is done.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from lra.benchmarks.cost.meta_step import machine
from lra.benchmarks.cost.startup import spent
from lra.benchmarks.cost.timed_run import NEVER, PARTS, WHOLE
from lra.benchmarks.files import write_text
from lra.benchmarks.setup.layers import merged, parse_assignment
from lra.benchmarks.text import markdown_table
from lra.strategies.methods import METHODS

Answer = dict[str, Any]


class Cell(NamedTuple):
    """Teacher and student, with numbers of images that one thread handles in seconds.

    Attributes:
        batch: images in a student step.
        images: synthesised at a time by the methods that optimise batches.
        tests: images of a timed evaluation, which is scaled up to `EVALUATED`.
    """

    teacher: str
    student: str
    batch: int
    images: int
    tests: int

    @property
    def name(self) -> str:
        """Both networks."""
        return f"{self.teacher} to {self.student}"


CELLS = {
    "wrn": Cell("wrn16-1", "wrn10-1", 128, 256, 2048),
    "resnet": Cell("resnet56", "resnet20", 128, 128, 1024),
    "resnet34": Cell("resnet34", "resnet18", 32, 32, 128),
}
WORK: dict[str, dict[str, Any]] = {
    "predfkd": {},
    "fast": {"steps": 5, "warmup": 0},
    "nayer": {"steps": 5, "rounds": 1, "warmup": 0},
    "cmi": {"steps": 5, "bank": 4096, "negatives": 512},
}
"""Synthesis as timed: fewer inner steps on fewer images than papers take, all of them alike."""
SHORT = 4
"""Student steps in an experience of a method whose paper takes hundreds on one batch."""
EVALUATED = 10_000
"""Images of an evaluation."""
WHOLE_RUNS = {
    "digits": ("run", "--replay", "generative", "--meta"),
    "increment": ("increment", "--experiences", "2", "--steps", "50"),
}
"""Commands that are timed as a whole."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Worker:
    """A process with a `lra.benchmarks.cost.timed_run.TimedRun`, under some version of the toolkit."""

    def __init__(self, python: str):
        self.python = python
        command = [python, "-P", str(Path(__file__).with_name("timed_run.py"))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def ask(self, what: str, value: Any) -> Answer:
        """The answer to one question.

        Raises:
            SystemExit: if the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({what: value}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.python} ended at {what}; its own message is above")
        return dict(json.loads(line))


def settings(cell: Cell, method: str, meta: bool, options: argparse.Namespace) -> tuple[Answer, tuple[int, int]]:
    """The configuration of a row, as plain data; and the student steps in an experience and between evaluations."""
    schedule = METHODS[method].defaults.get("schedule", {})
    steps, epoch = schedule.get("steps_per_experience", 10), schedule.get("experiences_per_epoch", 36)
    pool = METHODS[method].memory == "pool"
    synthesis = WORK[method] | ({"images": cell.images} if pool else {})
    tree: Answer = {
        "method": method,
        "replay": {"name": "pool"} if pool else {"name": "memory", "period": 1},
        "meta": {"enabled": meta},
        "device": options.device,
        "teacher": {"network": cell.teacher} if options.teacher is None else {"file": str(options.teacher)},
        "student": {"network": cell.student},
        "synthesis": synthesis,
        "schedule": {
            "batch_size": options.batch or cell.batch,
            "steps_per_experience": SHORT if pool else steps,
            "experiences_per_epoch": 1,
            "steps": NEVER,
        },
        "evaluation": {"every": NEVER},
    }
    return tree, (steps, steps * epoch)


def of_a_step(found: Answer, evaluation: float, steps: int, between: int) -> Answer:
    """Seconds of one student step by part, from what was timed on shortened experiences.

    Args:
        found: the answer for one experience.
        evaluation: seconds of an evaluation.
        steps: student steps in an experience that is not shortened.
        between: student steps from one evaluation to the next.
    """
    parts = {part: found["parts"][part] / (steps if part in WHOLE else found["steps"]) for part in PARTS}
    rest = (found["seconds"] - sum(found["parts"].values())) / found["steps"]
    return parts | {"evaluation": evaluation / between, "rest": rest}


def measure(
    cell: Cell, method: str, meta: bool, options: argparse.Namespace, ours: Worker, other: Worker | None = None
) -> Answer:
    """One row."""
    tree, (steps, between) = settings(cell, method, meta, options)
    given: Answer = {}
    for text in options.set:
        given = merged(given, parse_assignment(text))
    start = {"tests": cell.tests}
    built = ours.ask("build", start | {"settings": merged(tree, given)})
    sides = [ours] if other is None else [ours, other]
    if other is not None:
        _check_alike(built["schedule"], other.ask("build", start | {"settings": tree})["schedule"])
    rounds = []
    for _ in range(options.rounds):
        timed = [side.ask("train", 1) for side in sides]
        evaluations = [side.ask("evaluate", EVALUATED)["seconds"] for side in sides]
        whole = [of_a_step(a, b, steps, between) for a, b in zip(timed, evaluations, strict=True)]
        bare = ours.ask("bare", SHORT)
        peak = ours.ask("product", options.product)["flops"]
        done = [sum(one.values()) for one in whole]
        record = {f"part {name}": value for name, value in whole[0].items()}
        record |= {"step": done[0], "bare": done[0] / (bare["seconds"] / bare["steps"]), "peak": peak}
        record |= {"timed": timed[0]["seconds"], "evaluation": evaluations[0]}
        record |= {"synthesis": timed[0]["parts"]["synthesis"]}
        if other is not None:
            record["other"] = done[0] / done[1]
            record["other synthesis"] = timed[0]["parts"]["synthesis"] / timed[1]["parts"]["synthesis"]
            record["other evaluation"] = evaluations[0] / evaluations[1]
        rounds.append(record)
    flops = ours.ask("flops", 1)["flops"]
    found = {key: median(record[key] for record in rounds) for key in rounds[0]}
    of_peak = median(flops / record["timed"] / record["peak"] for record in rounds)
    batch = tree["schedule"]["batch_size"]
    row = {"cell": cell.name, "method": method, "meta": meta, "batch": batch, "gflop": flops / 1e9}
    return row | found | {"of_peak": of_peak, "images": batch / found["step"]}


def _check_alike(ours: Answer, other: Answer) -> None:
    """Check that two versions have one schedule, as far as both know its options."""
    if differing := [
        f"{name} {ours[name]}, not {other[name]}" for name in ours.keys() & other.keys() if ours[name] != other[name]
    ]:
        raise SystemExit(f"the other version has another schedule: {'; '.join(sorted(differing))}")


def whole_runs(options: argparse.Namespace) -> list[Answer]:
    """Whole processes of this version and of the other, in turn; a first round trains teachers and does not count."""
    found = []
    for name in options.whole:
        with tempfile.TemporaryDirectory(prefix="lra-") as scratch:
            times: list[list[float]] = []
            for number in range(options.rounds + 1):
                times.append([])
                for index, python in enumerate(filter(None, [sys.executable, options.against])):
                    out = f"{scratch}/{number}-{index}"
                    command = [python, "-P", "-m", "lra.benchmarks", *WHOLE_RUNS[name], "--out", out]
                    own = {"LRA_CACHE": f"{scratch}/cache-{index}"} | ONE_THREAD
                    took = spent(command, os.environ | own, scratch)
                    if took.status:
                        raise SystemExit(f"{' '.join(command)} fails")
                    times[-1].append(took.processor)
        ratios = [pair[0] / pair[1] for pair in times[1:] if len(pair) > 1]
        row: Answer = {"run": " ".join(["lra-bench", *WHOLE_RUNS[name]])}
        row["seconds"] = median(pair[0] for pair in times[1:])
        found.append(row | ({"other": median(ratios)} if ratios else {}))
    return found


COLUMNS: dict[str, Callable[[Answer], str]] = {
    "method": lambda r: r["method"] + " + meta" * r["meta"],
    "s per step": lambda r: f"{r['step']:.3f}",
    "images/s": lambda r: f"{r['images']:,.0f}",
    "× bare": lambda r: f"{r['bare']:.2f}",
    "of the peak": lambda r: f"{100 * r['of_peak']:.0f} %",
    **{
        name: lambda r, name=name: f"{100 * r[f'part {name}'] / r['step']:.0f} %"  # type: ignore[misc]
        for name in (*PARTS, "evaluation", "rest")
    },
    "synthesis, s per call": lambda r: f"{r['synthesis']:.2f}",
    "evaluation, s": lambda r: f"{r['evaluation']:.1f}",
}
"""What the columns show of a row's record, by their headings."""
OTHERS = {"step": "other", "synthesis": "other synthesis", "evaluation": "other evaluation"}
"""What is compared with another version, and the key of the ratio in a row's record."""


def table(rows: Sequence[Answer], other: str) -> str:
    """The table of one cell's rows; ``other`` is what the other version is called."""
    others = {f"{name} ÷ {other}": key for name, key in OTHERS.items() if key in rows[0]}
    cells = [[show(row) for show in COLUMNS.values()] + [f"{row[key]:.2f}" for key in others.values()] for row in rows]
    return f"## {rows[0]['cell']}, batch {rows[0]['batch']}\n\n{markdown_table([*COLUMNS, *others], cells)}\n"


def whole_table(rows: Sequence[Answer], other: str) -> str:
    """The table of whole processes; ``other`` is what the other version is called."""
    head = ["command", "s", *([f"÷ {other}"] if "other" in rows[0] else [])]
    cells = [[f"`{r['run']}`", f"{r['seconds']:.1f}", *([f"{r['other']:.2f}"] if "other" in r else [])] for r in rows]
    return f"## Whole runs\n\n{markdown_table(head, cells)}\n"


def by_cell(options: argparse.Namespace, workers: Sequence[Worker]) -> Iterable[tuple[str, list[Answer]]]:
    """The table of each cell, and its rows."""
    for name in options.cells:
        rows = []
        for method in options.methods:
            for meta in options.meta:
                rows.append(measure(CELLS[name], method, meta == "meta", options, *workers))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        yield table(rows, options.named), rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m lra.benchmarks.cost.photographs", description=__doc__.split("\n")[0]
    )
    command.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS), metavar="CELL")
    command.add_argument("--methods", nargs="+", default=list(WORK), choices=list(WORK), metavar="METHOD")
    command.add_argument("--meta", nargs="+", default=["plain", "meta"], choices=["plain", "meta"])
    command.add_argument("--whole", nargs="*", default=[], choices=list(WHOLE_RUNS), metavar="RUN")
    command.add_argument(
        "--against", type=os.path.abspath, metavar="PYTHON", help="python of an environment with another version"
    )
    command.add_argument("--named", default="other", metavar="VERSION", help="what it is called in the tables")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option, for this version")
    command.add_argument("--teacher", type=Path, metavar="FILE", help="weights of the teacher, for one cell")
    command.add_argument("--batch", type=int, help="images per student step")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--product", type=int, default=2048, metavar="SIDE", help="of the matrices for the peak")
    command.add_argument("--device", default="cpu")
    command.add_argument("--json", action="store_true")
    command.add_argument("--out", type=Path, help="also write the tables to this file")
    command.set_defaults(threads=1)
    return command


def main() -> None:
    """Measure and print."""
    options = parser().parse_args()
    records: list[Mapping[str, Any]] = []
    tables: list[str] = []
    with ExitStack() as stack:
        pythons = [sys.executable, *filter(None, [options.against])] if options.cells else []
        workers = [stack.enter_context(Worker(python)) for python in pythons]
        for text, rows in by_cell(options, workers):
            tables.append(text)
            records += rows
    if options.whole:
        rows = whole_runs(options)
        tables.append(whole_table(rows, options.named))
        records += rows
    if options.json:
        print(json.dumps({"machine": machine(options), "records": records}))
    else:
        print("\n".join(tables))
    if options.out:
        places = {options.against: "PYTHON", str(options.out): options.out.name}
        words = [places.get(word, word) for word in sys.argv[1:]]
        command = " ".join(["python -m lra.benchmarks.cost.photographs", *words])
        notes = (__doc__ or "").split("\n\n", 2)[2]
        heading = f"# Photographs: what a step takes\n\n    {command}\n\n{machine(options)}.\n\n{notes}"
        write_text(options.out, "\n".join([heading, *tables]))


if __name__ == "__main__":
    main()
