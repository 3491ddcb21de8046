"""What the stream and Avalanche's loop cost beyond the work itself.

    python -m lra.benchmarks.cost.overhead [--chunks N] [--experiences N] [--json]

Prints, on one thread, in CPU time, with both sides interleaved in chunks of experiences:

* a run on digits (PRE-DFKD's generator, memory bank) against a plain PyTorch loop doing the same forward and
  backward work, without and with evaluation on both sides;
* the same on a tiny MLP with one student step per experience, where nothing hides the loop;
* cost per experience and memory along a long stream of the tiny MLP with bank, probes and evaluation.
"""

import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import click
import torch
from torch import nn

from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.datasets import DataSet, Labelled, data_of
from lra.benchmarks.setup.experiment import prepare
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher, obtain
from lra.distances import l1
from lra.distillation.objective import Objective
from lra.memory.buffers import Ring
from lra.problem import Batch, Teacher
from lra.state import seed_everything
from lra.strategies.evaluation import Evaluation
from lra.strategies.metrics import GradientAlignment, TrainingLosses
from lra.strategies.probes import ProbeForgetting
from lra.strategies.replay import BufferReplay
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, no_test_stream
from lra.synthesis.online import OnlineGenerator
from lra.synthesis.terms import OneHot

NEVER = 10**9

Run = tuple[SynthesisStream, DataFreeDistillation, torch.Tensor | None]
"""A stream, what trains on it, and test images if it evaluates on any."""


def problem(*settings: dict[str, Any]) -> tuple[RunConfig, DataSet, Labelled, TrainedTeacher]:
    """What a run of ``settings`` starts from: its configuration, data set, test images and trained teacher."""
    config = resolve(settings)
    data = data_of(config.data)
    test = data.load("test")
    return config, data, test, obtain(config.teacher, data, test)


def digits(evaluate: bool) -> Run:
    """The digits problem with a memory bank, as ``lra-bench run`` builds it."""
    config, data, test, teacher = problem({"replay": "memory", "schedule": {"steps": NEVER}})
    seed_everything(0)
    built = prepare(config, data, teacher, test, lambda record: None)
    if not evaluate:
        evaluation_of(built.strategy).every = NEVER
    return built.stream, built.strategy, test.images


def tiny(probe_every: int = NEVER) -> Run:
    """An MLP student and teacher 192-64-10, a generator 16-64-192, 32 images, one step per experience."""
    seed_everything(0)
    teacher, student = Teacher(_mlp()), _mlp()
    generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 192), nn.Unflatten(1, (3, 8, 8)))
    optimiser = torch.optim.SGD(generator.parameters(), lr=0.01)
    synthesizer = OnlineGenerator(generator, optimiser, [OneHot(1.0)], teacher, latent=16, batch_size=32)
    objective = Objective(l1)
    measures = [ProbeForgetting(synthesizer, teacher, 1, 64), GradientAlignment(objective, teacher), TrainingLosses()]
    bank = BufferReplay(Ring(10, 8), 8, period=10)
    evaluation = Evaluation(no_test_stream(), probe_every, NEVER, measures)
    strategy = DataFreeDistillation(
        model=student,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9),
        objective=objective,
        train_mb_size=32,
        plugins=[bank, evaluation],
        evaluator=evaluation.evaluator,
    )
    return SynthesisStream(synthesizer, teacher, length=0, steps=1, batch_size=32), strategy, None


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 10))


def evaluation_of(strategy: DataFreeDistillation) -> Evaluation:
    """The plugin that evaluates the student of a strategy."""
    return next(plugin for plugin in strategy.plugins if isinstance(plugin, Evaluation))


def advance(run: Run, experiences: int) -> None:
    """Train on this many more experiences."""
    stream, strategy, _ = run
    stream.length = stream.position + experiences
    strategy.train(stream)


class PlainLoop:
    """The same work as a run with a memory bank, written without any framework."""

    def __init__(self, run: Run):
        self.stream, strategy, self.test = run
        self.student, self.optimiser = strategy.model, strategy.optimizer
        self.bank = next(plugin for plugin in strategy.plugins if isinstance(plugin, BufferReplay))
        self.every = evaluation_of(strategy).every
        self.done = 0

    def advance(self, experiences: int) -> None:
        """Train on this many more experiences."""
        self.student.train()
        for _ in range(experiences):
            self.stream.synthesizer.step(self.student)
            for _ in range(self.stream.steps):
                new = self.step()
            self.done += 1
            if self.done >= self.bank.first and (self.done - self.bank.first) % self.bank.period == 0:
                self.bank.buffer.add(new)
            if self.done % self.every == 0 and self.test is not None:
                self.evaluate(self.test)

    def step(self) -> Batch:
        """One student step on new and stored samples."""
        images = self.stream.synthesizer.draw(self.stream.batch_size)
        logits = self.stream.teacher.label(images)
        x, t = images, logits
        if len(self.bank.buffer):
            old = self.bank.buffer.sample(self.bank.size)
            x, t = torch.cat([images, old.images]), torch.cat([logits, old.logits])
        loss = (self.student(x) - t).abs().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return Batch(images, logits)

    def evaluate(self, test: torch.Tensor) -> None:
        """The forward passes of an evaluation: the test set, and as many probes as a run has on average."""
        self.student.eval()
        with torch.no_grad():
            self.student(test)
            for _ in range(16):
                self.student(test[:64])
        self.student.train()


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """CPU seconds of one piece of work; on a GPU, wall-clock seconds until it is done there."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def interleaved(make: Callable[[], Run], chunks: int, size: int) -> dict[str, float]:
    """CPU time (ms) per experience of a run and its plain twin, chunk by chunk: the least of each, the median ratio."""
    run, plain = make(), PlainLoop(make())
    pairs = []
    for _ in range(chunks + 1):
        pairs.append((seconds(lambda: advance(run, size)), seconds(lambda: plain.advance(size))))
    pairs = pairs[1:]
    ours, bare = (1000 * min(side) / size for side in zip(*pairs, strict=True))
    return {"run_ms": ours, "plain_ms": bare, "ratio": median(a / b for a, b in pairs), "extra_ms": ours - bare}


def growth(experiences: int, parts: int = 5) -> list[dict[str, float]]:
    """CPU time (ms) per experience and peak memory (MiB) in each part of a long stream with probes and evaluation."""
    run, rows = tiny(probe_every=max(1, experiences // 60)), []
    for _ in range(parts):
        spent = seconds(lambda: advance(run, experiences // parts))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append({"up_to": run[0].position, "ms": 1000 * spent / (experiences // parts), "peak_mib": memory})
    return rows


@click.command()
@click.option("--chunks", default=10, show_default=True, help="Interleaved chunks of experiences per comparison.")
@click.option("--experiences", default=15000, show_default=True, help="Length of the long stream.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(chunks: int, experiences: int, as_json: bool) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "digits": interleaved(lambda: digits(False), chunks, 15),
        "digits with evaluation": interleaved(lambda: digits(True), chunks, 15),
        "tiny MLP": interleaved(tiny, 2 * chunks, 200),
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
    for row in found["growth"]:
        click.echo(f"experiences up to {row['up_to']:6}   {row['ms']:.3f} ms each   peak {row['peak_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
