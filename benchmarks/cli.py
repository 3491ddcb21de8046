"""The ``lra-bench`` command. Nothing heavy is imported before a command needs it, so that --help is fast."""

import errno
import sys
import warnings
from typing import Any

import click

from lra import __version__
from lra.benchmarks.commands.inputs import data, list_, teacher
from lra.benchmarks.commands.leaderboard import leaderboard, reproduce
from lra.benchmarks.commands.results import analyse, compare, export, ls, report, show
from lra.benchmarks.commands.run import increment, quantize, resume, run
from lra.benchmarks.commands.sweep import sweep
from lra.benchmarks.commands.tasks import tasks
from lra.benchmarks.errors import AtOnce, LraError, in_one_line

MOST = 1000
"""Characters of a complaint at most; what it quotes may be a whole file."""

PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""What the system finds wrong with a path."""

NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What newer versions of click raise to show the help of a group called without a command."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lra-bench")
def cli() -> None:
    """Data-free knowledge distillation as continual learning.

    A generator makes samples, a teacher labels them, a student learns; every generator update opens a new
    experience, and the student must retain what it learnt from earlier ones.
    """


for command in (
    *(run, resume, quantize, sweep, tasks, increment),
    *(show, ls, report, compare, export, analyse, reproduce, leaderboard, list_, teacher, data),
):
    cli.add_command(command)


def main() -> None:
    """Run the command; every foreseen trouble is one line on stderr and an exit code."""
    # Avalanche's dependencies warn at import about optional solvers.
    warnings.filterwarnings("ignore", module="qpsolvers")
    try:
        with in_one_line():
            code = cli.main(prog_name="lra-bench", standalone_mode=False) or 0
    except NO_ARGUMENTS as error:
        click.echo(error.format_message())
        code = 2
    except click.UsageError as error:
        message, asked = error.format_message().rstrip("."), error.ctx.command_path if error.ctx else "lra-bench"
        # With a question mark it asks whether something else was meant.
        code = _complain(message if "?" in message else f"{message}; see {asked} --help", 2)
    except click.ClickException as error:
        code = _complain(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        stopped = AtOnce("the same command starts it again")
        code = _complain(str(stopped), stopped.code)
    except LraError as error:
        code = _complain(str(error), error.code)
    except OSError as error:
        path = error.errno in PATHS
        code = _complain(f"{error}: {'check the path' if path else 'make room, or see to the permissions'}", 1 + path)
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(message.split()))
    click.echo(f"lra-bench: {line if len(line) < MOST else line[:MOST] + ' ...'}", err=True)
    return code
