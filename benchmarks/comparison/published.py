"""Numbers that papers report, to stand beside ours: ``published.yaml``, a list of entries

    {method, teacher, student, dataset, value, source}

``method`` is one of ours (``predfkd``), with its retention (``predfkd+memory+meta``), or a preset (``lra-mb``);
``metric``, if there, names a column of a comparison, and is ``accuracy`` or ``max`` otherwise.
"""

from functools import cache
from importlib.resources import files

import yaml

from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.records import Record, flatten, number, pick


def published(group: Group, column: str) -> tuple[float, str] | None:
    """The published value of a column for a configuration, and where it stands."""
    names, result = _names(group.settings), next(iter(group.runs.values())).result
    pair = {
        "teacher": pick(result, "teacher", "name"),
        "student": pick(result, "student", "name"),
        "dataset": result.get("dataset"),
    }
    for entry in _entries():
        same = all(_plain(entry.get(key)) == _plain(name) for key, name in pair.items())
        measures = (entry["metric"],) if "metric" in entry else ("accuracy", "max")
        value = number(entry.get("value"))
        if same and value is not None and _plain(entry.get("method")) in names and column in measures:
            return value, str(entry.get("source", ""))
    return None


def _names(found: Record) -> set[str]:
    method, replay, meta = found.get("method"), found.get("replay.name"), bool(found.get("meta.enabled"))
    names = {_plain(f"{method}+{replay}" + ("+meta" if meta else ""))}
    if replay == "none" and not meta:
        names.add(_plain(method))
    presets = _book("presets.yaml").get("presets", {})
    return names | {_plain(name.split("/")[0]) for name, preset in presets.items() if _is(found, preset)}


def _is(found: Record, preset: Record) -> bool:
    """Whether a configuration is what a preset stands for, as far as the paper's name goes."""
    sections = {key: preset.get(key, default) for key, default in (("replay", "none"), ("data", "digits"))}
    names = {key: part.get("name") if isinstance(part, dict) else part for key, part in sections.items()}
    wanted = {"method": preset.get("method"), "replay.name": names["replay"], "data.name": names["data"]}
    wanted |= dict(flatten(preset.get("synthesis"), "synthesis")) if preset.get("synthesis") else {}
    same = all(found.get(key) == value for key, value in wanted.items())
    return same and bool(found.get("meta.enabled")) == bool(preset.get("meta"))


def _entries() -> list[Record]:
    found = _book("published.yaml")
    listed = found if isinstance(found, list) else found.get("entries", [])
    return [entry for entry in listed if isinstance(entry, dict)]


@cache
def _book(name: str) -> Record:
    file = files("lra.benchmarks") / name
    return (yaml.safe_load(file.read_text()) if file.is_file() else None) or {}


def _plain(name: object) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum() or c == "+")
