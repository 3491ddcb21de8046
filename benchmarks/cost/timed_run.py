"""A run whose time is broken down by part, in a process of its own, by this version of the toolkit or an earlier one.

    PYTHON -P benchmarks/cost/timed_run.py

answers each line of its standard input, a JSON object, with one on its standard output:

* ``{"build": {"settings": {…}, "tests": n}}``, a configuration as plain data and the number of images to evaluate on:
  builds that run and trains on its first experience;
* ``{"train": n}``: trains on n experiences; answers with seconds, in all and by `PARTS`, and student steps;
* ``{"evaluate": images}``: seconds of an evaluation on this many images, scaled up from one on those of the run;
* ``{"flops": n}``: floating-point operations of convolutions and matrix products in n experiences (not timed);
* ``{"bare": steps}``: seconds of this many steps of a bare PyTorch loop, see `BareLoop`;
* ``{"product": side}``: floating-point operations per second in a product of square matrices.

``PYTHON`` may be that of another version's environment: only what all versions since 13f1ced have is used here. Seconds
are processor seconds on a CPU, elsewhere wall-clock seconds until the device is done.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import torch

NEVER = 10**9
WHOLE = ("synthesis", "memory")
"""Parts that happen once per experience; everything that happens inside them counts as theirs."""
PARTS = ("drawing", "labels", "student", *WHOLE)
"""What time is attributed to: drawing images for the student, replayed ones too; the teacher's answers for them; the
student's pass and update, with the LRA step if it is taken; updates of the sample source; updates of the memory."""


class Stopwatch:
    """Seconds by part; time in nested parts counts for the inner one, unless the outer one is in `WHOLE`."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Count each call of a method of one object as ``part``."""
        own = getattr(owner, method)

        def watched(*arguments: Any, **settings: Any) -> Any:
            self._turn()
            outer = self._open[-1] if self._open else ""
            self._open.append(outer if outer in WHOLE else part)
            try:
                return own(*arguments, **settings)
            finally:
                self._turn()
                self._open.pop()

        setattr(owner, method, watched)

    def _turn(self) -> None:
        now = self.clock()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now


class BareLoop:
    """A student that learns a teacher's answers to images made beforehand, in plain PyTorch.

    Args:
        teacher: name of its network, with random weights.
        student: name of its network.
        distance: of their logits.
        new: images that both see in a step.
        old: images that the student sees beside them.
        image: channels, height and width.
        device: where to compute.
    """

    def __init__(
        self,
        teacher: str,
        student: str,
        distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        new: int,
        old: int,
        image: tuple[int, int, int],
        device: torch.device,
    ):
        from lra.networks import build

        self.teacher = build(teacher, 10, image).to(device).eval().requires_grad_(False)
        self.student = build(student, 10, image).to(device).train()
        self.distance = distance
        self.images = torch.rand(new + old, *image).to(device)
        self.new = new
        self.answers = torch.randn(old, 10).to(device)
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def train(self, steps: int) -> None:
        """Take this many student steps."""
        for _ in range(steps):
            with torch.no_grad():
                answers = torch.cat([self.teacher(self.images[: self.new]), self.answers])
            loss = self.distance(self.student(self.images), answers).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()


class TimedRun:
    """A run of photographs, 3x32x32 in ten classes, without a data set.

    Args:
        settings: its configuration; a teacher not given as a file has random weights.
        tests: images to evaluate on.
    """

    def __init__(self, settings: Mapping[str, Any], tests: int):
        from lra.benchmarks.setup.config import RunConfig
        from lra.benchmarks.setup.datasets import Labelled, data_set
        from lra.benchmarks.setup.experiment import prepare
        from lra.benchmarks.setup.resolution import resolve
        from lra.state import seed_everything

        published = {"scale": "published"} if "scale" in RunConfig.model_fields else {}
        config = resolve([published | {"data": "cifar10"}, dict(settings)])
        self.config, self.data = config, data_set("cifar10")
        self.device = torch.device(config.device)
        seed_everything(0)
        images = torch.randint(256, (tests, 3, 32, 32), dtype=torch.uint8)
        self.test = Labelled(images, torch.randint(10, (tests,)))
        built = prepare(config, self.data, self._teacher(), self.test, lambda record: None)
        self.stream, self.strategy = built.stream, built.strategy
        self.evaluation = next(plugin for plugin in self.strategy.plugins if type(plugin).__name__ in EVALUATIONS)
        self.evaluation.every = NEVER
        self.watch = Stopwatch(self.clock)
        for owner, method, part in self._parts():
            self.watch.watch(owner, method, part)
        self.train(1)
        self.evaluate(tests)  # The first one also queries the teacher, if that was not done before.
        self.bare: BareLoop | None = None

    def _teacher(self) -> Any:
        from lra.benchmarks.setup.teachers import obtain
        from lra.networks import build
        from lra.networks.normalized import Normalized

        options = self.config.teacher
        if options.file is not None:
            return obtain(options, self.data, None)
        mean, std = (0.49, 0.48, 0.45), (0.2, 0.2, 0.2)
        network = Normalized(build(options.network, 10, (3, 32, 32)), mean, std)
        answers = torch.randn(len(self.test.classes), 10)
        return SimpleNamespace(network=network, name=options.network, mean=mean, std=std, answers=answers)

    def _parts(self) -> list[tuple[Any, str, str]]:
        strategy, source = self.strategy, self.stream.synthesizer
        found = [(source, "step", "synthesis"), (source, "draw", "drawing"), (self.stream.teacher, "label", "labels")]
        found += [(strategy, name, "student") for name in ("forward", "criterion", "backward", "optimizer_step")]
        for plugin in strategy.plugins:
            if type(plugin).__name__ == "LRA":
                found.append((plugin, "before_backward", "student"))
            if hasattr(plugin, "recall"):
                found.append((plugin, "recall", "drawing"))
            if hasattr(plugin, "memory"):
                found.append((plugin.memory, "update", "memory"))
        return found

    def clock(self) -> float:
        """Seconds since some fixed time, when all work on the device is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def train(self, experiences: int) -> dict[str, Any]:
        """Train on this many more experiences, timed."""
        self.watch.spent.clear()
        steps, start = self.strategy.clock.train_iterations, self.clock()
        self.stream.length = self.stream.position + experiences
        self.strategy.train(self.stream)
        seconds, parts = self.clock() - start, {part: self.watch.spent[part] for part in PARTS}
        return {"seconds": seconds, "steps": self.strategy.clock.train_iterations - steps, "parts": parts}

    def evaluate(self, images: int) -> dict[str, float]:
        """Time an evaluation on ``images``: passes over test images count in proportion, everything else once.

        Raises:
            RuntimeError: if the images do not go through the strategy's forward pass.
        """
        self.watch.spent.clear()
        seconds, passes = self._seconds(lambda: self.strategy.eval(self.evaluation.stream)), self.watch.spent["student"]
        if not passes:
            raise RuntimeError("the passes of an evaluation do not go through the strategy's forward pass")
        return {"seconds": seconds + passes * (images / len(self.test.classes) - 1)}

    def flops(self, experiences: int) -> dict[str, float]:
        """Count the operations of this many more experiences."""
        from torch.utils.flop_counter import FlopCounterMode

        steps = self.strategy.clock.train_iterations
        with FlopCounterMode(display=False) as counter:
            self.train(experiences)
        return {"flops": counter.get_total_flops(), "steps": self.strategy.clock.train_iterations - steps}

    def plain(self, steps: int) -> dict[str, float]:
        """The bare loop on the same numbers of images; the first call warms it up."""
        if self.bare is None:
            parts, whole = (self.strategy.acquired, self.strategy.replayed), self.config.schedule.batch_size
            new, old = (0 if part is None else len(part.images) for part in parts)
            # Replayed images of a pool are labelled anew.
            new, old = (whole, 0) if new < whole else (new, old)
            names, distance = (self.config.teacher.network, self.config.student.network), self.strategy.objective
            self.bare = BareLoop(*names, distance.distance, new, old, (3, 32, 32), self.device)
            self.bare.train(1)
        bare = self.bare
        return {"seconds": self._seconds(lambda: bare.train(steps)), "steps": steps}

    def product(self, side: int) -> dict[str, float]:
        """Operations per second of a matrix product, in the precision of the student's passes."""
        kind = getattr(torch, self.config.student.precision)
        a, b = (torch.randn(side, side, device=self.device).to(kind) for _ in range(2))
        a @ b
        return {"flops": 2 * side**3 / self._seconds(lambda: a @ b)}

    def _seconds(self, work: Callable[[], object]) -> float:
        start = self.clock()
        work()
        return self.clock() - start


EVALUATIONS = ("Evaluation", "EvaluationCadence")
"""Names that the evaluating plugin has had."""


def main() -> None:
    """Answer line by line."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    with suppress(ImportError):  # Earlier versions do not have it.
        from lra.benchmarks.runs.machine import keep_freed_memory

        keep_freed_memory()
    run: Any = None
    for line in sys.stdin:
        ((what, value),) = json.loads(line).items()
        if what == "build":
            run = None
            run = TimedRun(**value)
            found: dict[str, Any] = {"synthesis": run.config.synthesis, "schedule": run.config.schedule.model_dump()}
        else:
            asked = {"train": "train", "evaluate": "evaluate", "flops": "flops", "bare": "plain", "product": "product"}
            found = getattr(run, asked[what])(value)
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
