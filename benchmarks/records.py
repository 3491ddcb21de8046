"""Reading a run folder back, finished or not.

Everything in the folder is treated as untrusted: nothing is executed, values that are not numbers count as missing, and
a file that cannot be read is named in one line with the remedy.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from lra.benchmarks.errors import MissingInput, UsageError, one_line
from lra.metrics.quantities import Quantity, at

STUDENT, AVERAGE, BEST = "student.safetensors", "average.safetensors", "best.safetensors"
"""What a finished run leaves: its student; if kept, the moving average of it, and what it was at its best."""
GENERATOR, REPLAY, SYNTHETIC = "generator.safetensors", "replay.pt", "synthetic.safetensors"
"""What a finished run may leave for later ones: its generator, its replay, the last batch that it synthesised."""
SAMPLES, REPLAYED = "samples", "replayed"
"""Folders of pictures: of what was generated, and of what the replay would show again."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
IMAGE_LIMIT = 4_000_000  # bytes of one sample picture
Record = dict[str, Any]

DISTILLED, INCREMENT, TASKS = "run", "increment", "tasks"
"""Kinds of runs, as these say what they are of; those that distil do not say it."""


def again(kind: str, file: Path) -> str:
    """The command for the run whose configuration is in a file."""
    return f"lra-bench {kind} {'' if kind == TASKS else '--config '}{file}"


class ReportError(UsageError, ValueError):
    """A run folder that cannot be reported on: one line naming the file and the remedy."""


class NoRun(ReportError, MissingInput):
    """The folder does not contain a run."""

    code = MissingInput.code


@dataclass(frozen=True)
class Run:
    """The files of a run folder; an absent file is an empty record."""

    folder: Path
    result: Record = field(default_factory=dict)
    rows: list[Record] = field(default_factory=list)
    matrix: Record = field(default_factory=dict)
    confusion: Record = field(default_factory=dict)
    config: Record = field(default_factory=dict)
    env: Record = field(default_factory=dict)
    teacher: Record = field(default_factory=dict)
    data: Record = field(default_factory=dict)
    identity: Record = field(default_factory=dict)

    def column(self, *keys: str) -> list[float | None]:
        """The number at `keys` in every evaluation, None where there is none."""
        return [number(pick(row, *keys)) for row in self.rows]

    @property
    def kind(self) -> str:
        """The kind of the run."""
        return str(self.config.get("kind", DISTILLED))

    @property
    def evaluated(self) -> bool:
        """Whether it has reached an evaluation."""
        return bool(self.rows or self.result)

    @property
    def untested(self) -> bool | None:
        """Whether its configuration has no test set; ``None`` if unknown."""
        asked = pick(self.config, "data", "test")
        return None if asked is None else asked is False

    @property
    def rollbacks(self) -> list[Record]:
        """Divergences from which it has recovered."""
        found = self.result.get("rollbacks")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def stopped(self) -> str | None:
        """What ended it before its budget was used, in words; ``None`` if nothing did."""
        found = self.result.get("stopped")
        if not isinstance(found, dict):
            return None
        done, whole = number(pick(self.result, "cost", "experiences")), number(found.get("of_experiences"))
        after = "" if done is None or whole is None else f" after {done:,.0f} of {whole:,.0f} experiences"
        return f"{str(found.get('by', 'a plugin'))[:300]}{after}"

    def value(self, quantity: Quantity) -> float | None:
        """The quantity in its result, ``None`` if it is not there."""
        return value(self.result, quantity)

    def latest(self, quantity: Quantity) -> float | None:
        """The quantity in its result or, before it has one, in the records of its evaluations."""
        found = self.value(quantity)
        if found is not None or not quantity.record:
            return found
        there = known(self.column(*quantity.record.split(".")))
        return (fmean(there) if quantity.mean_of_records else there[-1]) if there else None


def read_run(folder: Path) -> Run:
    """Read a run folder, which has at least one of ``result.json`` and ``metrics.jsonl``."""
    if not any((folder / name).is_file() for name in ("result.json", "metrics.jsonl")):
        raise NoRun(f"{folder}: no result.json and no metrics.jsonl there; give the folder of a run")
    if of_increment(folder):
        raise NoRun(
            f"{folder} is a run of lra-bench increment, not of lra-bench run: all there is to see is in its result.json"
        )
    return Run(
        folder=folder,
        result=by_place(_record(folder / "result.json")),
        rows=_rows(folder / "metrics.jsonl"),
        matrix=_record(folder / "forgetting.json"),
        confusion=_record(folder / "confusion.json"),
        config=_record(folder / "config.yaml", yaml.safe_load),
        env=_record(folder / "env.json"),
        teacher=_record(folder / "teacher.json"),
        data=_record(folder / "data.json"),
        identity=_record(folder / "identity.json"),
    )


def parts_of(chain: Run) -> dict[str, str]:
    """The finished tasks of a chain, by name: their folders, from that which all its runs are in.

    Raises:
        ReportError: if what it says of them is damaged.
    """
    found: dict[str, str] = {}
    for row in chain.rows:
        name, folder = row.get("task"), row.get("folder")
        if not isinstance(name, str) or not isinstance(folder, str) or not inner(folder):
            raise ReportError(f"{chain.folder / 'metrics.jsonl'}: damaged; resume the run to write it again")
        found[name] = folder
    return found


def by_place(result: Record) -> Record:
    """A result, that of a run of increments with its numbers where quantities are looked for."""
    if result.get("kind") != INCREMENT:
        return result
    steps = number(pick(result, "config", "steps"))
    rows = [known(row[:done]) for done, row in enumerate(table(result.get("accuracy_matrix")), start=1)]
    curve = [[steps * done, fmean(row)] for done, row in enumerate(rows, start=1) if row] if steps is not None else []
    found = {"final": result.get("accuracy"), "curve": curve}
    return result | {"accuracy": found, "forgetting": {"average": result.get("forgetting")}}


def of_increment(folder: Path) -> bool:
    """Whether a folder holds a result of ``lra-bench increment``, which lie beside those of runs."""
    return not (folder / "config.yaml").is_file() and "accuracy_matrix" in _record(folder / "result.json")


def read_samples(folder: Path, most: int = 12) -> list[tuple[str, bytes]]:
    """Names and bytes of at most `most` pictures, evenly spread in name order from the first to the last."""
    paths = sorted(p for p in folder.glob("*.png") if p.is_file())
    if len(paths) > most:
        paths = [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]
    return [(path.stem, _picture(path)) for path in paths]


def inner(folder: str) -> bool:
    """Whether a path stays where it is appended: the record it is from may be a stranger's."""
    return not Path(folder).is_absolute() and ".." not in Path(folder).parts


def pick(record: object, *keys: str) -> Any:
    """The value under `keys`, one inside the other, or None."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def number(value: object) -> float | None:
    """A finite number, or None; true and false do not count as numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def numbers(value: object) -> list[float | None]:
    """A list of finite numbers with None for every other entry; empty for anything but a list."""
    return [number(v) for v in value] if isinstance(value, list) else []


def table(value: object) -> list[list[float | None]]:
    """A rectangular table of numbers, with short rows padded by None; empty for anything but a list of lists."""
    rows = [numbers(row) for row in value] if isinstance(value, list) else []
    width = max(map(len, rows), default=0)
    return [row + [None] * (width - len(row)) for row in rows]


def known(values: Sequence[float | None]) -> list[float]:
    """The values that are not None."""
    return [v for v in values if v is not None]


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None."""
    there = known(values)
    return fmean(there) if there else None


def value(result: Record, quantity: Quantity) -> float | None:
    """A quantity in a result, ``None`` if that has none."""
    found = at(result, quantity.path)
    if quantity.of_curve is not None:
        return quantity.of_curve([point for point in map(known, table(found)) if len(point) == 2])
    taken = number(at(result, quantity.minus)) if quantity.minus else 0.0
    whole = number(found)
    return None if whole is None or taken is None else whole - taken


def flatten(value: object, prefix: str = "", depth: int = 8) -> Iterator[tuple[str, object]]:
    """Nested mappings as dotted keys with their values, in the form that ``--set`` takes."""
    if isinstance(value, dict) and value and depth:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key), depth - 1)
    else:
        yield prefix, value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: cannot be read ({one_line(error)}); restore it or remove it") from error


def _record(path: Path, parse: Callable[[str], Any] = json.loads) -> Record:
    text = _text(path)
    try:
        value = parse(text) if text else {}
    # The YAML reader raises anything for odd scalars, such as an empty !!int.
    except Exception as error:
        raise ReportError(f"{path}: damaged ({one_line(error)}); resume the run to write it again") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path}: is not a mapping; resume the run to write it again")
    return value


def _rows(path: Path) -> list[Record]:
    lines = _text(path).split("\n")
    rows = []
    for position, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            if position == len(lines):  # no newline yet: the run is writing it, or was stopped while it did
                break
            reason = f"line {position} is damaged ({one_line(error)})"
            raise ReportError(f"{path}: {reason}; remove that line") from error
        if not isinstance(row, dict):
            raise ReportError(f"{path}: line {position} is not a mapping; remove that line")
        rows.append(row)
    return [row for row in rows if row]


def _picture(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(IMAGE_LIMIT + 1)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({one_line(error)}); restore it or remove it") from error
    if not data.startswith(PNG_SIGNATURE) or len(data) > IMAGE_LIMIT:
        raise ReportError(f"{path}: no PNG file of at most {IMAGE_LIMIT:,} bytes; remove it")
    return data
