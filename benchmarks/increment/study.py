"""Every strategy on split digits over seeds, as a Markdown page; or the main ones on another benchmark.

    python -m lra.benchmarks.increment.study --seeds 5
    python -m lra.benchmarks.increment.study --seeds 5 --benchmark split-cifar10 --steps 300 --device cuda

Finished results are read from their folders, so that a study that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lra.benchmarks.comparison.estimates import estimate, paired
from lra.benchmarks.comparison.tables import interval, p_value
from lra.benchmarks.errors import LraError
from lra.benchmarks.increment.configuration import configuration
from lra.benchmarks.increment.experiment import run
from lra.benchmarks.text import markdown_table

Result = Mapping[str, Any]
"""What `run` gives."""


class Row(NamedTuple):
    """One line of the table, and the one it is compared with, seed by seed."""

    strategy: str
    meta: bool = False
    settings: tuple[str, ...] = ()
    against: str = "naive"
    steps: int | None = None
    """Per experience, where it is not what the command takes."""

    @property
    def label(self) -> str:
        """How the table names it."""
        return " ".join([self.strategy, *(["+ meta"] if self.meta else []), *self.settings]) + self._budget

    @property
    def baseline(self) -> str:
        """The label of the row it is compared with, at as many steps."""
        return self.against + self._budget

    @property
    def _budget(self) -> str:
        return "" if self.steps is None else f", {self.steps} steps"


FITTED = ("align_steps=300",)
"""What keeps the moments of each class's features too."""

STEADY = ("distil_features=0.03", "balanced=true")
"""What holds features where they were, and shows every class as often."""

ALIGNED = FITTED + STEADY
"""Both."""

AUGMENTED = ("augment=1",)
"""Real images in slightly different positions in every step."""


def _of(strategy: str, settings: tuple[str, ...]) -> str:
    return Row(strategy, settings=settings).label


ROWS = (
    Row("naive", against=""),
    Row("lwf"),
    Row("avalanche-generative"),
    Row("avalanche-generative", settings=("vae_latent=16",), against="avalanche-generative"),
    Row("avalanche-generative-plugin"),
    Row("generative"),
    Row("generative", against="avalanche-generative-plugin"),
    Row("generative", against="avalanche-generative"),
    Row("generative", meta=True, against="generative"),
    Row("generative", settings=("distil_new=0",), against="generative"),
    Row("generative", settings=("bn=0",), against="generative"),
    Row("generative", settings=FITTED, against="generative"),
    Row("generative", settings=STEADY, against="generative"),
    Row("generative", settings=ALIGNED, against="generative"),
    Row("generative", settings=ALIGNED, against="avalanche-generative"),
    Row("generative", meta=True, settings=ALIGNED, against=_of("generative", ALIGNED)),
    Row("rgal", settings=ALIGNED, against=_of("generative", ALIGNED)),
    Row("avalanche-generative", settings=AUGMENTED, against="avalanche-generative"),
    Row("generative", settings=ALIGNED + AUGMENTED, against=_of("generative", ALIGNED)),
    Row("generative", settings=ALIGNED + AUGMENTED, against=_of("avalanche-generative", AUGMENTED)),
    Row("generative", settings=ALIGNED + AUGMENTED, against="avalanche-generative"),
    Row("rgal", against="generative"),
    Row("rgal", meta=True, against="rgal"),
    Row("buffer"),
    Row("joint"),
    Row("joint", settings=AUGMENTED, against="joint"),
)
"""The last three keep real images."""

BUDGETS = tuple(
    row
    for steps in (50, 100)
    for row in (
        Row("naive", against="", steps=steps),
        Row("avalanche-generative", steps=steps),
        Row("generative", steps=steps),
        Row("generative", against="avalanche-generative", steps=steps),
    )
)
"""Fewer steps of the model than the command takes."""

CONTEST = (
    Row("naive", against=""),
    Row("avalanche-generative"),
    Row("generative", settings=ALIGNED),
    Row("generative", settings=ALIGNED, against="avalanche-generative"),
    Row("avalanche-generative", settings=AUGMENTED, against="avalanche-generative"),
    Row("generative", settings=ALIGNED + AUGMENTED, against=_of("generative", ALIGNED)),
    Row("generative", settings=ALIGNED + AUGMENTED, against=_of("avalanche-generative", AUGMENTED)),
)
"""What more seeds are spent on: Avalanche's strategy varies so much that a few cannot say how far it is behind."""

MORE = 4
"""Times as many seeds, the others' included."""

ELSEWHERE = (
    Row("naive", against=""),
    Row("avalanche-generative-plugin"),
    Row("avalanche-generative"),
    Row("generative"),
    Row("generative", settings=ALIGNED),
    Row("generative", settings=ALIGNED, against="avalanche-generative"),
    Row("generative", settings=ALIGNED, against="buffer"),
    Row("buffer"),
    Row("joint"),
    Row("joint", against=_of("generative", ALIGNED)),
)
"""Runs on a benchmark other than the digits."""

COMMAND = "python -m lra.benchmarks.increment.study"

NOTES = (
    "Forgetting is Avalanche's, first minus last. Intervals are of the mean over seeds (95 %, BCa bootstrap from five "
    "on); differences are paired by seed, p of the two-sided sign-flip test, which with five pairs is 0.062 at the "
    "least. Strategies buffer and joint keep real images; avalanche-generative teaches an autoencoder the real images "
    "as they pass; avalanche-generative-plugin has the same autoencoder and nothing that teaches it; the others keep "
    "none, though align_steps keeps mean and covariance of each class's features. Seconds are wall time, on a machine "
    "that may have been shared."
)

BUDGET_NOTES = (
    "The model's steps in every experience, and those of Avalanche's autoencoder; data-free replay trains its "
    "generator for as many steps as above."
)

MEASURES = {
    "accuracy": "accuracy, end (%)",
    "average_incremental_accuracy": "average incremental (%)",
    "forgetting": "forgetting (points)",
}


def cells(row: Row, found: Mapping[int, Result], baseline: Mapping[int, Result] | None) -> list[str]:
    """The line of a row, from results by seed."""
    each = [interval(estimate([result[name] for result in found.values()]), 2) for name in MEASURES]
    seconds = sum(result["cost"]["seconds"] for result in found.values()) / len(found)
    compared = ["—", "—"]
    if baseline:
        ends = [{seed: result["accuracy"] for seed, result in results.items()} for results in (found, baseline)]
        difference = paired(*ends)
        assert difference is not None
        compared = [interval(difference.estimate, 2, "+"), p_value(difference)]
    return [row.label, *each, row.against, *compared, f"{seconds:.0f}"]


def page(given: Mapping[str, object], seeds: int, out: Path) -> str:
    """Do what is missing, and write down all of it; ``given`` is what goes into every configuration beside."""
    results = _results(ROWS + BUDGETS, given, seeds, out)
    contest = _results(CONTEST, given, MORE * seeds, out)
    parts = [
        "# Split digits, class-incremental",
        f"    {COMMAND} --seeds {seeds}",
        _intro(results, seeds),
        _table(ROWS, results),
        NOTES,
        f"## {MORE * seeds} seeds",
        _table(CONTEST, contest),
        "## Fewer steps",
        BUDGET_NOTES,
        _table(BUDGETS, results),
    ]
    return "\n\n".join(parts) + "\n"


def section(given: Mapping[str, object], seeds: int, out: Path) -> str:
    """The main strategies on the benchmark that is ``given``, with whatever else goes into every configuration."""
    results = _results(ELSEWHERE, given, seeds, out)
    options = " ".join(f"--{name} {value}" for name, value in given.items())
    parts = (f"    {COMMAND} --seeds {seeds} {options}", _intro(results, seeds), _table(ELSEWHERE, results))
    return "\n\n".join(parts) + "\n"


def _intro(results: Mapping[str, Mapping[int, Result]], seeds: int) -> str:
    first = results["generative"][0]
    settings, ran = first["config"], first["environment"]
    return (
        f"Average test accuracy over all classes, one head, {settings['experiences']} experiences of "
        f"{settings['steps']} steps with {settings['model']}; {seeds} seeds, each with its own order of classes. "
        f"{ran['cuda'] or 'CPU'}, torch threads: {ran['threads']}, torch {ran['versions']['torch']}."
    )


def _results(rows: Sequence[Row], given: Mapping[str, object], seeds: int, out: Path) -> dict[str, dict[int, Result]]:
    """By label and seed; ``given`` is what is not as the command has it."""
    results: dict[str, dict[int, Result]] = {}
    for seed in range(seeds):
        for row in rows:
            budget = {"steps": row.steps} if row.steps else {}
            config = configuration({**given, **budget, "strategy": row.strategy, "seed": seed}, row.settings, row.meta)
            result, _ = run(config, out, lambda line: None, quiet=True)
            results.setdefault(row.label, {})[seed] = result
            print(f"seed {seed}, {row.label}: {result['accuracy']:.2f} %", file=sys.stderr, flush=True)
    return results


def _table(rows: Sequence[Row], results: Mapping[str, Mapping[int, Result]]) -> str:
    head = ["", *MEASURES.values(), "against", "difference, end", "p", "seconds"]
    lines = [cells(row, results[row.label], results.get(row.baseline)) for row in rows]
    return markdown_table(head, lines, words=(0, head.index("against")))


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="parent of runs")
    parser.add_argument("--threads", type=int, help="of torch, else by the size of the model: results depend on it")
    parser.add_argument("--benchmark", help="in place of the digits")
    parser.add_argument("--steps", type=int, help="per experience, of another benchmark")
    parser.add_argument("--device", help="likewise")
    given = parser.parse_args()
    told = {} if given.threads is None else {"threads": given.threads}
    asked = {name: value for name in ("benchmark", "steps", "device") if (value := getattr(given, name)) is not None}
    if asked and not given.benchmark:
        parser.error("--steps and --device go with --benchmark: the digits' page has its own")
    try:
        made = section(asked | told, given.seeds, given.out) if asked else page(told, given.seeds, given.out)
        print(made, end="")
    except LraError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
