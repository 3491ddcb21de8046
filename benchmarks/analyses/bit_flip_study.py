"""How much a bit-flip attack on the teacher hurts, by where the attacker's images come from (AEAHL-RG).

The lower the accuracy that is left, the better the images stand in for real ones. Attacks: `lra.bit_flips`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from lra.benchmarks.analyses import require_images
from lra.benchmarks.files import write_text
from lra.benchmarks.progress import Progress
from lra.benchmarks.records import known
from lra.benchmarks.reports.drawing import write_analysis
from lra.benchmarks.reports.figures import band
from lra.benchmarks.runs.rebuilding import Rebuilt, data_sources, rebuilt
from lra.benchmarks.setup.datasets import Labelled
from lra.benchmarks.setup.teachers import accuracy_of
from lra.benchmarks.tasks.task_report import task_panels
from lra.benchmarks.text import markdown_table
from lra.bit_flips import BitNetwork, search
from lra.state import seed_everything

NEAR_CHANCE = 1.1
"""Times 1/K: an accuracy at or below this counts as chance."""


def bit_flip_study(folder: Path, out: Path, runs: int, iterations: int, size: int) -> list[Path]:
    """Attack the teacher of a run; write ``bitflip.json``, ``.md``, ``.svg`` and ``.png``; returns them.

    Args:
        folder: of a finished run.
        out: where to.
        runs: independent attacks per source, seeds 0, 1, …
        iterations: of the search; each flips one bit or a few.
        size: images that an attacker has.

    Raises:
        LraError: if the run is not finished, or cannot be built again.
    """
    require_images(folder)
    parts = rebuilt(folder)
    test = parts.data.load("test")
    clean = accuracy_of(BitNetwork(parts.teacher.network).network, test)
    curves: dict[str, list[dict[str, Any]]] = {}
    progress = Progress(runs, "attacks", "bit flips")
    progress.show(0)
    for seed in range(runs):
        seed_everything(seed)
        sources = data_sources(parts, size)
        for index, (name, images) in enumerate(sources.items()):
            tell = partial(_tell, progress, name, seed + index / len(sources), 1 / (len(sources) * iterations))
            curves.setdefault(name, []).append(_attack(parts, images, test, iterations, clean, tell))
    progress.done = runs
    progress.close()
    chance = 100 / parts.data.classes
    record = {
        "run": str(folder),
        "teacher": parts.teacher_name,
        "accuracy": accuracy_of(parts.teacher.network, test),
        "accuracy_8_bit": clean,
        "chance": chance,
        "iterations": iterations,
        "images": size,
        "threads": parts.config.threads,
        "sources": {name: _summary(found, NEAR_CHANCE * chance) | {"runs": found} for name, found in curves.items()},
    }
    page = out / "bitflip.md"
    write_text(page, _page(record))
    series = [band(name, [(run["flips"], run["accuracy"]) for run in found]) for name, found in curves.items()]
    panels, title = {parts.teacher_name: series}, "accuracy of the attacked teacher (%)"
    record_file, *figures = write_analysis(out, "bitflip", record, task_panels, panels, title, "flips")
    return [record_file, page, *figures]


def _tell(progress: Progress, source: str, before: float, each: float, done: int) -> None:
    progress.show(before + each * done, f"{source}: iteration {done}")


def _attack(
    parts: Rebuilt,
    images: torch.Tensor,
    test: Labelled,
    iterations: int,
    clean: float,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Bits flipped so far, and accuracy, after each iteration, of which ``tell`` hears the number."""
    victim = BitNetwork(parts.teacher.network)
    with torch.no_grad():
        labels = victim.network(images).argmax(dim=1)
    flips, accuracy = [0], [clean]
    for flipped in islice(search(victim, images, labels), iterations):
        flips.append(flips[-1] + len(flipped))
        accuracy.append(accuracy_of(victim.network, test))
        tell(len(flips) - 1)
    return {"flips": flips, "accuracy": accuracy}


def _summary(found: Sequence[dict[str, Any]], chance: float) -> dict[str, Any]:
    left = [run["accuracy"][-1] for run in found]
    needed = [_needed(run, chance) for run in found]
    return {"accuracy_after": _spread(left), "flips_to_chance": _spread(known(needed)), "reached": len(known(needed))}


def _needed(run: dict[str, Any], chance: float) -> float | None:
    pairs = zip(run["flips"], run["accuracy"], strict=True)
    return next((float(flips) for flips, accuracy in pairs if accuracy <= chance), None)


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": fmean(values) if values else None, "sd": stdev(values) if len(values) > 1 else None}


def _page(record: dict[str, Any]) -> str:
    head = f"Teacher {record['teacher']}: {record['accuracy']:.2f} %, {record['accuracy_8_bit']:.2f} % in 8 bits, "
    head += f"{record['iterations']} iterations, {record['images']} images an attacker.\n\n"
    rows = []
    for name, found in record["sources"].items():
        reached = f"{found['reached']} of {len(found['runs'])}"
        rows.append([name, _text(found["accuracy_after"]), _text(found["flips_to_chance"]), reached])
    return (
        head
        + markdown_table(["source", "accuracy after (%)", "flips to chance", "reached it"], rows)
        + "\n\nMean ± standard deviation over attacks.\n"
    )


def _text(spread: dict[str, float | None]) -> str:
    mean, sd = spread["mean"], spread["sd"]
    if mean is None:
        return "—"
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"
