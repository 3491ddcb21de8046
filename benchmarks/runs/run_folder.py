"""The folder of one run: content-addressed, locked while in use, resumable."""

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import yaml

from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import held, write_atomically, write_text
from lra.state import State

SCHEMA = 1


class RunFolder:
    """Names and formats of what a run keeps.

    Args:
        path: the folder; made at the first write.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, config: RunConfig, teacher_name: str, teacher_sha256: str, out: Path) -> "RunFolder":
        """The folder that this configuration and teacher always get under ``out``."""
        meta = "+meta" if config.meta.enabled else ""
        label = (
            f"{config.method}+{config.replay['name']}{meta}-{teacher_name}-{config.student.network}-{config.data.name}"
        )
        safe = "".join(c if c.isalnum() or c in "+-_." else "-" for c in label)[-120:]
        return cls(out / safe / config.fingerprint(teacher_sha256) / f"seed-{config.seed}")

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
            return json.loads(file.read_text())
        except ValueError:
            raise UsageError(f"{file} is damaged: delete it to run again") from None

    def refuse_unwritable(self) -> None:
        """Raise `UsageError` where this folder could not be made, before anything is spent on the run."""
        there = next(place for place in (self.path, *self.path.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(f"cannot write to {there}: choose another folder with --out")

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is saved."""
        return self.path / "checkpoint.pt"

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder against other processes; raises as `lra.benchmarks.files.held`."""
        return held(self.path / ".lock", f"run {self.path} is in use by another process: wait for it or stop it")

    def write_json(self, name: str, content: object) -> None:
        """Write ``content`` to file ``name``, atomically."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def write_config(self, tree: Tree) -> None:
        """Write the resolved configuration."""
        write_text(self.path / "config.yaml", yaml.safe_dump(tree, sort_keys=False))

    def save(self, state: State) -> None:
        """Write a checkpoint, atomically: the one before it stays until the new one is whole."""
        write_atomically(self.checkpoint, lambda file: torch.save({"schema": SCHEMA} | state, file))

    def restore(self) -> State | None:
        """The last checkpoint, if there is one, read without running anything in it.

        Raises:
            UsageError: if it is damaged or of another version.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            state = torch.load(self.checkpoint, weights_only=True)
        # The loader of a damaged file may raise anything: IndexError, struct.error, AssertionError, ...
        except Exception:
            raise UsageError(f"checkpoint {self.checkpoint} is damaged: delete it to start the run again") from None
        if not isinstance(state, dict) or state.get("schema") != SCHEMA:
            raise UsageError(f"checkpoint {self.checkpoint} is of another version: delete it to start the run again")
        return state


class MetricsFile:
    """``metrics.jsonl``: one record per evaluation, appended; what a resume repeats is cut off first."""

    def __init__(self, path: Path, keep: int):
        lines = path.read_text().splitlines(keepends=True)[:keep] if path.is_file() else []
        if len(lines) < keep:
            raise UsageError(f"{path} has lost records: delete {path.parent} to run again")
        write_text(path, "".join(lines))
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add a record."""
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
