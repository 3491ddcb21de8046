"""``lra-bench tasks``: from a file to runs and their report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lra import __version__
from lra.benchmarks.errors import concerning
from lra.benchmarks.setup.resolution import origin, read_options
from lra.benchmarks.tasks.task_file import TaskPlan, plan
from lra.benchmarks.tasks.task_outcome import read_record
from lra.benchmarks.tasks.task_stream import RECORD, perform


def tasks_of(file: Path, given: Mapping[str, Any], out: Path, as_json: bool) -> str:
    """Do the tasks of a file, with options that win over it; returns what is to be printed.

    Raises:
        LraError: as `lra.benchmarks.tasks.task_stream.perform`.
    """
    tree = read_options(file, "tasks")
    options = " ".join(f"--{key} {','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in given.items())
    with concerning(f"tasks {file}" + (f" with {options}" if options else "")):
        planned = plan(tree | dict(given), file.parent)
    return _done(planned, out, as_json)


def resume(out: Path, on_divergence: Literal["stop", "rollback"] | None, as_json: bool) -> str:
    """Go on with the tasks of a folder; returns what is to be printed.

    Args:
        out: the folder.
        on_divergence: in place of what the tasks were started with.
        as_json: print JSON.

    Raises:
        LraError: as `lra.benchmarks.tasks.task_stream.perform`, and if the folder holds no tasks.
    """
    record = read_record(out)
    tree = record["file"]
    if on_divergence is not None:
        tree = tree | {"set": (tree.get("set") or {}) | {"on_divergence": on_divergence}}
    code = {str(top): str(folder) for top, folder in record.get("code", {}).items()}
    with concerning(origin("tasks", out / RECORD, record.get("lra", __version__))):
        planned = plan(tree, Path(str(record.get("base", "."))), code)
    return _done(planned, out, as_json)


def _done(planned: TaskPlan, out: Path, as_json: bool) -> str:
    from lra.benchmarks.tasks.task_report import write_task_report

    perform(planned, out)
    page = write_task_report(out)
    if as_json:
        return json.dumps(read_record(out) | json.loads((out / "report.json").read_text()))
    return f"{page.read_text()}\nreport      {page}"
