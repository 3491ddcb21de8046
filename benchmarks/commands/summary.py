"""What commands print of a run: its result, how far it is, or its configuration and cost; and of many runs, a list."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import click
import yaml

from lra.benchmarks.comparison.groups import run_folders
from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import is_held
from lra.benchmarks.progress import Introduction, clock, loading
from lra.benchmarks.records import INCREMENT, TASKS, Run, flatten, number, read_run, value
from lra.benchmarks.runs.kind import Configuration, kind_of
from lra.benchmarks.runs.run_folder import LOCK, RunFolder
from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.text import aligned_table, experience_line, number_text, quantity_text
from lra.metrics.quantities import COMPARED, FOLLOWED, QUANTITIES, Quantity, quantities


def show(folder: RunFolder, as_json: bool) -> None:
    """Print the result of a finished run; of several processes the one that leads does."""
    from lra.benchmarks.runs.machine import leads

    if not leads() or (result := folder.result) is None:
        return
    if result.get("kind") == TASKS:
        from lra.benchmarks.tasks.task_report import told

        click.echo(told(folder.path, result | {"run_dir": str(folder.path)} if as_json else None))
    else:
        shown = increment_table if result.get("kind") == INCREMENT else table
        click.echo(json.dumps(result | {"run_dir": str(folder.path)}) if as_json else shown(result, folder.path))


DAY = 86400
"""Seconds."""

LOGGED = ("result.json", "metrics.jsonl", "log.txt", "config.yaml")
"""What tells when a run last got on."""


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        folder: of the run.
        state: ``finished``; ``running``, if a process holds its folder; ``stopped``; or ``damaged``, if a file of it
            cannot be read.
        accuracy: on the test set in percent, at its end or at its last evaluation; ``None`` if it has none.
        student_step: of that evaluation.
        age: seconds since it last got on.
        bytes: what its folder takes.
    """

    folder: Path
    state: str
    accuracy: float | None
    student_step: int | None
    age: float
    bytes: int


def standing(folder: Path) -> Standing:
    """How far the run in a folder is."""
    inside = [file.stat(follow_symlinks=False) for file in folder.rglob("*") if file.is_file()]
    times = [(folder / name).stat().st_mtime for name in LOGGED if (folder / name).is_file()]
    age = max(0.0, time.time() - max(times, default=time.time()))
    size = sum(found.st_size for found in inside)
    try:
        run = _begun(folder)
    except UsageError:
        return Standing(folder, "damaged", None, None, age, size)
    state = "finished" if run.result else "running" if is_held(folder / LOCK) else "stopped"
    step = number(run.rows[-1].get("student_step")) if run.rows else None
    return Standing(folder, state, run.latest(QUANTITIES["accuracy"]), None if step is None else int(step), age, size)


def _begun(folder: Path) -> Run:
    """A run that may not have come to an evaluation yet."""
    evaluated = any((folder / name).is_file() for name in ("result.json", "metrics.jsonl"))
    if (folder / "config.yaml").is_file() and not evaluated:
        return Run(folder)
    return read_run(folder)


def listed(place: Path, as_json: bool) -> str:
    """The runs in a folder and how far each is.

    Raises:
        MissingInput: if there are none.
    """
    found = [standing(folder) for folder in run_folders([place])]
    if as_json:
        return json.dumps({"runs": [asdict(one) | {"folder": str(one.folder)} for one in found]}, indent=2)
    head = ("run", "state", "accuracy", "step", "age", "size")
    rows = [
        (
            str(one.folder.relative_to(place.resolve())) if one.folder != place.resolve() else one.folder.name,
            one.state,
            quantity_text(QUANTITIES["accuracy"], one.accuracy),
            number_text(one.student_step),
            f"{one.age / DAY:.0f} d" if one.age > 2 * DAY else clock(one.age),
            f"{one.bytes / 1e6:.1f} MB",
        )
        for one in found
    ]
    return aligned_table([head, *rows], shutil.get_terminal_size((120, 40)).columns)


def progress_of(folder: Path, as_json: bool) -> str:
    """How far the unfinished run in a folder is, and how to go on with it.

    Raises:
        ReportError: if there is none, or a file of it is damaged.
    """
    from lra.benchmarks.sweeps.sweep_progress import last_line

    run, found = _begun(folder), standing(folder)
    values = {quantity.name: run.latest(quantity) for quantity in quantities(*FOLLOWED)}
    if as_json:
        return json.dumps(asdict(found) | values | {"folder": str(folder), "run_dir": str(folder)})
    rows = [
        ("run", f"{found.state}, {number_text(found.student_step, missing='no')} student steps evaluated"),
        *((name, quantity_text(QUANTITIES[name], value)) for name, value in values.items() if value is not None),
        ("last line", last_line(folder / "log.txt")),
        ("continue", f"lra-bench resume {folder}" if found.state == "stopped" else ""),
    ]
    return "\n".join(f"{name:11} {text}" for name, text in rows if text)


def evaluations(folder: Path) -> str:
    """Every evaluation of a run as CSV: a column for each number of its records, lists as JSON in theirs.

    Raises:
        ReportError: if there is no run, or a file of it is damaged.
    """
    rows = [dict(flatten(row)) for row in _begun(folder).rows]
    columns = dict.fromkeys(key for row in rows for key in row)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str | int | float | None) else json.dumps(v) for k, v in row.items()})
    return out.getvalue()


LINES = {
    "accuracy": "final {accuracy}, max {max}, μ {mean}, σ² {variance} (last half: μ {tail_mean}, σ² {tail_variance})",
    "fidelity": "agreement {agreement}, loyalty {loyalty}",
    "forgetting": "{forgetting} on average over probes, backward transfer {bwt}",
    "alignment": "mean cos(∇L_acq, ∇L_ret) {alignment}",
    "cost": "{student_steps} student steps, {experiences} experiences, {teacher_queries} teacher queries, {seconds} s "
    "({processor_seconds} s of CPU), {memory}",
}
"""What is said of a run, with the names of quantities in place of their values."""


def table(result: dict[str, Any], folder: Path) -> str:
    """A run's result for a terminal; quantities that comparisons show and no line has get lines of their own."""
    said = {name: quantity_text(quantity, value(result, quantity)) for name, quantity in QUANTITIES.items()}
    lines = {name: line.format_map(said) for name, line in LINES.items()}
    if result["accuracy"] is None:
        lines["accuracy"] = "no test set"
    elif "reason" in result["accuracy"]:
        lines["accuracy"] += f"; {result['accuracy']['reason']}"
    if "reason" in result["forgetting"]:
        lines["forgetting"] = f"— ({result['forgetting']['reason']})"
    named = {name for line in LINES.values() for _, name, _, _ in Formatter().parse(line)}
    meta = " + LRA" if result["meta"] else ""
    teacher = quantity_text(QUANTITIES["accuracy"], result["teacher"]["accuracy"], "not measured")
    rows = [
        ("run", f"{result['method']}, replay {result['replay']}{meta}, {result['dataset']}, seed {result['seed']}"),
        ("teacher", f"{result['teacher']['name']}, {teacher}"),
        ("student", f"{result['student']['name']}, {result['student']['parameters']:,} parameters"),
        *_quantization(result.get("quantization"), said),
        *_stopped(result),
        *_rollbacks(result.get("rollbacks") or []),
        *lines.items(),
        *_best(result),
        *((q.title, said[q.name]) for q in quantities(*COMPARED) if q.name not in named and _had(result, q)),
        ("report", str(folder / "report.html")),
    ]
    return "\n".join(f"{name:11} {text}" for name, text in rows)


def _had(result: dict[str, Any], quantity: Quantity) -> bool:
    """Whether a run has a value for it, or any run like it should."""
    return quantity.usual or value(result, quantity) is not None


def increment_table(result: dict[str, Any], folder: Path) -> str:
    """A run of increments for a terminal."""
    config, rows, cost = result["config"], result["accuracy_matrix"], result["cost"]
    meta = " + LRA step" if result["meta"] else ""
    return "\n".join(
        [
            f"{config['strategy']}{meta} on {config['benchmark']}, {config['experiences']} experiences, "
            f"{config['steps']} steps each, {config['model']}, seed {config['seed']}",
            *(experience_line(row, config["experiences"]) for row in rows),
            f"average accuracy at the end      {result['accuracy']:6.2f} %",
            f"average incremental accuracy     {result['average_incremental_accuracy']:6.2f} %",
            f"forgetting (first minus last)    {result['forgetting']:6.2f} points",
            f"time                             {cost['seconds']:6.1f} s, {cost['generator_steps']} generator steps",
            f"statistics of classes kept       {cost.get('class_statistics', 0):,} numbers measured on their data",
            f"report                           {folder / 'report.html'}",
        ]
    )


def _best(result: dict[str, Any]) -> list[tuple[str, str]]:
    if "best" not in result:
        return []
    best = result["best"]
    said = quantity_text(QUANTITIES["accuracy"], best["accuracy"])
    return [("best", f"{said} at step {best['student_step']:,}, kept in {best['file']}; chosen on test data")]


def _stopped(result: dict[str, Any]) -> list[tuple[str, str]]:
    if "stopped" not in result:
        return []
    done, stopped = result["cost"]["experiences"], result["stopped"]
    return [("stopped", f"by {stopped['by']}, after {done:,} of {stopped['of_experiences']:,} experiences")]


def _quantization(found: dict[str, Any] | None, said: dict[str, str]) -> list[tuple[str, str]]:
    if found is None:
        return []
    bits = f"W{found['weight_bits']}A{found['activation_bits']} (simulated), {said['bits']} per weight"
    rows = [("bits", f"{bits}, {found['bytes']:,} bytes of {found['bytes_full_precision']:,}")]
    if found["post_training"] is not None:
        rows.append(("untrained", f"{said['post_training']}, min-max on noise"))
    return rows


def _rollbacks(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [("diverged", f"{one['cause']}; went back to experience {one['to_experience']}") for one in found]


def preview(config: Configuration, out: Path, as_json: bool, timing: bool, began: float) -> str:
    """What a dry run prints: the resolved configuration as YAML (or JSON), and what the run would cost.

    Args:
        config: of the run.
        out: parent of run folders, where it would go.
        as_json: print JSON.
        timing: whether to build the run and to time its first steps.
        began: `time.perf_counter` when the command began.

    Raises:
        LraError: with ``timing`` for whatever the run itself would refuse.
    """
    kind = kind_of(config)
    introduction = Introduction(*kind.introduction(config), *kind.notes(config))
    if not timing:
        introduction.say()
        return plan(config, as_json)
    with loading("torch", "avalanche"):
        import lra.benchmarks.runs.trial  # noqa: F401
    found = kind.trial(config, out, began, introduction)
    return plan(config.model_copy(update={"threads": found.threads}), as_json, found.record())


def plan(config: Configuration, as_json: bool, tried: dict[str, Any] | None = None) -> str:
    """The resolved configuration as YAML (or JSON), its cost, and what trying it has shown."""
    cost = kind_of(config).cost(config)
    if as_json:
        estimate = {} if tried is None else {"estimate": tried}
        return json.dumps({"config": config.tree(), "cost": cost} | estimate) + "\n"
    costs = {name.replace("_", " "): f"{number:,}" for name, number in cost.items()}
    if isinstance(config, RunConfig):
        costs["evaluations"] = f"{config.evaluations:,}"
    costs |= {} if tried is None else _tried(tried)
    lines = "".join(f"#   {name}: {text}\n" for name, text in costs.items())
    return yaml.safe_dump(config.tree(), sort_keys=False) + "# would cost at least:\n" + lines


def _tried(found: dict[str, Any]) -> dict[str, str]:
    """What trying a run has shown, to be read."""
    teacher = {"teacher to be trained": f"about {clock(found['teacher'])}"} if found["teacher"] else {}
    seconds, basis = found["seconds"], found["basis"]
    time = f"unknown: {basis}" if seconds is None else f"about {clock(seconds)} ({basis})"
    whole = {} if seconds is None else {"in all": f"about {clock(found['total'])}"}
    return {
        "start-up": clock(found["start_up"]),
        **teacher,
        "training and evaluation": time,
        **whole,
        "peak memory": f"{found['peak_memory_mb']:,.0f} MB",
        "parameters": ", ".join(f"{name} {number:,}" for name, number in found["parameters"].items()),
    }
