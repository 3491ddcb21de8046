"""``lra-bench list``: what there is to choose from."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lra.benchmarks.setup.datasets import DataSet


@click.command(name="list")
@click.argument("what", type=click.Choice(["methods", "replays", "presets", "scales", "datasets", "models", "plugins"]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def list_(what: str, as_json: bool) -> None:
    """List what there is to choose from."""
    entries = catalogue(what)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    else:
        width = max(map(len, entries), default=0)
        click.echo("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in entries.items()))


def catalogue(what: str) -> dict[str, str]:
    """Names and one-line descriptions of methods, replays, presets, scales, datasets, models or plugins."""
    from lra.benchmarks.setup.presets import PUBLISHED, presets, scales

    if what == "presets":
        return {name: _preset(tree) for name, tree in presets().items()}
    if what == "scales":
        return {scale.name: f"{scale.summary}; {scale.networks}; {scale.cost}" for scale in scales().values()} | {
            PUBLISHED: "none: the settings of the method's paper, for CIFAR on a GPU, whatever the data"
        }
    if what == "datasets":
        from lra.benchmarks.setup.datasets import DATASETS, data_set

        return {name: _data_set(data_set(name)) for name in DATASETS} | {
            "imagefolder:DIR": "DIR/train/CLASS and DIR/test/CLASS (or val); or DIR/CLASS, a fifth for testing",
            "npz:TRAIN,TEST": "two files of arrays images (n,H,W[,C] or n,C,H,W) and labels; npz:TEST to train nothing",
            "npz:FILE": "one file of both splits: x_train, y_train, x_test, y_test, or train_images and so on",
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
    from lra.strategies.retention import REPLAYS

    if what == "methods":
        return {name: f"{method.paper}. {_first_line(method)}" for name, method in METHODS.items()}
    installed = {name: f"installed: {point.value}" for name, point in replay_plugins().items()}
    guests = {AVALANCHE + name: guest.verdict for name, guest in GUESTS.items()}
    if what == "plugins":
        return installed | guests
    return {name: options.summary for name, options in REPLAYS.items()} | installed | guests


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
