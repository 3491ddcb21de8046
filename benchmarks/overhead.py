"""What the stream and Avalanche's loop cost beyond the work itself.

    python -m lra.benchmarks.overhead [--json]

Prints, on one thread and with both sides interleaved in chunks of experiences:

* the ratio of a run on digits (PRE-DFKD's generator, memory bank) to a plain PyTorch loop doing the same forward
  and backward work, without and with evaluation on both sides;
* the extra CPU time per experience on a tiny MLP;
* how cost per experience and memory grow over a long stream with bank, probes and evaluation.
"""

import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import click
import torch

from lra.benchmarks.config import RunConfig, resolve
from lra.benchmarks.datasets import Labelled, data_set
from lra.benchmarks.experiment import Experiment, prepare
from lra.benchmarks.teachers import TrainedTeacher, obtain
from lra.problem import Batch
from lra.state import seed_everything

CHUNK = 30


class PlainLoop:
    """The same work as a run with a memory bank, written without any framework."""

    def __init__(self, experiment: Experiment, test: Labelled, every: int):
        self.experiment, self.test, self.every = experiment, test, every
        self.student = experiment.strategy.model
        self.optimiser = experiment.strategy.optimizer
        self.source, self.teacher = experiment.stream.synthesizer, experiment.stream.teacher
        self.bank = next(p.buffer for p in experiment.strategy.plugins if hasattr(p, "buffer"))
        self.first, self.period, self.size = next(
            (p.first, p.period, p.size) for p in experiment.strategy.plugins if hasattr(p, "buffer")
        )
        self.done = 0

    def run(self, experiences: int) -> None:
        """Train for so many experiences."""
        self.student.train()
        for _ in range(experiences):
            self.source.step(self.student)
            for _ in range(self.experiment.stream.steps):
                images, logits = self.step()
            self.done += 1
            if self.done >= self.first and (self.done - self.first) % self.period == 0:
                self.bank.add(Batch(images, logits))
            if self.every and self.done % self.every == 0:
                self.evaluate()

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One student step on new and stored samples."""
        images = self.source.draw(self.experiment.stream.batch_size)
        logits = self.teacher.label(images)
        x, t = images, logits
        if len(self.bank):
            old = self.bank.sample(self.size)
            x, t = torch.cat([images, old.images]), torch.cat([logits, old.logits])
        loss = (self.student(x) - t).abs().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return images, logits

    def evaluate(self) -> None:
        """The forward passes of an evaluation: test set and as many probes as the run has on average."""
        self.student.eval()
        with torch.no_grad():
            self.student(self.test.images)
            for _ in range(16):
                self.student(self.test.images[:64])
        self.student.train()


def problem(name: str) -> tuple[RunConfig, Any, TrainedTeacher, Labelled]:
    """The digits problem ("digits") or a tiny MLP on 8x8 images ("mlp")."""
    tiny = name == "mlp"
    layers: list[dict[str, Any]] = [{"replay": "memory"}]
    if tiny:
        layers.append({"data": {"size": 8}, "student": "mlp", "teacher": "mlp"})
        layers.append({"schedule": {"batch_size": 32, "steps_per_experience": 1, "experiences_per_epoch": 100}})
    config = resolve([*layers, {"schedule": {"steps": 10**7}}])
    data = data_set(config.data.name, config.data.size)
    test = data.load("test")
    return config, data, obtain(config.teacher, data, test), test


def built(name: str, evaluate: bool) -> tuple[Experiment, PlainLoop]:
    """A run and its plain twin, equally seeded, on the problem of that name."""
    config, data, teacher, test = problem(name)
    experiments = []
    for _ in range(2):
        seed_everything(0)
        experiments.append(prepare(config, data, teacher, test, lambda record: None))
    run, twin = experiments
    every = config.schedule.experiences_per_epoch
    if not evaluate:
        cadence = next(p for p in run.strategy.plugins if type(p).__name__ == "EvaluationCadence")
        cadence.every = 10**9
    return run, PlainLoop(twin, test, every if evaluate else 0)


def chunk_seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time of one piece of work by ``clock``."""
    start = clock()
    work()
    return clock() - start


def interleaved(name: str, evaluate: bool, chunks: int) -> dict[str, float]:
    """Ratio and difference of CPU time per experience, run against plain loop, chunk by chunk."""
    run, plain = built(name, evaluate)
    stream = run.stream

    def advance() -> None:
        stream.length = stream.position + CHUNK
        run.strategy.train(stream)

    pairs = [
        (chunk_seconds(advance, time.process_time), chunk_seconds(lambda: plain.run(CHUNK), time.process_time))
        for _ in range(chunks)
    ][1:]
    return {
        "run_ms": 1000 * min(a for a, _ in pairs) / CHUNK,
        "plain_ms": 1000 * min(b for _, b in pairs) / CHUNK,
        "ratio": median(a / b for a, b in pairs),
        "extra_ms": 1000 * (min(a for a, _ in pairs) - min(b for _, b in pairs)) / CHUNK,
    }


def growth(experiences: int) -> list[dict[str, float]]:
    """CPU time per experience and memory along a long stream of the tiny MLP, with bank, probes, evaluation."""
    run, _ = built("mlp", evaluate=True)
    rows = []
    for position in range(100, experiences + 1, 100):
        run.stream.length = position
        seconds = chunk_seconds(lambda: run.strategy.train(run.stream), time.process_time)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"experience": position, "ms": 1000 * seconds / 100, "peak_mb": memory})
    return rows


@click.command()
@click.option("--chunks", default=20, show_default=True, help="Interleaved chunks of experiences per comparison.")
@click.option("--experiences", default=15000, show_default=True, help="Length of the long stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(chunks: int, experiences: int, as_json: bool) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "digits": interleaved("digits", False, chunks),
        "digits with evaluation": interleaved("digits", True, chunks),
        "tiny MLP": interleaved("mlp", False, chunks),
        "growth": growth(experiences),
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    for name in ("digits", "digits with evaluation", "tiny MLP"):
        row = found[name]
        click.echo(
            f"{name:24} run {row['run_ms']:8.3f} ms/experience   plain {row['plain_ms']:8.3f}   "
            f"ratio {row['ratio']:.3f}   extra {row['extra_ms']:.3f} ms"
        )
    rows = found["growth"]
    fifth = len(rows) // 5
    for part in range(5):
        some = rows[part * fifth : (part + 1) * fifth]
        click.echo(
            f"experiences up to {some[-1]['experience']:6}   {median(r['ms'] for r in some):.3f} ms each   "
            f"peak memory {some[-1]['peak_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
