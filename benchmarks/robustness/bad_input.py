"""Generated bad input for every command: each must end in one line, exit code 2 or 3, and nothing written.

    python -m lra.benchmarks.robustness.bad_input [--cases N] [--seed N]

Commands and their options are read from the command line's own definition, so that new ones are tried without a change
here. Input that happens to be valid is allowed where nothing is done (``--dry-run``), and counted apart. Needs
hypothesis (``pip install lra-distill[dev]``).
"""

import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import hypothesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lra.benchmarks import cli
from lra.benchmarks.runs.distillation import DISTILLATION
from lra.benchmarks.setup.config import RunConfig
from lra.options import Options
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.just("a" * 300)
"""What can be typed."""
NAMES = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).map("no-such-{}".format)
"""Names that nothing has."""
NASTY = [
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/name:os.system",
    "&a [*a, *a]",
    "{a: &a [1, 1], b: &b [*a, *a]}",
    *("2024-13-45", "0001-01-01T00:00:00+10:00", "!!int ''", "!!bool x", "!!timestamp x", "0x_", "1" * 5000),
    *("[" * 3000, "{a: " * 500, "- " * 2000, "? ", "=", "<<: 1", "{<<: [1]}", "\ufeff", "a: b: c", "%", "@", "`", "\t"),
    *(".nan", ".inf", "-.inf", "-1", "0", "1e400", "null", "true", "[]", "{}", "''", "[[]]", "{1: 2}", "!!set {a, b}"),
    *("<script>alert(1)</script>", "../../../etc/passwd", "~", "nan", "$(touch canary)", "; touch canary"),
]
"""Values that other programs have choked on."""


def _leaves(options: type[Options], prefix: str) -> Iterator[str]:
    for name, part in options.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(part.annotation, type) and issubclass(part.annotation, Options):
            yield from _leaves(part.annotation, f"{prefix}{name}.")


PATHS = sorted(
    {
        *_leaves(RunConfig, ""),
        *(path for method in METHODS.values() for path in _leaves(method.Options, "synthesis.")),
        *(path for replay in REPLAYS.values() for path in _leaves(replay, "replay.")),
    }
)
"""Every option of a configuration."""

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
SECTIONS = st.sampled_from([*RunConfig.model_fields, *DISTILLATION.flags])


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(SECTIONS | st.text(max_size=6), inner, max_size=3)


TREES = st.recursive(SCALARS, _nested, max_leaves=6)
TEXTS = (
    st.dictionaries(SECTIONS | SCALARS, TREES, max_size=4).map(yaml.safe_dump)
    | st.sampled_from(NASTY)
    | st.tuples(SECTIONS, st.sampled_from(NASTY)).map(": ".join)
    | st.text(max_size=60)
)
"""Texts of configuration files and grids."""
CONTENTS = TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=300)
FILES = ("bad.yaml", "bad.pt", "bad.safetensors", "bad.npz", "bad", "none.yaml", "none.pt", ".", "bad.yaml/below")
"""The first five exist, with generated content."""


@dataclass
class Case:
    """The arguments of a command, and the content of the files that it may name."""

    arguments: list[str]
    content: bytes


def commands(group: click.Group = cli.cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def value(option: click.Parameter) -> st.SearchStrategy[str]:
    """Something to type for an option."""
    if option.name == "set":
        paths = st.sampled_from(PATHS) | st.lists(WORDS, max_size=4).map(".".join)
        return st.tuples(paths, st.sampled_from(NASTY) | WORDS).map("=".join) | WORDS
    if isinstance(option.type, click.Path):
        return st.sampled_from(FILES) | WORDS
    if isinstance(option.type, click.Choice | click.types.IntParamType | click.types.FloatParamType):
        return st.sampled_from(["-1", "0", "1e9", "nan", "one", "9" * 30]) | NAMES
    if option.name == "plugin":
        return NAMES | NAMES.map("{}:Class".format)
    files = st.sampled_from([f"npz:{file}" for file in FILES]) if option.name == "dataset" else st.sampled_from(FILES)
    return NAMES | WORDS | files


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A call with something wrong in it, or --dry-run."""
    path, command = draw(st.sampled_from(sorted(commands(), key=lambda found: found[0])))
    arguments = list(path)
    options = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag and p.name != "help"]
    for option in draw(st.lists(st.sampled_from(options), max_size=3)) if options else []:
        arguments += [option.opts[0], draw(value(option))]
    for argument in command.params:
        if isinstance(argument, click.Argument):
            arguments.append(draw(value(argument)))
    names = {option.name for option in command.params}
    if "dry_run" in names:
        arguments += ["--dry-run", *(["--no-timing"] if "no_timing" in names else [])]
    elif wanted := names & {"method", "strategy"}:
        arguments += [f"--{wanted.pop()}", draw(NAMES)]
    elif not arguments[len(path) :]:
        arguments.append(draw(NAMES))
    return Case(arguments, draw(CONTENTS))


@dataclass
class Tally:
    """What became of all cases.

    Attributes:
        codes: how many ended with each exit code.
        used: how many tried each command.
    """

    codes: Counter[int] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)

    def try_(self, case: Case) -> None:
        """Call the command in a folder of its own.

        Raises:
            AssertionError: if it does not end as it should.
        """
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            for file in FILES[:5]:
                Path(file).write_bytes(case.content)
            code, out, err = call(case.arguments)
            left = sorted(os.listdir(place))
        what = f"{case}: {code}\n{out}{err}"
        assert left == sorted(FILES[:5]), f"left {left}: {what}"
        assert code in (2, 3) or (code == 0 and {"--dry-run", "list", "--help"} & {*case.arguments}), what
        if code:
            assert not out, what
            assert len(err.splitlines()) == 1, what
            assert err.startswith("lra-bench: "), what
        self.codes[code] += 1
        self.used[" ".join(argument for argument in case.arguments[:2] if argument.isalpha())] += 1


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["lra-bench", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        return int(left.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = argv
    raise AssertionError("the command did not end by itself")


def attempt(count: int, seed: int | None = None) -> Tally:
    """Try ``count`` cases; raise `AssertionError` with the simplest one found that does not end as it should."""
    tally = Tally()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(cases())
    def each(case: Case) -> None:
        tally.try_(case)

    (each if seed is None else hypothesis.seed(seed)(each))()
    return tally


@click.command()
@click.option("--cases", "count", default=5000, show_default=True, help="Number of cases.")
@click.option("--seed", default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Try generated cases and count how they end."""
    tally = attempt(count, seed)
    click.echo(
        f"{sum(tally.codes.values())} calls of {len({*commands()})} commands: {tally.codes[2]} ended with exit code 2, "
        f"{tally.codes[3]} with 3, {tally.codes[0]} were valid; none with a traceback, and nothing was written"
    )


if __name__ == "__main__":
    main()
