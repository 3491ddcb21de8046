"""The folder of one run: content-addressed, locked while in use, resumable."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import CannotWrite, clear_drafts, held, plain_name, write_text
from lra.benchmarks.setup.config import Identity, RunConfig, Tree, fingerprint
from lra.benchmarks.setup.identity import RECORD, difference, recorded
from lra.benchmarks.setup.layers import expanded
from lra.benchmarks.setup.places import data_kind, data_label, placed_layer, places_of
from lra.benchmarks.setup.resolution import read_options

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet
    from lra.benchmarks.setup.teachers import TrainedTeacher
    from lra.state import State


SCHEMA = 1
"""Of ``result.json``."""

log = logging.getLogger("lra")


class RunFolder:
    """Names and formats of what a run keeps.

    Args:
        path: the folder; made at the first write.
        identity: of the run, as far as it is known.
    """

    def __init__(self, path: Path, identity: Identity | None = None):
        self.path = path
        self.identity = identity

    @classmethod
    def of(cls, config: RunConfig, teacher: TrainedTeacher, data: DataSet, out: Path) -> RunFolder:
        """The folder that this configuration, teacher and test set always get under ``out``.

        Its first part is for people: data may be called otherwise when the run is there already.
        """
        meta = "+meta" if config.meta.enabled else ""
        seen = data_label(config.data.name)
        label = f"{config.method}+{config.replay['name']}{meta}-{teacher.name}-{config.student.network}-{seen}"
        identity = identity_of(config, teacher.sha256, data)
        inner = cls.place(config, identity)
        place = out / plain_name(label) / inner
        others = [] if place.exists() else sorted(out.glob(f"*/{inner}"))
        return cls(others[0] if others else place, identity)

    @staticmethod
    def place(config: RunConfig, identity: Identity) -> Path:
        """What tells a run from all others: the end of its folder's path, under a label for the eye."""
        return Path(fingerprint(identity)) / f"seed-{config.seed}"

    def refuse_other(self) -> None:
        """Raise `UsageError` if what began here is another run, wherever it was moved, saying what is not as it was."""
        before = recorded(self.path)
        again = f"begin anew with lra-bench run --config {self.path / 'config.yaml'}"
        if before is None and self.path.absolute().parent.name != self.config_hash:
            raise UsageError(f"{self.path} is of other data, code or teacher, or of an earlier version: {again}")
        if before is not None and (other := difference(before, self.identity or {})):
            raise UsageError(f"{self.path}: {other}, or {again}")

    def update_places(self, config: RunConfig) -> None:
        """Let the stored configuration say where things lie now, if they were moved."""
        file = self.path / "config.yaml"
        if not file.is_file():
            return
        stored = placed_layer(expanded(read_options(file, "config")), [self.path])
        if places_of(stored) != places_of(config.tree()):
            with suppress(CannotWrite):  # It can be looked at all the same.
                self.write_config(config.tree())

    @property
    def config_hash(self) -> str:
        """The fingerprint of what is done in it."""
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
        """Raise `UsageError` where this folder could not be made, before anything is spent on the run."""
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"cannot write to {there}: choose another folder with --out")

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is saved."""
        return self.path / "checkpoint.pt"

    @property
    def before(self) -> Path:
        """The checkpoint before the last one, to fall back on."""
        return self.path / "checkpoint-before.pt"

    @property
    def retreat(self) -> Path:
        """The state to roll back to after a divergence."""
        return self.path / "rollback.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes, and tidy up after killed ones.

        Raises:
            UsageError: if it cannot be written to, or a name in it leads elsewhere.
            LraError: if another process holds it.
        """
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_symlink():
                raise UsageError(f"{path} is a symbolic link, which a run does not write through: remove it")
        with held(self.path / ".lock", f"run {self.path} is in use by another process: wait for it or stop it"):
            clear_drafts(self.path)
            yield

    def write_json(self, name: str, content: object) -> None:
        """Write ``content`` to file ``name``, atomically."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def write_config(self, tree: Tree) -> None:
        """Write the resolved configuration, and the identity of the run.

        What other runs of the same place left is named from here, so that they can be moved together.
        """
        carry = dict(tree.get("carry") or {})
        for key in ("generator", "replay"):
            if carry.get(key) and Path(carry[key]).is_relative_to(self.path.absolute().parents[2]):
                carry[key] = os.path.relpath(carry[key], self.path.absolute())
        tree = tree | ({"carry": carry} if carry else {})
        if self.identity is not None:
            self.write_json(RECORD, self.identity)
        write_text(self.path / "config.yaml", yaml.safe_dump(tree, sort_keys=False))

    def save(self, state: State | memoryview) -> None:
        """Write a checkpoint, atomically; the one before it is kept."""
        from lra.benchmarks import checkpoint_file

        checkpoint_file.write(self.checkpoint, state, self.before)

    def restore(self) -> State | None:
        """The last checkpoint that is whole, if there is any, read without running anything in it.

        Raises:
            UsageError: if there are some and none can be used.
        """
        from lra.benchmarks import checkpoint_file

        wrong = []
        for file in (self.checkpoint, self.before):
            if file.exists():
                try:
                    state = checkpoint_file.read(file)
                except checkpoint_file.Unreadable as error:
                    wrong.append(f"checkpoint {file} {error}")
                    continue
                for complaint in wrong:
                    log.warning("%s: going on from the one before it", complaint)
                return state
        if wrong:
            raise UsageError(f"{' and '.join(wrong)}: delete what is damaged to start the run again")
        return None

    def drop_checkpoints(self) -> None:
        """Delete all saved states: the run is finished."""
        for file in (self.checkpoint, self.before, self.retreat):
            file.unlink(missing_ok=True)


def identity_of(config: RunConfig, teacher_sha256: str, data: DataSet) -> Identity:
    """What makes a run the one it is: of a test set that is not looked at, what the run knows of it."""
    own = data_kind(data.name) != data.name
    if config.data.test:
        tested_on = data.content("test")
    else:
        tested_on = f"{data.classes} classes of {data.image}" if own else ""
    return config.identity(teacher_sha256, tested_on)


class MetricsFile:
    """``metrics.jsonl``: one record per evaluation, appended; what a resume repeats is cut off first."""

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
