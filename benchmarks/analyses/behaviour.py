"""How a teacher answers: confidence and predicted classes on real, synthetic and attacked images (AEAHL-RG)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.analyses import require_images
from lra.benchmarks.progress import Progress
from lra.benchmarks.reports.drawing import PALETTE, WIDE, Series, clean, curves, svg_figure, write_analysis
from lra.benchmarks.runs.rebuilding import Rebuilt, made, real, rebuilt
from lra.distillation.attack import Attacker, PerturbationNetwork
from lra.networks.generators import sized_for
from lra.options import AttackOptions
from lra.state import seed_everything

LEVELS = 50
"""Confidences at which the share of surer images is drawn."""


def behaviour(folder: Path, out: Path, images: int, attack_steps: int, seed: int) -> list[Path]:
    """Put images before the teacher of a run; write ``behaviour.json``, ``.svg`` and ``.png``; returns them.

    The attack is learnt here, on what the run's generator makes, or on the last batch of a run without one, in the
    form that the run is configured for.

    Args:
        folder: of a finished run.
        out: where to.
        images: of each kind at most.
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
        # Of the generator, if one lasts: it has more to show than a batch.
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
    """Share of images that the teacher is surer of than a confidence, and the share of each class it names.

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
    curves(above, series, pattern="")
    above.set_title("images (%) that the teacher is at least so sure of, and its mean confidence")
    above.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    width = 0.8 / len(tables)
    for index, (name, p) in enumerate(tables.items()):
        shares = 100 * p.argmax(dim=1).bincount(minlength=p.shape[1]) / len(p)
        places = [k + (index - (len(tables) - 1) / 2) * width for k in range(len(shares))]
        below.bar(places, shares.tolist(), width, color=PALETTE[index % len(PALETTE)], label=clean(name))
    below.set_xticks(range(len(shares)))
    below.set_title("images (%) that the teacher takes for each class")
    return figure
