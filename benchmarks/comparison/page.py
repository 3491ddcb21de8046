"""A comparison as a Markdown page that says how to repeat it: commands, grids, machine, table."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from lra.benchmarks.comparison.compare import Comparison
from lra.benchmarks.comparison.comparison_table import markdown
from lra.benchmarks.comparison.groups import swept
from lra.benchmarks.records import Run, pick


def page(comparison: Comparison, places: Sequence[Path], command: str, title: str) -> str:
    """The page, ending in a line break.

    Args:
        comparison: what was found in ``places``.
        places: sweeps, or folders of runs; the grid of each sweep is quoted.
        command: that writes this page.
        title: its heading.

    Raises:
        UsageError: for a sweep whose record is damaged.
    """
    runs = [run for group in comparison.groups for run in group.runs.values()]
    grids = {place: swept(place / "sweep.json")["grid"] for place in places if (place / "sweep.json").is_file()}
    sweeps = [f"lra-bench sweep GRID --out {place}" for place in grids]
    quoted = [yaml.safe_dump(grid, sort_keys=False, default_flow_style=None).rstrip() for grid in grids.values()]
    parts = [
        f"# {title}",
        _block("\n".join([*sweeps, command])),
        *(_block(text, "yaml") for text in quoted),
        f"{len(runs)} runs, {_machines(runs)}.",
        markdown(comparison).rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _block(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def _machines(runs: Sequence[Run]) -> str:
    """What the runs ran on, as far as their folders say."""
    kinds = {(pick(r.env, "cuda") or "CPU", pick(r.env, "threads"), pick(r.env, "versions", "torch")) for r in runs}
    return "; ".join(sorted(f"{device}, torch threads: {threads}, torch {torch}" for device, threads, torch in kinds))
