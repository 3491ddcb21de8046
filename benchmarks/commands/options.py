"""What several commands of ``lra-bench`` take: paths, the options of a configuration, those of a dry run; completed."""

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.flags import FLAGS, Flag
from lra.benchmarks.setup.places import local

Command = Callable[..., Any]
DryRun = Literal["timed", "untimed"]


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

OUT = click.option("--out", type=PATH, default=Path("runs"), show_default=True, help="Folder for runs.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def names_of(what: str) -> list[str]:
    """The names in a list of ``lra-bench list``; of patterns, such as ``npz:TRAIN,TEST``, as far as they are names."""
    from lra.benchmarks.commands.inputs import catalogue

    return list(dict.fromkeys(re.sub(":[A-Z].*", ":", name) for name in catalogue(what)))


def _keys(given: dict[str, Any]) -> list[str]:
    """Keys of ``--set``, those of synthesis and replay of the method and replay that were ``given`` so far, if any."""
    from lra.benchmarks.setup.schema import keys

    return [f"{key}=" for key in keys(given.get("method"), given.get("replay"))]


Names = Callable[[dict[str, Any]], Sequence[str]]
"""What there is to choose from, for what was given so far."""


def _of(what: str) -> Names:
    return lambda given: names_of(what)


def _cells(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.setup.presets import presets

    return [*presets()]


COMPLETED: dict[str, Names] = {
    **{flag: _of(f"{flag}s") for flag in ("method", "replay", "dataset")},
    "preset": _cells,
    **dict.fromkeys(("teacher", "student"), _of("models")),
    "set": _keys,
}
"""Flags that a shell completes to more than files, by name."""


def completing(names: Names) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Complete what is typed to one of the ``names``; where it begins none, to a file."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names(ctx.params) if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]

    return complete


def assigned(help: str, names: Names = COMPLETED["set"]) -> Callable[[Command], Command]:
    """``--set`` of a command that is given its ``assignments``, with keys of ``names``."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help=help, shell_complete=completing(names)
    )


def configured(shown: Sequence[str] | None = None, **helps: str) -> Callable[[Command], Command]:
    """The flags that make up a configuration, but for what to do about a divergence: only some commands train.

    Args:
        shown: those that ``--help`` has; all unless given.
        helps: what it says of a flag in place of the usual.
    """

    def add(command: Command) -> Command:
        for flag in reversed(FLAGS):
            if flag.name != "on_divergence":
                told = flag._replace(help=helps.get(flag.name, flag.help))
                command = option(told, hidden=shown is not None and flag.name not in shown)(command)
        return command

    return add


def option(flag: Flag, hidden: bool = False) -> Callable[[Command], Command]:
    """A flag as an option of a command, which is given its value by the flag's name, or none."""
    typed = f"--{flag.name.replace('_', '-')}"
    if flag.kind is bool:
        return click.option(f"{typed}/--no-{flag.name}", flag.name, default=None, help=flag.help, hidden=hidden)
    kind = PATH if flag.kind is Path else click.Choice(flag.kind) if isinstance(flag.kind, tuple) else flag.kind
    names = COMPLETED.get(flag.name)
    return click.option(
        typed,
        flag.name,
        type=kind,
        multiple=bool(flag.each),
        metavar=flag.each or ("NAME" if names else None),
        help=flag.help,
        hidden=hidden,
        shell_complete=None if names is None else completing(names),
    )


_DIVERGING = next(flag for flag in FLAGS if flag.name == "on_divergence")
ON_DIVERGENCE = option(_DIVERGING)
STILL_ON_DIVERGENCE = option(_DIVERGING._replace(help=_DIVERGING.help.replace("stop]", "as it was started]")))
"""The same of what has begun."""


def tried(command: Command) -> Command:
    """Add the options of a dry run; ``command`` is given the ``dry_run`` that is wanted, timed, untimed, or none."""

    @wraps(command)
    def given(dry_run: bool, no_timing: bool, **others: Any) -> Any:
        if no_timing and not dry_run:
            raise UsageError("--no-timing is for --dry-run: give both, or neither")
        return command(dry_run=("untimed" if no_timing else "timed") if dry_run else None, **others)

    options = [
        click.option(
            "--dry-run",
            is_flag=True,
            help="Time the first steps, and print what would be done and what it would cost; write nothing.",
        ),
        click.option("--no-timing", is_flag=True, help="With --dry-run: only check and print what would be done."),
    ]
    for option in reversed(options):
        given = option(given)
    return given
