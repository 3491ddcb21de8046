"""The type of options and arguments that are paths."""

from pathlib import Path
from typing import Any

import click

from lra.benchmarks.setup.places import local


class LocalPath(click.Path):
    """A path of this machine, with ``~`` expanded: shells leave it in ``--out=~/runs``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; `UsageError` for a URL or one of Windows."""
        path = local(str(value), "path" if param is None else param.opts[0])
        super().convert(path, param, ctx)
        return path


PATH = LocalPath()
