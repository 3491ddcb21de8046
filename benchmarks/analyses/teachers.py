"""What a paper (AEAHL-RG) shows of teachers besides accuracy: how they answer, and what flipped bits do to them.

`behaviour`: confidence and predicted classes on real, synthetic and attacked images. `bit_flip_study`: how much an
attack hurts, depending on the source of the attacker's images; the lower the accuracy that is left, the better they
stand in for real ones. The attack itself is `lra.bit_flips`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.files import write_text
from lra.benchmarks.progress import Progress
from lra.benchmarks.records import known
from lra.benchmarks.reports.curves import Series, band, curves, label_ends
from lra.benchmarks.reports.drawing import PALETTE, WIDE, clean, svg_figure, write_analysis
from lra.benchmarks.runs.distillation import require_images
from lra.benchmarks.runs.rebuilding import Rebuilt, data_sources, made, real, rebuilt
from lra.benchmarks.setup.datasets import Labelled
from lra.benchmarks.setup.teachers import accuracy_of
from lra.benchmarks.tasks.task_report import task_panels
from lra.benchmarks.text import markdown_table
from lra.bit_flips import BitNetwork, search
from lra.distillation.attack import Attacker, PerturbationNetwork
from lra.metrics.quantities import PERCENT
from lra.networks.generators import sized_for
from lra.options import AttackOptions
from lra.state import seed_everything

LEVELS = 50
"""Number of confidences for which the share of images that reach them is drawn."""
NEAR_CHANCE = 1.1
"""Times 1/K: an accuracy at or below this counts as chance."""


def behaviour(folder: Path, out: Path, images: int, attack_steps: int, seed: int) -> list[Path]:
    """Show images to the teacher of a run; write ``behaviour.json``, ``.svg`` and ``.png``; return these files.

    The attack is learnt here, in the form that the run is configured for, on images of the run's generator or, without
    one, on its last batch.

    Args:
        folder: of a finished run.
        out: folder to write to.
        images: most images of each kind.
        attack_steps: steps of the perturbation network.
        seed: of everything random.

    Raises:
        LraError: if the run is not finished, or cannot be built again.
    """
    require_images(folder)
    parts = rebuilt(folder)
    seed_everything(seed)
    attacker = _trained_attacker(parts, attack_steps)
    shown = real(parts.data.load("test"), images)
    kinds = {"real": shown.images} | made(parts, images)
    attacked = list(kinds)[:2]
    kinds |= {f"{name}, attacked": attacker.attack(kinds[name]).images for name in attacked}
    found = {name: _answers(parts, each) for name, each in kinds.items()}
    record = {
        "run": str(folder),
        "teacher": parts.teacher_name,
        "budget": attacker.options.budget if attacker.options.delta == "linf" else None,
        "attack_steps": attack_steps,
        "threads": parts.config.threads,
        "kinds": {
            name: {
                "images": len(p),
                "confidence": 100 * p.max(dim=1).values.mean().item(),
                "classes": (100 * p.argmax(dim=1).bincount(minlength=p.shape[1]) / len(p)).tolist(),
            }
            for name, p in found.items()
        },
        "accuracy": {
            name: 100 * (found[name].argmax(dim=1) == shown.classes).double().mean().item()
            for name in ("real", "real, attacked")
        },
        "changed by the attack": {
            name: 100 * (found[name].argmax(1) != found[f"{name}, attacked"].argmax(1)).double().mean().item()
            for name in attacked
        },
    }
    return write_analysis(out, "behaviour", record, behaviour_figure, {name: p.tolist() for name, p in found.items()})


def _trained_attacker(parts: Rebuilt, steps: int) -> Attacker:
    options = AttackOptions.model_validate(parts.config.synthesis.get("aea") or {})
    problem = parts.experiment.problem
    width = options.width or sized_for(problem.image)[0] // 2
    network = PerturbationNetwork(problem.image[0], min(problem.image[1:]), width=width)
    attacker = Attacker(network, parts.teacher, problem, options, lambda images: images)
    progress = Progress(steps, "steps", "attack")
    for step in range(steps):
        progress.show(step)
        # From the generator, if the run left one: it has more to show than a batch.
        images = list(made(parts, 64).values())[-1]
        attacker.learn(images, parts.teacher.label(images))
    progress.done = steps
    progress.close()
    return attacker


@torch.no_grad()
def _answers(parts: Rebuilt, images: Tensor) -> Tensor:
    """Probabilities (n, K)."""
    return F.softmax(parts.teacher.network(images), dim=1)


@svg_figure("How sure a teacher is, and which classes it names, by the kind of image")
def behaviour_figure(answers: Mapping[str, list[list[float]]]) -> Figure:
    """Share of images that the teacher answers with at least a confidence, and share of each class it names.

    Args:
        answers: probabilities (n, K) by the kind of image.
    """
    figure = Figure((WIDE, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1)
    levels = [level / LEVELS for level in range(LEVELS)]
    series, tables = [], {name: torch.tensor(rows) for name, rows in answers.items()}
    for name, p in tables.items():
        sure = p.max(dim=1).values
        label = f"{name} {100 * sure.mean():.0f}"
        series.append(Series(label, levels, [100 * (sure >= level).double().mean().item() for level in levels]))
    ends = curves(above, series, pattern="")
    above.set_title("images (%) with at least this confidence, and mean confidence (%)")
    above.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    width = 0.8 / len(tables)
    for index, (name, p) in enumerate(tables.items()):
        shares = 100 * p.argmax(dim=1).bincount(minlength=p.shape[1]) / len(p)
        places = [k + (index - (len(tables) - 1) / 2) * width for k in range(len(shares))]
        below.bar(places, shares.tolist(), width, color=PALETTE[index % len(PALETTE)], label=clean(name))
    below.set_xticks(range(len(shares)))
    below.set_title("images (%) that the teacher assigns to each class")
    label_ends(figure, (above, ends))
    return figure


def bit_flip_study(folder: Path, out: Path, runs: int, iterations: int, size: int) -> list[Path]:
    """Attack the teacher of a run; write ``bitflip.json``, ``.md``, ``.svg`` and ``.png``; return these files.

    Args:
        folder: of a finished run.
        out: folder to write to.
        runs: independent attacks per source, seeds 0, 1, …
        iterations: of the search; each flips one bit or a few.
        size: number of images that an attacker has.

    Raises:
        LraError: if the run is not finished, or cannot be built again.
    """
    require_images(folder)
    parts = rebuilt(folder)
    test = parts.data.load("test")
    whole = accuracy_of(BitNetwork(parts.teacher.network).network, test)
    attacks: dict[str, list[dict[str, Any]]] = {}
    progress = Progress(runs, "attacks", "bit flips")
    progress.show(0)
    for seed in range(runs):
        seed_everything(seed)
        sources = data_sources(parts, size)
        for index, (name, images) in enumerate(sources.items()):
            tell = partial(_tell, progress, name, seed + index / len(sources), 1 / (len(sources) * iterations))
            attacks.setdefault(name, []).append(_attack(parts, images, test, iterations, whole, tell))
    progress.done = runs
    progress.close()
    chance = 100 / parts.data.classes
    record = {
        "run": str(folder),
        "teacher": parts.teacher_name,
        "accuracy": accuracy_of(parts.teacher.network, test),
        "accuracy_8_bit": whole,
        "chance": chance,
        "iterations": iterations,
        "images": size,
        "threads": parts.config.threads,
        "sources": {name: _summary(found, NEAR_CHANCE * chance) | {"runs": found} for name, found in attacks.items()},
    }
    page = out / "bitflip.md"
    write_text(page, _page(record))
    series = [
        band(name, [(run["flips"], run["accuracy"]) for run in found], PERCENT) for name, found in attacks.items()
    ]
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
    whole: float,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Bits flipped so far and accuracy (%), at first and after each iteration; ``tell`` is given the number of each."""
    victim = BitNetwork(parts.teacher.network)
    with torch.no_grad():
        labels = victim.network(images).argmax(dim=1)
    flips, accuracy = [0], [whole]
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
    head += f"{record['iterations']} iterations, {record['images']} images per attacker.\n\n"
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
