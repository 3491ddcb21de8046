"""Numbers that papers report, to stand beside ours: ``published.yaml``, a list of entries

    {method, teacher, student, dataset, value, mean, variance, source}

``value`` is the best accuracy over epochs; ``mean`` and ``variance``, of few papers, are over all epochs. ``method`` is
one of ours (``predfkd``), with its retention (``predfkd+memory+meta``), or a preset (``lra-mb``).
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.records import Record, flatten, pick

COLUMNS = {"accuracy": "value", "max": "value", "mean": "mean", "variance": "variance"}
"""Column of a comparison to key of an entry."""


def published(group: Group, column: str) -> tuple[float, str] | None:
    """The published number of a configuration in a column, and where it stands; most columns have none."""
    if column not in COLUMNS:
        return None
    key = COLUMNS[column]
    names, result = _names(group.settings), next(iter(group.runs.values())).result
    pair = {
        "teacher": pick(result, "teacher", "name"),
        "student": pick(result, "student", "name"),
        "dataset": result.get("dataset"),
    }
    for entry in _book("published.yaml"):
        same = all(_plain(entry[key]) == _plain(name) for key, name in pair.items())
        if same and key in entry and _plain(entry["method"]) in names:
            return float(entry[key]), entry["source"]
    return None


def _names(found: Record) -> set[str]:
    method, replay, meta = found.get("method"), found.get("replay.name"), bool(found.get("meta.enabled"))
    names = {_plain(f"{method}+{replay}" + ("+meta" if meta else ""))}
    if replay == "none" and not meta:
        names.add(_plain(method))
    presets = _book("presets.yaml")["presets"]
    return names | {_plain(name.split("/")[0]) for name, preset in presets.items() if _is(found, preset)}


def _is(found: Record, preset: Record) -> bool:
    """Whether a configuration is what a preset stands for, as far as the paper's name goes."""
    sections = {key: preset.get(key, default) for key, default in (("replay", "none"), ("data", "digits"))}
    names = {key: part.get("name") if isinstance(part, dict) else part for key, part in sections.items()}
    wanted = {"method": preset.get("method"), "replay.name": names["replay"], "data.name": names["data"]}
    wanted |= dict(flatten(preset.get("synthesis"), "synthesis")) if preset.get("synthesis") else {}
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and bool(found.get("meta.enabled")) == bool(preset.get("meta"))


@cache
def _book(name: str) -> Any:
    return yaml.safe_load((files("lra.benchmarks") / name).read_text())


def _plain(name: object) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum() or c == "+")
