"""How close cheaper meta gradients stay to the exact one, along a real run on scikit-learn's digits.

    python -m lra.benchmarks.cost.meta_step_along --out benchmarks/results/meta-step-along.md

A student learns a teacher's logits (mean absolute difference) with the exact meta gradient. New samples are of two
digits, with noise, and of the next two after every 60 steps; old samples are of the other eight digits. Every tenth
step each cheaper gradient is compared with the exact one, by its cosine. "share" is the norm of the second-order term
relative to that of the whole gradient; "term" is the cosine between this term and its estimate from a part of the
batch. The stale term is four steps old. The columns are the median, the 10 % quantile and the least value over these
steps.
"""

import argparse
import sys
from pathlib import Path
from typing import Literal

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lra.benchmarks.files import write_text
from lra.meta.lookahead import Loss
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep
from lra.networks import build

PARTS = (2, 4, 8)


def digits(side: int) -> tuple[Tensor, Tensor]:
    """Standardised images (1797, 1, side, side) and labels (1797,)."""
    data = load_digits()
    images = F.interpolate(torch.tensor(data.images, dtype=torch.float32)[:, None], size=side)
    return (images - images.mean()) / images.std(), torch.tensor(data.target)


def taught(network: str, images: Tensor, labels: Tensor) -> nn.Module:
    """A teacher trained for 150 steps, frozen."""
    teacher = build(network, 10, (1, *images.shape[2:]))
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-3)
    for _ in range(150):
        chosen = torch.randint(0, len(images), (128,))
        optimizer.zero_grad()
        F.cross_entropy(teacher(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return teacher.eval().requires_grad_(False)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two vectors."""
    return float(a @ b / (a.norm() * b.norm()).clamp(min=1e-30))


class Run:
    """One student in training, and what was measured along the way."""

    def __init__(self, network: str, alpha: float, batch: int) -> None:
        torch.manual_seed(0)
        self.images, self.labels = digits(32 if network.startswith("lenet") else 16)
        self.teacher = taught(network, self.images, self.labels)
        self.student = build(network, 10, (1, *self.images.shape[2:]))
        self.optimizer = torch.optim.SGD(self.student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        self.alpha, self.batch = alpha, batch
        self.stale: Tensor | None = None
        self.found: dict[str, list[float]] = {}

    def drawn(self, allowed: Tensor, count: int) -> Tensor:
        """Images of the allowed labels."""
        choices = torch.where(allowed)[0]
        return self.images[choices[torch.randint(0, len(choices), (count,))]]

    def loss(self, x: Tensor) -> Loss:
        """Distance to the teacher on x."""
        t = self.teacher(x)
        return lambda forward: F.l1_loss(forward(x), t)

    def step(self, index: int) -> None:
        """Train by one exact step; compare on every tenth."""
        new = self.labels // 2 == (index // 60) % 5
        x = self.drawn(new, self.batch)
        x, x_old = x + 0.3 * torch.randn_like(x), self.drawn(~new, self.batch // 8)
        acquire, retain = self.loss(x), self.loss(x_old)

        def look_ahead(order: Literal[1, 2] = 2, updates_statistics: bool = False) -> LookAheadStep:
            options = LookAheadOptions(alpha=self.alpha, alpha_rate=0, order=order, statistics="batch")
            return LookAheadStep(options, updates_statistics)

        def gradient(order: Literal[1, 2] = 2, curvature: Loss | None = None) -> Tensor:
            found = look_ahead(order)(self.student, acquire, retain, curvature=curvature)
            return torch.cat([g.flatten() for g in found.gradients])

        if index % 10 in (6, 0):
            exact, first = gradient(), gradient(order=1)
            if index % 10 == 0:
                self.compare(exact, first, {p: gradient(curvature=self.loss(x[: self.batch // p])) for p in PARTS})
            self.stale = exact - first
        step = look_ahead(updates_statistics=True)(self.student, acquire, retain)
        for parameter, g in zip(self.student.parameters(), step.gradients, strict=True):
            parameter.grad = g
        self.optimizer.step()

    def compare(self, exact: Tensor, first: Tensor, parts: dict[int, Tensor]) -> None:
        """Note the cosine of each with the exact gradient."""
        term = exact - first
        values = {"share": float(term.norm() / exact.norm()), "first order": cosine(first, exact)}
        for part, found in parts.items():
            values[f"1/{part} of the batch"] = cosine(found, exact)
            values[f"1/{part}, term"] = cosine(found - first, term)
        if self.stale is not None:
            values["first order and a stale term"] = cosine(first + self.stale, exact)
        for name, value in values.items():
            self.found.setdefault(name, []).append(value)


def main() -> None:
    """Run every network with every α and print the tables."""
    command = argparse.ArgumentParser(prog="python -m lra.benchmarks.cost.meta_step_along")
    command.add_argument("--networks", nargs="+", default=["lenet5-half", "resnet8"])
    command.add_argument("--alphas", nargs="+", type=float, default=[0.01, 0.05, 0.1])
    command.add_argument("--steps", type=int, default=300)
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--out", type=Path, help="also write the tables to this file")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    notes = (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ")
    title = "# How far cheaper meta gradients are from the exact one, along a run"
    text = [f"{title}\n\n    {command.prog} {' '.join(sys.argv[1:])}\n\n{notes}"]
    for network in options.networks:
        for alpha in options.alphas:
            run = Run(network, alpha, options.batch)
            for index in range(options.steps):
                run.step(index)
            text += [f"\n## {network}, α = {alpha:g}\n\n| | median | 10 % | least |\n|---|--:|--:|--:|"]
            for name, values in run.found.items():
                v = torch.tensor(values)
                text.append(f"| {name} | {v.median():.4f} | {v.quantile(0.1):.4f} | {v.min():.4f} |")
            print("\n".join(text[-len(run.found) - 1 :]), flush=True)
    if options.out:
        write_text(options.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
