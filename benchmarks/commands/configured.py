"""The options of ``lra-bench`` that make up a configuration."""

from collections.abc import Callable
from typing import Any

import click

from lra.benchmarks.commands.paths import PATH

Command = Callable[..., Any]


def configured(command: Command) -> Command:
    """Add the options that make up a configuration."""
    options = [
        click.option("--method", help="How samples are made (see: list methods). [default: predfkd]"),
        click.option("--replay", help="What the student sees again (see: list replays). [default: none]"),
        click.option("--meta/--no-meta", default=None, help="Take the LRA step. [default: off]"),
        click.option("--dataset", help="Data to evaluate on (see: list datasets). [default: digits]"),
        click.option("--teacher", help="A network to train on that data (see: list models), or a weights file."),
        click.option("--student", help="The student's network (see: list models)."),
        click.option("--steps", type=int, help="Budget in student steps, in place of epochs."),
        click.option("--seed", type=int, help="Seed of everything random. [default: 0]"),
        click.option("--preset", help="A named cell (see: list presets)."),
        click.option("--config", "config_file", type=PATH, help="A YAML configuration."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any option: student.lr=0.05."),
        click.option("--plugin", "plugins", multiple=True, metavar="MODULE:CLASS", help="An Avalanche plugin to add."),
        click.option("--hard-loss/--no-hard-loss", default=None, help="Of aeahl-rg: learn the teacher's classes too."),
        click.option("--aea/--no-aea", default=None, help="Of aeahl-rg: attack some images. [default: on]"),
        click.option("--device", help="Where to compute: cpu, cuda, cuda:1. [default: cpu]"),
        click.option("--threads", type=int, help="Torch threads. [default: by the size of the networks]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command
