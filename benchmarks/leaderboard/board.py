"""Rows of the leaderboard, in CSV files beside this module: results of configurations, and how to measure them again.

Each file is from one sweep. A row is named by its file and its own name there, such as ``digits/predfkd+memory``. Rows
may be anybody's, so that everything in a file is checked before it is used, and wrong ones are refused in one line.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lra.benchmarks.errors import MissingInput, UsageError, concerning, one_line, suggestion
from lra.benchmarks.files import write_text
from lra.benchmarks.setup.layers import explain
from lra.benchmarks.text import counted, number_text
from lra.metrics.quantities import QUANTITIES, Quantity
from lra.options import Count, NonNegative, Options, Seed

FOLDER = Path(str(files("lra.benchmarks") / "leaderboard"))
"""The folder of the files."""

Percent = Annotated[float, Field(ge=0, le=100)]
Words = Annotated[str, Field(max_length=4000)]


class Row(Options):
    """A configuration and its result; the fields are the columns of a file, in order."""

    name: Annotated[str, Field(pattern=r"^[\w.,:=+-]{1,200}$")]
    """Its name within the file."""
    method: Words
    """How samples are made; for increments, the strategy."""
    replay: Words = ""
    """The replay; empty for increments."""
    meta: bool
    """Whether the LRA step is taken."""
    teacher: Words = ""
    """The teacher's network; empty for increments."""
    student: Words
    """The student's network."""
    dataset: Words
    """The test data; for increments, ``split-`` and the data set's name."""
    steps: Count
    """The budget in student steps."""
    quantity: Words = "accuracy"
    """The measured quantity, in percent: a name in `lra.metrics.quantities.QUANTITIES`."""
    seeds: tuple[Seed, ...]
    """Seeds of the runs, separated by blanks."""
    mean: Percent
    """Mean of the quantity over the seeds."""
    sd: NonNegative | None = None
    """Its standard deviation over the seeds (n - 1); empty for one seed, and where the source has none."""
    low: float | None = None
    """Lower end of the mean's 95 % interval (`lra.benchmarks.comparison.estimates.estimate`); empty for one seed."""
    high: float | None = None
    """Upper end of that interval."""
    seconds: NonNegative | None = None
    """Wall clock of a run, the mean over the seeds; empty if not known."""
    hardware: Words = ""
    """The hardware on which the seconds were measured."""
    source: Words
    """Where the numbers are from: a page of this repository, or the grid of the sweep."""
    version: Words
    """Version of this program that measured it; if the source is a page, the commit that added the numbers."""
    hash: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    """Hash of the resolved configuration, without the seed and with teacher and data by name."""
    command: Words
    """The command for a run of this configuration, without the seed."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _apart(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        in_percent(self.quantity)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each once, such as 0 1 2")
        several, given = len(self.seeds) > 1, (self.low is not None, self.high is not None)
        if given != (several, several) or (self.sd is not None and not several):
            raise ValueError("low, high: an interval of several seeds, and neither it nor sd of one")
        if self.low is not None and self.high is not None and not self.low <= self.mean <= self.high:
            raise ValueError(f"mean = {self.mean}: it is not in the interval from {self.low} to {self.high}")
        return self

    @property
    def measured(self) -> Quantity:
        """The measured quantity."""
        return in_percent(self.quantity)

    def first(self, count: int) -> list[int]:
        """The first ``count`` seeds: the row's own, in its order, then the next ones."""
        own = list(self.seeds[:count])
        return own + list(range(max(self.seeds) + 1, max(self.seeds) + 1 + count - len(own)))

    @property
    def interval(self) -> str:
        """Mean and interval, as comparisons write them."""
        mean, low, high = (number_text(value, self.measured.digits) for value in (self.mean, self.low, self.high))
        return mean if self.low is None or low == high else f"{mean} [{low}, {high}]"

    @property
    def cell(self) -> str:
        """Method, replay and LRA step in short."""
        return "+".join(filter(None, [self.method, self.replay, "meta" if self.meta else ""]))

    @property
    def setting(self) -> str:
        """Data, networks and budget in short."""
        pair = f"{self.teacher} to {self.student}" if self.teacher else self.student
        return f"{self.dataset}, {pair}, {self.steps:,} steps"

    @property
    def summary(self) -> str:
        """The row in one line."""
        seeds = counted(len(self.seeds), "seed")
        return f"{self.measured.heading} {self.interval}, {seeds}; {self.setting}"


def in_percent(name: str) -> Quantity:
    """The quantity of that name; `UsageError` unless there is one and its unit is percent."""
    known = {one.name: one for one in QUANTITIES.values() if one.unit == "%"}
    if name not in known:
        raise UsageError(f"quantity {name!r} is not in percent; {suggestion(name, known)}")
    return known[name]


def board() -> dict[str, Row]:
    """All rows by name, file by file.

    Raises:
        UsageError: for an invalid file.
    """
    return {name: row for file in sorted(FOLDER.glob("*.csv")) for name, row in read(file).items()}


def found(name: str, rows: dict[str, Row]) -> Row:
    """The row of that name; `UsageError` if there is none."""
    if name not in rows:
        raise UsageError(f"unknown row {name!r}; {suggestion(name, rows, 'lra-bench list leaderboard')}")
    return rows[name]


def read(file: Path) -> dict[str, Row]:
    """The rows of a file by name.

    Raises:
        MissingInput: if it does not exist.
        UsageError: for a wrong or missing column, an invalid value, or a duplicate row.
    """
    if not file.is_file():
        raise MissingInput(f"leaderboard {file} does not exist: check the path")
    rows: dict[str, Row] = {}
    cells: dict[tuple[str, str], str] = {}
    with concerning(f"leaderboard {file}"):
        for line, row in _rows(file):
            name = f"{file.stem}/{row.name}"
            if name in rows:
                raise UsageError(f"line {line}: row {row.name!r} appears twice: leave one of them out")
            other = cells.setdefault((row.hash, row.quantity), row.name)
            if other != row.name:
                raise UsageError(f"line {line}: {row.name!r} is the cell of {other!r} again: leave one of them out")
            rows[name] = row
    return rows


def _rows(file: Path) -> Iterable[tuple[int, Row]]:
    """Rows with the lines on which they end."""
    try:
        reader = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        head = list(reader.fieldnames or [])
        lines = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"it cannot be read as CSV ({one_line(error)})") from None
    columns = Row.model_fields
    for name in head:
        if name not in columns:
            raise UsageError(f"unknown column {name!r}; {suggestion(name, columns)}")
        if head.count(name) > 1:
            raise UsageError(f"column {name!r} appears twice: leave one of them out")
    if lacking := [name for name in columns if name not in head]:
        raise UsageError(f"column {lacking[0]!r} is missing; a file has {', '.join(columns)}")
    for line, cells in lines:
        with concerning(f"line {line}"):
            if None in cells or None in cells.values():
                raise UsageError(f"it has {'more' if None in cells else 'fewer'} cells than the {len(head)} columns")
            if empty := [name for name, column in columns.items() if column.is_required() and not cells[name]]:
                raise UsageError(f"{empty[0]} is empty: fill it in")
            try:
                row = Row.model_validate({name: text for name, text in cells.items() if text})
            except ValidationError as error:
                raise UsageError(explain(error, "", Row).removeprefix(": ")) from None
        yield line, row


def write(file: Path, rows: Iterable[Row]) -> None:
    """Write rows into a file, atomically."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Row.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_texts(row) for row in rows)
    write_text(file, out.getvalue())


def _texts(row: Row) -> dict[str, str]:
    digits = dict.fromkeys(("mean", "sd", "low", "high"), row.measured.digits) | {"seconds": 1}
    texts = {name: "" if value is None else str(value) for name, value in row.model_dump().items()}
    rounded = {name: f"{getattr(row, name):.{places}f}" for name, places in digits.items() if texts[name]}
    return texts | rounded | {"seeds": " ".join(map(str, row.seeds)), "meta": str(row.meta).lower()}


@dataclass(frozen=True)
class Verdict:
    """Whether other seeds agree with a row.

    Attributes:
        n: number of these seeds.
        mean: of the row's quantity over them.
        sd: its standard deviation, ``None`` for one seed.
        low, high: where 95 % of such means lie if they are of the row's configuration; ``None`` if unknown.
        agrees: whether the mean lies there; ``None`` if unknown.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    agrees: bool | None

    def __str__(self) -> str:
        """The verdict in words."""
        if self.agrees is None:
            return "undecided: one seed on either side does not say how far seeds scatter; give more with --seeds"
        where = f"[{number_text(self.low, 2)}, {number_text(self.high, 2)}], where 95 % of such means lie"
        said = f"agrees: {number_text(self.mean, 2)} is in" if self.agrees else f"differs: {self.mean:.2f} is not in"
        return f"{said} {where}"


def verdict(row: Row, values: Sequence[float], images: int | None) -> Verdict:
    """Whether new seeds agree with a row.

    The rule is a prediction interval: if the row's n seeds and the new k are independent draws from one normal
    distribution, the mean of the new ones lies within ``mean ± t sd √(1/n + 1/k)`` in 95 % of cases, with t the 97.5 %
    quantile of Student's distribution with n - 1 degrees of freedom. So one honest reproduction in twenty falls outside
    by chance, and a row with few seeds says little. sd is the row's own: new seeds that scatter more do not widen the
    interval. If a row has none, it follows from the interval (`lra.benchmarks.comparison.estimates.deviation`). A row
    with one seed, or with equal values for all seeds, does not show how seeds scatter: then the new ones are used, with
    k and n exchanged. Seeds that are the row's own share initial weights and order with it, so that they lie closer
    still. No interval is narrower than one test image to either side.

    Args:
        row: the row.
        values: its quantity for each new seed.
        images: number of test images, if known.
    """
    from lra.benchmarks.comparison.estimates import deviation, foreseen

    n, k = len(row.seeds), len(values)
    new, sd = fmean(values), stdev(values) if k > 1 else None
    scatter = row.sd
    if scatter is None and row.low is not None and row.high is not None:
        scatter = deviation(n, row.low, row.high)
    least = 100 / images if images else 0.0
    if scatter is None and sd is None and abs(new - row.mean) > least:
        return Verdict(k, new, sd, None, None, None)
    half = max(foreseen(n, scatter, k) if scatter else foreseen(k, sd, n) if sd else 0.0, least)
    low, high = max(0.0, row.mean - half), min(100.0, row.mean + half)
    # The row is rounded.
    return Verdict(k, new, sd, low, high, low - 0.005 <= new <= high + 0.005)
