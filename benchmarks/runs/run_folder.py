"""The folder of one run: content-addressed, locked while in use, resumable."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import clear_drafts, held, plain_name, write_text
from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.places import data_label

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
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, config: RunConfig, teacher: TrainedTeacher, data: DataSet, out: Path) -> RunFolder:
        """The folder that this configuration, teacher and test set always get under ``out``."""
        meta = "+meta" if config.meta.enabled else ""
        seen = data_label(config.data.name)
        label = f"{config.method}+{config.replay['name']}{meta}-{teacher.name}-{config.student.network}-{seen}"
        return cls(out / plain_name(label) / cls.place(config, teacher.sha256, data))

    @staticmethod
    def place(config: RunConfig, teacher_sha256: str, data: DataSet) -> Path:
        """What tells a run from all others: the end of its folder's path, under a label for the eye."""
        tested_on = data.content("test") if config.data.test else ""
        return Path(config.fingerprint(teacher_sha256, tested_on)) / f"seed-{config.seed}"

    @property
    def config_hash(self) -> str:
        """The fingerprint of what is done in it."""
        return self.path.absolute().parent.name

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
        """Write the resolved configuration."""
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
