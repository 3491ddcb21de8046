"""The folder of one run: content-addressed, locked while in use, resumable."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lra.benchmarks.errors import UsageError, one_line
from lra.benchmarks.files import (
    Unreadable,
    clear_drafts,
    held,
    plain_name,
    read_checkpoint,
    write_checkpoint,
    write_text,
)
from lra.benchmarks.records import again, flatten
from lra.benchmarks.setup.config import Identity, Tree, fingerprint

if TYPE_CHECKING:
    from lra.state import State


SCHEMA = 1
"""Version of the schema of ``result.json``."""

IDENTITY = "identity.json"
"""The file that states what identifies a run.

That is content: settings, teacher, test data, code, and what it starts from. Places and names of files are not part of
it, so that a run, and everything it uses, can be moved.
"""

LOCK = ".lock"
"""The lock file of a run's folder, held by the process that works there."""

PARTS = ("settings", "teacher", "test", "data", "code", "carry", "tasks")
"""The parts of an identity, in the order in which they are compared."""

log = logging.getLogger("lra")


class RunFolder:
    """Names and formats of a run's files.

    Args:
        path: the folder; made at the first write.
        identity: of the run, as far as it is known.

    Attributes:
        resumed: the folder that a user is told to resume: this one, or that of the tasks the run is a part of.
    """

    def __init__(self, path: Path, identity: Identity | None = None):
        self.path = self.resumed = path
        self.identity = identity

    @classmethod
    def of(cls, label: str, identity: Identity, seed: int, out: Path) -> RunFolder:
        """The folder under ``out`` that a run always gets.

        Its first part, the ``label``, is for people: an existing run may have another label.
        """
        inner = cls.place(identity, seed)
        place = out / plain_name(label) / inner
        others = [] if place.exists() else sorted(out.glob(f"*/{inner}"))
        return cls(others[0] if others else place, identity)

    @staticmethod
    def place(identity: Identity, seed: int) -> Path:
        """The part of its folder's path, after the label, that distinguishes a run from all others."""
        return Path(fingerprint(identity)) / f"seed-{seed}"

    def refuse_other(self) -> None:
        """Raise `UsageError`, with the first difference, if this is the folder of another run."""
        before = recorded(self.path)
        kind = dict((self.identity or {}).get("settings") or {}).get("kind", "run")
        anew = f"start over with {again(kind, self.path / 'config.yaml')}"
        if before is None and self.path.absolute().parent.name != self.config_hash:
            raise UsageError(f"{self.path} belongs to other data, code or teacher, or to an earlier version: {anew}")
        if before is not None and (other := difference(before, self.identity or {})):
            raise UsageError(f"{self.path}: {other}, or {anew}")

    @property
    def config_hash(self) -> str:
        """The fingerprint of its run."""
        found = self.identity or recorded(self.path)
        return self.path.absolute().parent.name if found is None else fingerprint(found)

    @property
    def result(self) -> dict[str, Any] | None:
        """The finished result, if there is one.

        Raises:
            UsageError: if its file is damaged.
        """
        file = self.path / "result.json"
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_text())
        except (ValueError, RecursionError, OSError):
            found = None
        if not isinstance(found, dict):
            raise UsageError(f"{file} is damaged: delete it to run again")
        return found

    def refuse_unwritable(self) -> None:
        """Raise `UsageError` if this folder cannot be made, before any time is spent on the run."""
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"cannot write to {there}: choose another folder with --out")

    @property
    def checkpoint(self) -> Path:
        """The file of the run's saved state."""
        return self.path / "checkpoint.pt"

    @property
    def before(self) -> Path:
        """The checkpoint before the last one, as a fallback."""
        return self.path / "checkpoint-before.pt"

    @property
    def retreat(self) -> Path:
        """The state to roll back to after a divergence."""
        return self.path / "rollback.pt"

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Lock the folder against other processes, and clean up after killed ones.

        Args:
            wait: wait for another process that holds it.

        Raises:
            UsageError: if it cannot be written to, or a name in it is a link to elsewhere.
            LraError: if another process holds it.
        """
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_symlink():
                raise UsageError(f"{path} is a symbolic link, which a run does not write through: remove it")
        busy = f"run {self.path} is in use by another process: wait for it or stop it"
        with held(self.path / LOCK, busy, wait=(lambda: None) if wait else None):
            clear_drafts(self.path)
            yield

    def write_json(self, name: str, content: object) -> None:
        """Write ``content`` to file ``name``, atomically."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def write_config(self, tree: Tree) -> None:
        """Write the resolved configuration, and the identity of the run.

        Files left by other runs nearby are named relative to it, so that they can be moved together.
        """
        carry = dict(found) if isinstance(found := tree.get("carry"), Mapping) else {}
        for key in ("generator", "replay"):
            if carry.get(key) and Path(carry[key]).is_relative_to(self.path.absolute().parents[2]):
                carry[key] = os.path.relpath(carry[key], self.path.absolute())
        tree = tree | ({"carry": carry} if carry else {})
        if self.identity is not None:
            self.write_json(IDENTITY, self.identity)
        write_text(self.path / "config.yaml", yaml.safe_dump(tree, sort_keys=False))

    def save(self, state: State | memoryview) -> None:
        """Write a checkpoint, atomically; the one before it is kept."""
        write_checkpoint(self.checkpoint, state, self.before)

    def restore(self) -> State | None:
        """The last intact checkpoint, if there is any, read without running anything in it.

        Raises:
            UsageError: if there are checkpoints and none can be used.
        """
        wrong = []
        for file in (self.checkpoint, self.before):
            if file.exists():
                try:
                    state = read_checkpoint(file)
                except Unreadable as error:
                    wrong.append(f"checkpoint {file} {error}")
                    continue
                for complaint in wrong:
                    log.warning("%s: going on from the one before it", complaint)
                return state
        if wrong:
            raise UsageError(f"{' and '.join(wrong)}: delete what is damaged to start the run again")
        return None

    @contextmanager
    def taking_up(self) -> Iterator[None]:
        """A context for restoring a state from `restore`, which may belong to another run.

        Raises:
            UsageError: if it does not fit.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            raise UsageError(
                f"checkpoint {self.checkpoint} does not fit ({one_line(error)}): delete it to start the run again"
            ) from None

    def drop_checkpoints(self) -> None:
        """Delete all saved states, because the run is finished."""
        for file in (self.checkpoint, self.before, self.retreat):
            file.unlink(missing_ok=True)


class MetricsFile:
    """``metrics.jsonl``: one record per evaluation, appended; records that a resumed run repeats are cut off first."""

    def __init__(self, path: Path, keep: int):
        lines = path.read_bytes().splitlines(keepends=True)[:keep] if path.is_file() else []
        if len(lines) < keep:
            raise UsageError(f"{path} has lost records: delete {path.parent} to run again")
        try:
            self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            raise UsageError(f"{path} is damaged: delete {path.parent} to run again") from None
        write_text(path, b"".join(lines).decode())
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on disk before any checkpoint that counts it."""
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def recorded(folder: Path) -> Identity | None:
    """The identity stored in ``folder``, if it can be read."""
    try:
        found = json.loads((folder / IDENTITY).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def difference(before: Identity, now: Identity) -> str | None:
    """The first difference from the run that began here, with the remedy; ``None`` if it is the same run."""
    for part in PARTS:
        old, new = before.get(part), now.get(part)
        if json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
            return _said(part, old, new)
    return None


def _said(part: str, old: object, new: object) -> str:
    if part == "tasks":  # Of as many names, or the settings differ.
        news = _mapping(new)
        found = ((name, difference(_mapping(one), _mapping(news.get(name)))) for name, one in _mapping(old).items())
        return next((f"task {name!r}: {other}" for name, other in found if other), "a task changed")
    since = "since the run began: put {} back to continue"
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
