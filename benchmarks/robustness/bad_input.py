"""Generated bad input for every command: each must end in one line, exit code 2 or 3, and nothing written.

    python -m lra.benchmarks.robustness.bad_input [--cases N] [--seed N]

What happens to be valid is allowed where nothing is done (``--dry-run``), and counted apart. Needs hypothesis
(``pip install lra[dev]``).
"""

import contextlib
import io
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click
import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from lra.benchmarks import cli
from lra.benchmarks.robustness.generated_calls import FILES, Case, cases, commands


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
            AssertionError: if it ends otherwise than it should.
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
    """Try so many cases; raises `AssertionError` with the simplest one found that ends otherwise than it should."""
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
@click.option("--cases", "count", default=5000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Try so many cases and count what became of them."""
    tally = attempt(count, seed)
    click.echo(
        f"{sum(tally.codes.values())} calls of {len({*commands()})} commands: {tally.codes[2]} ended with exit code 2, "
        f"{tally.codes[3]} with 3, {tally.codes[0]} were valid; none with a traceback, and nothing was written"
    )


if __name__ == "__main__":
    main()
