"""Every strategy on split digits over seeds, as a Markdown page.

    python -m lra.benchmarks.increment.study --seeds 5

Finished results are read from their folders, so that a study that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lra.benchmarks.comparison.comparison_table import interval, p_value
from lra.benchmarks.comparison.estimates import estimate, paired
from lra.benchmarks.increment.configuration import configuration
from lra.benchmarks.increment.experiment import run


class Row(NamedTuple):
    """One line of the table."""

    strategy: str
    meta: bool = False
    settings: tuple[str, ...] = ()
    against: str = "naive"

    @property
    def label(self) -> str:
        """As the table names it."""
        return " + ".join([self.strategy, *(["meta"] if self.meta else []), *self.settings])


ROWS = (
    Row("naive", against=""),
    Row("lwf"),
    Row("avalanche-generative"),
    Row("generative"),
    Row("generative", against="avalanche-generative"),
    Row("generative", meta=True, against="generative"),
    Row("generative", settings=("triplet=0.1",), against="generative"),
    Row("rgal", against="generative"),
    Row("rgal", meta=True, against="rgal"),
    Row("generative", settings=("bn=0",), against="generative"),
    Row("buffer"),
    Row("joint"),
)
"""Upper bounds last; the rows before them keep no real image."""

MEASURES = {"accuracy": "accuracy, end (%)", "average_incremental_accuracy": "average incremental (%)"}

Found = Mapping[int, Mapping[str, Any]]
"""Results by seed."""


def cells(row: Row, found: Found, baseline: Found | None) -> list[str]:
    """The line of a row."""

    def values(measure: str, results: Found = found) -> dict[int, float]:
        return {seed: result[measure] for seed, result in results.items()}

    each = [interval(estimate(list(values(name).values())), 2) for name in MEASURES]
    forgotten = interval(estimate(list(values("forgetting").values())), 2)
    difference = paired(values("accuracy"), values("accuracy", baseline)) if baseline else None
    compared = [interval(difference.estimate, 2, "+"), p_value(difference)] if difference else ["—", "—"]
    seconds = sum(result["cost"]["seconds"] for result in found.values()) / len(found)
    return [row.label, *each, forgotten, row.against, *compared, f"{seconds:.0f}"]


def page(seeds: int, steps: int, out: Path) -> str:
    """Do what is missing, and write down all of it."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in range(seeds):
        for row in ROWS:
            given = {"strategy": row.strategy, "seed": seed, "steps": steps}
            config = configuration(given, row.settings, row.meta)
            result, _ = run(config, out, lambda line: None)
            results.setdefault(row.label, {})[seed] = result
            print(f"seed {seed}, {row.label}: {result['accuracy']:.2f} %", file=sys.stderr, flush=True)
    head = ["", *MEASURES.values(), "forgetting (points)", "against", "difference, end", "p", "seconds"]
    lines = [head, ["---", *["---:"] * 3, "---", *["---:"] * 3]]
    lines += [cells(row, results[row.label], results.get(row.against)) for row in ROWS]
    matrix = results["generative"][0]["accuracy_matrix"]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + [""] + [str(row) for row in matrix]) + "\n"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="per experience")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()
    print(page(given.seeds, given.steps, given.out), end="")


if __name__ == "__main__":
    main()
