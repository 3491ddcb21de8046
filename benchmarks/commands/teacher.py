"""Commands of ``lra-bench`` that come before a run: teachers, and the data they are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lra.benchmarks.commands.options import PATH, configured

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet

MOST_NAMES = 12
"""Most names of classes on a line."""


@click.group()
def data() -> None:
    """Fetch data sets."""


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download a data set (see: list datasets) and print its folder.

    The folder is that of the environment variable LRA_DATA, or one in the user's cache.
    """
    from lra.benchmarks.setup.datasets.known_sets import fetch as do

    click.echo(do(name))


@click.group()
def teacher() -> None:
    """Train, check and list teachers."""


@teacher.command()
@configured
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def train(as_json: bool, **given: Any) -> None:
    """Train the configured teacher, or find it in the cache, and say how good it is."""
    _obtain(as_json, given)


@teacher.command()
@click.argument("file", type=PATH)
@configured
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def check(file: Path, as_json: bool, **given: Any) -> None:
    """Load a weights file safely and measure it on the test set.

    Its network is told by the names and shapes of the weights; say --teacher NAME where that is not enough. Say --set
    teacher.mean=[...] --set teacher.std=[...] unless they are those of the data set.
    """
    from lra.benchmarks.setup.resolution import require_file

    require_file(file)
    _obtain(as_json, given, file)


@teacher.command(name="list")
def list_() -> None:
    """List the trained teachers that are kept."""
    from lra.benchmarks.setup.teachers import cache_folder

    for file in sorted(cache_folder().glob("*.safetensors")):
        click.echo(file)


def _obtain(as_json: bool, given: dict[str, Any], file: Path | None = None) -> None:
    from lra.benchmarks.progress import Introduction, loading
    from lra.benchmarks.runs.machine import refuse_device
    from lra.benchmarks.setup.datasets import data_of
    from lra.benchmarks.setup.resolution import configuration
    from lra.benchmarks.setup.teachers import obtain
    from lra.networks import described as described_network

    if file is not None:
        given["set"] = (*given["set"], f"teacher.file={json.dumps(str(file))}")
    config = configuration(**given)
    known = data_of(config.data)
    known.require()
    with loading("torch"):
        from lra.benchmarks.runs.memory import sized

    refuse_device(config.device)
    config = sized(config, known)
    introduction = Introduction(*known.notes)
    found = obtain(config.teacher, known, known.load("test"), config.device, False, introduction)
    introduction.say()
    record = found.record() | {
        "network": described_network(found.name),
        "file": str(found.path),
        "threads": config.threads,
    }
    if as_json:
        click.echo(json.dumps(record | {"data": known.record()}))
        return
    rows = record | _described(known)
    click.echo("\n".join(f"{key:9} {value}" for key, value in rows.items()))


def _described(data: DataSet) -> dict[str, str]:
    """The images of a data set, how they got their size, and its classes."""
    count = "" if data.test_images is None else f", {data.test_images:,} to test on"
    names = ", ".join(data.names[:MOST_NAMES]) + (", ..." if len(data.names) > MOST_NAMES else "")
    return {
        "images": f"{'x'.join(map(str, data.image))}{count}, {data.reached}",
        "classes": f"{data.classes}{': ' if names else ''}{names}",
    }
