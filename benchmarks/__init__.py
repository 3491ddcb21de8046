"""Experiments built on the rest: the ``lra-bench`` command, and the modules behind it."""

from typing import TYPE_CHECKING

from lra.exports import offered

if TYPE_CHECKING:
    from lra.benchmarks.comparison.compare import compare as compare
    from lra.benchmarks.comparison.tables import markdown as markdown
    from lra.benchmarks.records import Run as Run
    from lra.benchmarks.records import read_run as read_run
    from lra.benchmarks.runs.run_folder import RunFolder as RunFolder
    from lra.benchmarks.runs.runner import run as run
    from lra.benchmarks.setup.config import RunConfig as RunConfig
    from lra.benchmarks.setup.config import TeacherOptions as TeacherOptions
    from lra.benchmarks.setup.datasets import data_set as data_set
    from lra.benchmarks.setup.resolution import configuration as configuration
    from lra.benchmarks.setup.teachers import obtain as obtain

PUBLIC = {
    "compare": "lra.benchmarks.comparison.compare",
    "markdown": "lra.benchmarks.comparison.tables",
    "Run": "lra.benchmarks.records",
    "read_run": "lra.benchmarks.records",
    "RunFolder": "lra.benchmarks.runs.run_folder",
    "run": "lra.benchmarks.runs.runner",
    "RunConfig": "lra.benchmarks.setup.config",
    "TeacherOptions": "lra.benchmarks.setup.config",
    "data_set": "lra.benchmarks.setup.datasets",
    "configuration": "lra.benchmarks.setup.resolution",
    "obtain": "lra.benchmarks.setup.teachers",
}
"""The public names of this package and their modules: the same as imported above for type checkers."""

__getattr__, __dir__ = offered(__name__, PUBLIC)
