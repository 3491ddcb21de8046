"""Commands that come before a run: ``lra-bench list``, what there is to choose from, ``data`` and ``teacher``."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lra.benchmarks.commands.options import COMPLETED, PATH, DryRun, completing, configured, tried
from lra.benchmarks.errors import UsageError, suggestion

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet

MOST_NAMES = 12
"""Most names of classes on a line."""


LONGEST = 50
"""Characters of a name that texts stand beside in a column; longer ones push theirs to the right."""

LISTS = ("methods", "replays", "presets", "scales", "datasets", "models", "plugins", "leaderboard")
"""What there is to choose from, each a `catalogue`."""


def _groups(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.setup.schema import groups

    return [*groups()] if given.get("what") == "options" else []


@click.command(
    name="list",
    help=f"""List what there is to choose from, or what --set takes.

    WHAT is {", ".join(LISTS)}, or options: every key of --set with its values, default and meaning, or only those of a
    section (student, meta, ...), of a method, of a replay, or of increment, if one is named.
    """,
)
@click.argument("what", metavar="WHAT", type=click.Choice([*LISTS, "options"]))
@click.argument("of", metavar="[SECTION|METHOD|REPLAY]", required=False, shell_complete=completing(_groups))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--schema", is_flag=True, help="For options: print the JSON Schema of a configuration file, for editors.")
def list_(what: str, of: str | None, as_json: bool, schema: bool) -> None:
    """Print a catalogue, or the options of a configuration."""
    if what != "options" and (of is not None or schema):
        raise UsageError(f"{'--schema' if schema else repr(of)} is for list options: leave it out")
    if what == "options":
        click.echo(options(of, as_json, schema))
        return
    entries = catalogue(what)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    else:
        width = min(max(map(len, entries), default=0), LONGEST)
        click.echo("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in entries.items()))


def options(of: str | None, as_json: bool, schema: bool) -> str:
    """The options of a section, a method, a replay or of increments; of a run as a whole; or their JSON Schema.

    Raises:
        UsageError: for an unknown group of options, and for a part of the schema.
    """
    from lra.benchmarks.setup.schema import alone, described, groups, json_schema, listing

    if schema:
        if of is not None:
            raise UsageError(f"--schema describes a whole configuration: leave {of!r} out")
        return json.dumps(json_schema(), ensure_ascii=False, indent=2)
    known = groups()
    if of is not None and of not in known:
        raise UsageError(f"list options: unknown {of!r}; {suggestion(of, known)}")
    every = {} if of else {"run": list(alone())}
    every |= {name: list(described(group, prefix)) for name, (prefix, group) in known.items() if of in (None, name)}
    if as_json:
        found = {name: {option.key: option._asdict() for option in options} for name, options in every.items()}
        return json.dumps(found if of is None else found[of], ensure_ascii=False, indent=2)
    width = min(shutil.get_terminal_size((100, 40)).columns, 110)
    texts = {name: listing(options, width) or "no options" for name, options in every.items()}
    return texts[of] if of else "\n\n".join(f"# {name}\n{text}" for name, text in texts.items())


def catalogue(what: str) -> dict[str, str]:
    """Names and one-line descriptions of what there is in one of `LISTS`."""
    if what == "leaderboard":
        from lra.benchmarks.leaderboard.board import board

        return {name: row.summary for name, row in board().items()}
    from lra.benchmarks.setup.presets import PUBLISHED, presets, scales

    if what == "presets":
        from lra.benchmarks.increment.configuration import protocols

        return {name: _preset(tree) for name, tree in presets().items()} | {
            name: f"of lra-bench increment: {tree['experiences']} experiences with {tree['model']}  ({tree['source']})"
            for name, tree in protocols().items()
        }
    if what == "scales":
        return {
            scale.name: f"{scale.summary}; {scale.method}, {scale.networks}; {scale.cost}"
            for scale in scales().values()
        } | {PUBLISHED: "no scale: the settings of the method's paper, for CIFAR on a GPU, whatever the data"}
    if what == "datasets":
        from lra.benchmarks.setup.datasets import DATASETS, data_set

        return {name: _data_set(data_set(name)) for name in DATASETS} | {
            "imagefolder:DIR": "DIR/train/CLASS and DIR/test/CLASS (or val); or DIR/CLASS, a fifth of it for testing",
            "npz:TRAIN,TEST": "two files of arrays images (n,H,W[,C] or n,C,H,W) and labels; npz:TEST to train nothing",
            "npz:FILE": "one file with both splits: x_train, y_train, x_test, y_test, or train_images and so on",
        }
    if what == "models":
        from lra.networks.families import FAMILIES
        from lra.networks.foreign import ELSEWHERE

        return {
            **{name: family.summary for family in FAMILIES for name in family.names()},
            **ELSEWHERE,
        }
    from lra.strategies.extensions import AVALANCHE, replay_plugins
    from lra.strategies.guests import GUESTS
    from lra.strategies.methods import METHODS
    from lra.strategies.retention import PAPER, REPLAYS

    if what == "methods":
        return {name: f"{method.paper}. {_first_line(method)}" for name, method in METHODS.items()}
    installed = {name: f"installed: {point.value}" for name, point in replay_plugins().items()}
    guests = {AVALANCHE + name: guest.verdict for name, guest in GUESTS.items()}
    if what == "plugins":
        return installed | guests
    own = {PAPER: "the replay of the method's own paper"}
    return {name: options.summary for name, options in REPLAYS.items()} | own | installed | guests


def _data_set(data: DataSet) -> str:
    from lra.benchmarks.setup.config import DataOptions
    from lra.benchmarks.setup.presets import facts_of, scale_for

    channels, height, width = data.image
    here = "here" if data.present() else "not here"
    scale = scale_for(facts_of(DataOptions(name=data.name), "cpu")).name
    return f"{channels}x{height}x{width}, {data.classes} classes, {here}, scale {scale}; {data.summary}"


def _preset(tree: dict[str, Any]) -> str:
    meta = " --meta" if tree.get("meta") else ""
    from lra.strategies.methods import METHODS

    replay = tree.get("replay") or METHODS[tree["method"]].memory
    name = replay["name"] if isinstance(replay, dict) else replay
    return f"--method {tree['method']} --replay {name}{meta}  ({tree['source']})"


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]


@click.group()
def data() -> None:
    """Fetch data sets."""


@data.command()
@click.argument("name", shell_complete=completing(COMPLETED["dataset"]))
def fetch(name: str) -> None:
    """Download a data set (see: list datasets) and print its folder.

    The folder is that of the environment variable LRA_DATA, or one in the user's cache.
    """
    from lra.benchmarks.setup.datasets.known_sets import fetch as do

    click.echo(do(name))


@click.group()
def teacher() -> None:
    """Train, check and list teachers."""


OF_TEACHERS = configured(
    shown=("dataset", "teacher", "preset", "config", "set", "device", "threads"),
    dataset="Data to train and test on (see: list datasets). [default: digits]",
    set="Set any option (see: list options): teacher.epochs=30.",
)
"""Flags of a configuration, those shown that change something for a teacher; the flags of any run can be given."""


@teacher.command()
@OF_TEACHERS
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@tried
def train(as_json: bool, dry_run: DryRun | None, **given: Any) -> None:
    """Train a teacher, unless it is there, and measure it.

    The flags are those of run; those that do not concern a teacher are accepted and ignored.
    """
    if dry_run:
        click.echo(_would_train(as_json, dry_run == "timed", given), nl=False)
    else:
        _obtain(as_json, given)


@teacher.command()
@click.argument("file", type=PATH)
@OF_TEACHERS
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def check(file: Path, as_json: bool, **given: Any) -> None:
    """Load a weights file safely and measure it on the test set.

    The network is recognised by the names and shapes of its weights; give --teacher NAME where that is not enough.
    Give --set teacher.mean=[...] --set teacher.std=[...] unless they are those of the data set.
    """
    from lra.benchmarks.setup.resolution import require_file

    require_file(file)
    _obtain(as_json, given, file)


@teacher.command(name="list")
def kept() -> None:
    """List the trained teachers in the cache."""
    from lra.benchmarks.setup.teachers import cache_folder

    for file in sorted(cache_folder().glob("*.safetensors")):
        click.echo(file)


def _would_train(as_json: bool, timing: bool, given: dict[str, Any]) -> str:
    """What a dry run prints: the settings of a teacher, its file, and with ``timing`` what its training would take."""
    import yaml

    from lra.benchmarks.progress import clock, loading
    from lra.benchmarks.setup.datasets import data_of
    from lra.benchmarks.setup.resolution import configuration
    from lra.benchmarks.setup.teachers import teacher_file, untrained

    config = configuration(**given)
    known = data_of(config.data)
    known.require()
    missing = untrained(config.teacher, known)
    file, seconds = str(teacher_file(config.teacher, known)), None
    if timing:
        with loading("torch", "avalanche"):
            from lra.benchmarks.runs.machine import refuse_device
            from lra.benchmarks.runs.memory import sized
            from lra.benchmarks.runs.trial import lessons
        refuse_device(config.device)
        config = sized(config, known)
        seconds = lessons(config, known) if missing else 0.0
    tree = {key: config.tree()[key] for key in ("teacher", "data", "device", "threads")}
    if as_json:
        estimate = {} if seconds is None else {"estimate": {"teacher": seconds}}
        return json.dumps({"config": tree, "file": file, "there": not missing} | estimate) + "\n"
    said = f"# {'would be trained into' if missing else 'there already'}: {file}\n"
    return yaml.safe_dump(tree, sort_keys=False) + said + (f"# training: about {clock(seconds)}\n" if seconds else "")


def _obtain(as_json: bool, given: dict[str, Any], file: Path | None = None) -> None:
    from lra.benchmarks.progress import Introduction, loading
    from lra.benchmarks.runs.machine import refuse_device
    from lra.benchmarks.setup.datasets import data_of
    from lra.benchmarks.setup.resolution import configuration
    from lra.benchmarks.setup.teachers import obtain
    from lra.benchmarks.text import quantity_text
    from lra.metrics.quantities import QUANTITIES
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
    accuracy = quantity_text(QUANTITIES["accuracy"], found.accuracy, "not measured")
    rows = record | {"accuracy": accuracy} | _described(known)
    click.echo("\n".join(f"{key:9} {value}" for key, value in rows.items()))


def _described(data: DataSet) -> dict[str, str]:
    """The images of a data set, how they got their size, and its classes."""
    count = "" if data.test_images is None else f", {data.test_images:,} to test on"
    names = ", ".join(data.names[:MOST_NAMES]) + (", ..." if len(data.names) > MOST_NAMES else "")
    return {
        "images": f"{'x'.join(map(str, data.image))}{count}, {data.reached}",
        "classes": f"{data.classes}{': ' if names else ''}{names}",
    }
