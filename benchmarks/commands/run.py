"""``lra-bench run``, ``resume``, ``quantize`` and ``increment``: one run, from its options to its result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lra.benchmarks.commands.options import (
    AS_JSON,
    COMPLETED,
    ON_DIVERGENCE,
    OUT,
    PATH,
    STILL_ON_DIVERGENCE,
    DryRun,
    assigned,
    completing,
    configured,
    names_of,
    tried,
)
from lra.benchmarks.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lra.benchmarks.runs.kind import Configuration, Tracker
    from lra.benchmarks.setup.config import RunConfig

BITS = click.IntRange(2, 8)
RGAL = 0.1
"""Weight of each of RGAL's triplet terms, as published."""


@click.command()
@configured()
@ON_DIVERGENCE
@OUT
@AS_JSON
@tried
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events into the run folder.")
@click.option("--wandb", type=click.Choice(["offline", "online"]), help="Log to Weights & Biases: locally, or online.")
def run(
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    tensorboard: bool,
    wandb: Literal["offline", "online"] | None,
    **given: Any,
) -> None:
    """Distil a teacher into a student, and report.

    A finished run is not repeated, and one that was stopped continues from where it was last saved.
    """
    began = time.perf_counter()
    from lra.benchmarks.runs.runner import asked_for
    from lra.benchmarks.setup.resolution import configuration

    _do(configuration(**given), out, as_json, dry_run, began, asked_for(tensorboard, wandb))


@click.command()
@click.argument("folder", metavar="RUN|TASKS", type=PATH)
@STILL_ON_DIVERGENCE
@AS_JSON
def resume(folder: Path, on_divergence: Literal["stop", "rollback"] | None, as_json: bool) -> None:
    """Continue a run, or tasks, that stopped or failed."""
    if (folder / "tasks.json").is_file():
        from lra.benchmarks.commands.tasks import resume as go_on

        click.echo(go_on(folder, on_divergence, as_json))
        return
    if (folder / "sweep.json").is_file():
        from lra.benchmarks.comparison.groups import sweep_record, swept_by

        again = swept_by(sweep_record(folder / "sweep.json"), folder)
        raise UsageError(f"{folder} is a sweep: repeat the command that began it, {again}")
    from lra.benchmarks.commands.summary import show
    from lra.benchmarks.runs.runner import resume as do

    show(do(folder, on_divergence), as_json)


@click.command()
@click.option("--weight-bits", type=BITS, help="Bits of each weight. [default: 4]")
@click.option("--activation-bits", type=BITS, help="Bits of the layers' inputs. [default: 4]")
@click.option("--edge-bits", type=BITS, help="Bits of the first and last layers. [default: as for all others]")
@click.option("--rgal/--no-rgal", default=None, help="Add RGAL's triplet terms, at 0.1 on both sides. [default: off]")
@configured(
    method="How samples are made (see: list methods). [default: gdfq]",
    student="The student's network (see: list models). [default: the teacher's]",
)
@OUT
@AS_JSON
@tried
def quantize(
    rgal: bool | None,
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    **given: Any,
) -> None:
    """Make a low-bit student from a teacher, without data.

    Quantization is simulated: the student computes in floats, on the values that the bits can represent, which shows
    accuracy and size but says nothing about latency. It starts as a copy of the teacher with ranges from noise (min-max
    post-training quantization, reported beside the result) and learns from generated images, by GDFQ or another
    --method.
    """
    began = time.perf_counter()
    bits = {name: given.pop(name) for name in ("weight_bits", "activation_bits", "edge_bits")}
    _do(_quantizing(given, bits, rgal), out, as_json, dry_run, began)


def _quantizing(given: dict[str, Any], bits: dict[str, int | None], rgal: bool | None) -> RunConfig:
    """The configuration of flags, with GDFQ by default and the teacher's network for the student."""
    from lra.benchmarks.setup.datasets import data_of
    from lra.benchmarks.setup.resolution import configuration
    from lra.benchmarks.setup.weights_files import architecture

    said: dict[str, float] = {f"quantization.{name}": number for name, number in bits.items() if number is not None}
    if rgal is not None:
        said |= dict.fromkeys(("synthesis.triplet", "synthesis.student_triplet"), RGAL if rgal else 0.0)
    given["set"] = ("quantization={}", *given["set"], *(f"{key}={value}" for key, value in said.items()))
    if all(given[name] is None for name in ("method", "preset", "config")):
        given["method"] = "gdfq"
    if given["student"] is None:
        config = configuration(**given)
        given["student"] = architecture(config.teacher, data_of(config.data))
    return configuration(**given)


def _benchmarks(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.increment.configuration import PREFIX

    return [PREFIX + name for name in names_of("datasets")]


def _strategies(given: dict[str, Any]) -> list[str]:
    from lra.strategies.increment.strategies import STRATEGIES

    return [*STRATEGIES]


def _protocols(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.increment.configuration import protocols

    return [*protocols()]


def _increment_keys(given: dict[str, Any]) -> list[str]:
    from lra.benchmarks.setup.schema import INCREMENT, described, groups

    prefix, group = groups()[INCREMENT]
    return [f"{option.key}=" for option in described(group, prefix)]


@click.command()
@click.option(
    "--benchmark",
    metavar="split-DATASET",
    shell_complete=completing(_benchmarks),
    help="A data set whose classes are split (see: list datasets). [default: split-digits]",
)
@click.option(
    "--strategy",
    metavar="NAME",
    shell_complete=completing(_strategies),
    help="naive, lwf[-mc], joint, buffer, avalanche-generative[-plugin]; without data: generative (the default), rgal, "
    "deepinversion[-lwf], abd, r-dfcil; with statistics of classes: fecam.",
)
@click.option(
    "--preset",
    shell_complete=completing(_protocols),
    help="A published protocol: split-cifar100/5, /10 or /20 (see: list presets).",
)
@click.option("--meta/--no-meta", default=None, help="Take the LRA step. [default: off]")
@click.option("--experiences", type=int, help="How many; must divide the number of classes. [default: 5]")
@click.option("--steps", type=int, help="Optimiser steps per experience. [default: 200]")
@click.option("--seed", type=int, help="Seed of everything, including the order of classes. [default: 0]")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=completing(COMPLETED["student"]),
    help="A network (see: list models). [default: resnet8]",
)
@click.option("--config", "config_file", type=PATH, help="The config.yaml of another such run.")
@assigned("Set any option (see: list options increment): generator_steps=500.", _increment_keys)
@click.option("--device", help="Where to compute. [default: cpu]")
@click.option("--threads", type=int, help="Torch threads. [default: by the size of the model]")
@OUT
@AS_JSON
@tried
def increment(
    assignments: tuple[str, ...],
    meta: bool | None,
    config_file: Path | None,
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    **given: object,
) -> None:
    """Learn classes a few at a time, and measure forgetting.

    One head serves all classes. The data-free strategies keep no sample: before each experience they train a generator
    from the current model, and replay the old classes from it. Accuracy matrix and forgetting are defined as in
    Avalanche.
    """
    began = time.perf_counter()
    from lra.benchmarks.increment.configuration import configuration

    _do(configuration(given, assignments, meta, config_file), out, as_json, dry_run, began)


def _do(
    config: Configuration,
    out: Path,
    as_json: bool,
    dry_run: DryRun | None,
    began: float,
    trackers: Sequence[Tracker] = (),
) -> None:
    """Do a run and print its result; in a dry run, do at most its first steps and print what they show."""
    from lra.benchmarks.commands.summary import preview, show

    if dry_run:
        click.echo(preview(config, out, as_json, dry_run == "timed", began), nl=False)
        return
    from lra.benchmarks.runs.runner import run

    show(run(config, out, trackers), as_json)
