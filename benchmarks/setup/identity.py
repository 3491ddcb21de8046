"""What a run folder says of its run: the configuration it was made with, and what makes it the one it is.

That is content: settings, teacher, test data, code, and what it starts from. Where things lie and what they are called
is no part of it, so that a run can be moved, and so can what it is made of.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import MissingInput, UsageError, concerning
from lra.benchmarks.records import flatten
from lra.benchmarks.setup.config import Identity, RunConfig
from lra.benchmarks.setup.resolution import file_layer, importing, origin, restored
from lra.benchmarks.setup.user_code import identities

RECORD = "identity.json"
"""The file of a run folder that says it."""

PARTS = ("settings", "teacher", "test", "data", "code", "carry")


def stored_configuration(folder: Path) -> RunConfig:
    """The configuration that a run folder was made with.

    Raises:
        MissingInput: if the folder is not a run's.
        UsageError: if this program cannot use it, or code that it names has changed.
    """
    file = folder.absolute() / "config.yaml"
    if not file.is_file():
        raise MissingInput(f"{file} does not exist: give the folder of one run, not of several")
    stored = file_layer(file)
    with concerning(origin("config", file)):
        config = restored(stored)
    config = importing(config)
    before, code = recorded(file.parent), {"code": identities(config.tree())}
    if before is not None and (other := difference({"code": before.get("code", {})}, code)):
        raise UsageError(f"{folder}: {other}, or begin anew with lra-bench run --config {file}")
    return config


def recorded(folder: Path) -> Identity | None:
    """What the run in ``folder`` was made of, if it says so in a form that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def difference(before: Identity, now: Identity) -> str | None:
    """The first thing that is not as it was when a run began, with the remedy; ``None`` if it is the same run."""
    for part in PARTS:
        old, new = before.get(part), now.get(part)
        if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            return _said(part, old, new)
    return None


def _said(part: str, old: object, new: object) -> str:
    since = "since the run began: put {} back to go on"
    if part == "teacher":
        back = since.format("its file, or what it was trained on,")
        return f"the teacher changed (sha256 {str(old)[:8]}, and {str(new)[:8]} now) {back}"
    if part in ("test", "data"):
        return f"the {'test ' if part == 'test' else ''}data changed {since.format('them')}"
    if part == "code":
        gone = [name for name in _mapping(old) if name not in _mapping(new)]
        edited = [name for name, digest in _mapping(new).items() if _mapping(old).get(name) != digest]
        if edited:
            return f"module {edited[0]} changed {since.format('it')}"
        return f"module {', '.join(gone)}, which the run began with, is not found: go to the folder it lies in"
    olds, news = dict(flatten(_mapping(old))), dict(flatten(_mapping(new)))
    key = next((key for key in [*olds, *news] if olds.get(key) != news.get(key)), part)
    if part == "carry":
        return f"the file of carry.{key} changed {since.format('it')}"
    return f"{key} changed from {olds.get(key)!r} to {news.get(key)!r} {since.format('it')}"


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
