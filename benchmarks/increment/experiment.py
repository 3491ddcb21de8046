"""One strategy on one class-incremental benchmark, from its options to ``result.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.files import held, write_json
from lra.benchmarks.increment.configuration import IncrementConfig, checked
from lra.benchmarks.progress import Progress, at_steps, loading
from lra.benchmarks.runs.machine import environment, threads_for
from lra.benchmarks.setup.datasets import DataSet
from lra.benchmarks.setup.networks import network_size
from lra.networks import build
from lra.strategies.increment.strategies import DATA_FREE, STRATEGIES, Plan


def run(
    config: IncrementConfig, out: Path, tell: Callable[[str], object], quiet: bool = False
) -> tuple[dict[str, Any], Path]:
    """Train and test; a result that is there already is read instead.

    Args:
        config: what to do.
        out: parent of result folders.
        tell: called with a line on each experience, or on a result that was there.
        quiet: nothing else on stderr.

    Returns:
        the content of ``result.json``, and its folder.

    Raises:
        UsageError: for a configuration that makes no sense, a folder that cannot be written to, or a damaged result.
        MissingInput: for data that are not there.
        LraError: if the LRA step cannot be taken, or another process does the same.
    """
    data = checked(config)
    folder = config.folder(out, data)
    file = folder / "result.json"
    if file.is_file():
        tell(f"lra-bench: finished before, nothing to train: {folder}")
    else:
        data.require()
        with held(folder / ".lock", f"{folder} is in use by another process: wait for it or stop it"):
            if not file.is_file():
                for note in data.notes:
                    tell(note)
                write_json(file, _result(config, data, tell, quiet))
    try:
        return json.loads(file.read_text()), folder
    except ValueError:
        raise UsageError(f"{file} is damaged: delete it to run again") from None


def _result(config: IncrementConfig, data: DataSet, tell: Callable[[str], object], quiet: bool) -> dict[str, Any]:
    with nullcontext() if quiet else loading("torch", "avalanche"):
        import torch

        from lra.images import unit
        from lra.meta.checks import MetaStepError
        from lra.networks.normalized import Normalized
        from lra.state import seed_everything
        from lra.strategies.increment.benchmark import ClassIncrementalProtocol, growing, split

    train, test = data.load("train"), data.load("test")
    config = _threaded(config, data)
    seed_everything(config.seed)
    order = torch.randperm(data.classes).tolist()
    start, protocol = time.perf_counter(), ClassIncrementalProtocol()
    try:
        network = build(config.model, data.classes // config.experiences, data.image)
        # Nothing of classes that are still to come: not even their mean.
        grey = [0.5] * data.image[0]
        model = growing(Normalized(network, grey, grey), data.classes // config.experiences, data.image)
        benchmark = split(
            (unit(train.images), train.classes), (unit(test.images), test.classes), order, config.experiences
        )
        plan = Plan(model, data.image, config.steps, config.options, protocol.evaluator, torch.device(config.device))
        strategy = STRATEGIES[config.strategy](plan)
        with _Steps(config, quiet) as steps:

            def told(row: list[float]) -> None:
                steps.learnt(len(row))
                steps.progress.clear()
                tell(line(row, config.experiences))

            scores = protocol.train_and_test(strategy, benchmark, told)
    except MetaStepError as error:
        raise LraError(f"{config.strategy} with --meta: {error}; alpha is set by --set alpha=...") from None
    except ValueError as error:
        raise UsageError(f"{config.benchmark}, {config.strategy}, {config.model}: {error}") from None
    return {
        "schema": 1,
        "config": config.model_dump(mode="json"),
        "meta": config.meta,
        "class_order": order,
        "accuracy_matrix": scores.matrix,
        "accuracy": scores.accuracy,
        "average_incremental_accuracy": scores.average_incremental,
        "forgetting": scores.forgetting,
        "forgetting_from_best": scores.forgetting_from_best,
        "cost": {"seconds": time.perf_counter() - start, "generator_steps": scores.generator_steps},
        "environment": environment(),
    }


class _Steps:
    """Progress in steps of optimisers, of the model's and of what replays."""

    def __init__(self, config: IncrementConfig, quiet: bool):
        options, steps = config.options, config.steps
        first = steps * (2 if config.strategy == "avalanche-generative" else 1)
        more = options.generator_steps + options.align_steps if config.strategy in DATA_FREE else 0
        self.planned = [first, *[first + more] * (config.experiences - 1)]
        self.experience = self.taken = 0
        self.progress = Progress(sum(self.planned), "steps", config.strategy, quiet)

    def __enter__(self) -> _Steps:
        self.progress.show(0)
        self.watch = at_steps(self._step)
        self.watch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.watch.__exit__(None, None, None)
        self.progress.close()

    def learnt(self, experiences: int) -> None:
        """So many experiences are over."""
        self.experience, self.taken = experiences, 0
        self.progress.done = sum(self.planned[:experiences])

    def _step(self, optimiser: object) -> None:
        self.taken += 1
        if self.progress.due():
            within = min(self.taken, self.planned[self.experience])
            where = f"experience {self.experience + 1}/{len(self.planned)}"
            self.progress.show(sum(self.planned[: self.experience]) + within, where)


def _threaded(config: IncrementConfig, data: DataSet) -> IncrementConfig:
    """``config`` with a number of threads, by the size of its model unless it has one; torch takes as many."""
    import torch

    work = network_size("--model", config.model, data).work * config.options.minibatch
    threads = config.threads or threads_for(work, config.device)
    torch.set_num_threads(threads)
    return config.model_copy(update={"threads": threads})


def line(row: list[float], experiences: int) -> str:
    """A row of the accuracy matrix to be read."""
    each = " ".join(f"{accuracy:5.1f}" for accuracy in row)
    return f"after {len(row)}/{experiences} experiences: {sum(row) / len(row):5.1f} %  ({each})"


def table(result: dict[str, Any], folder: Path) -> str:
    """A result to be read."""
    config, rows = result["config"], result["accuracy_matrix"]
    meta = " + LRA step" if result["meta"] else ""
    return "\n".join(
        [
            f"{config['strategy']}{meta} on {config['benchmark']}, {config['experiences']} experiences, "
            f"{config['steps']} steps each, {config['model']}, seed {config['seed']}",
            *(line(row, config["experiences"]) for row in rows),
            f"average accuracy at the end      {result['accuracy']:6.2f} %",
            f"average incremental accuracy     {result['average_incremental_accuracy']:6.2f} %",
            f"forgetting (first minus last)    {result['forgetting']:6.2f} points",
            f"time                             {result['cost']['seconds']:6.1f} s, "
            f"{result['cost']['generator_steps']} generator steps",
            f"result                           {folder / 'result.json'}",
        ]
    )
