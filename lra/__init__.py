"""Data-free knowledge distillation as continual learning.

The package has three layers, and imports only go downwards: ``lra.benchmarks`` (experiments and the ``lra-bench``
command) builds on ``lra.strategies`` (Avalanche strategies, plugins and methods), which builds on the rest of ``lra``
(data-free distillation itself: no Avalanche, no files, no terminal). Importing this package imports none of them, so
that ``lra-bench --help`` stays fast.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from lra.exports import offered

if TYPE_CHECKING:
    from lra.distillation.objective import Objective as Objective
    from lra.memory.buffers import ImagePool as ImagePool
    from lra.memory.buffers import Reservoir as Reservoir
    from lra.memory.buffers import Ring as Ring
    from lra.meta.options import LookAheadOptions as LookAheadOptions
    from lra.meta.options import LRAOptions as LRAOptions
    from lra.meta.step import LookAheadStep as LookAheadStep
    from lra.metrics.evolution import AgreementMatrix as AgreementMatrix
    from lra.networks.normalized import Normalized as Normalized
    from lra.options import Options as Options
    from lra.problem import Batch as Batch
    from lra.problem import Problem as Problem
    from lra.problem import Teacher as Teacher
    from lra.state import State as State
    from lra.synthesis.online import OnlineGenerator as OnlineGenerator

try:
    __version__ = version("lra-distill")
except PackageNotFoundError:  # A folder on Python's path that was never installed.
    __version__ = "0+unknown"

PUBLIC = {
    "Objective": "lra.distillation.objective",
    "ImagePool": "lra.memory.buffers",
    "Reservoir": "lra.memory.buffers",
    "Ring": "lra.memory.buffers",
    "LookAheadOptions": "lra.meta.options",
    "LRAOptions": "lra.meta.options",
    "LookAheadStep": "lra.meta.step",
    "AgreementMatrix": "lra.metrics.evolution",
    "Normalized": "lra.networks.normalized",
    "Options": "lra.options",
    "Batch": "lra.problem",
    "Problem": "lra.problem",
    "Teacher": "lra.problem",
    "State": "lra.state",
    "OnlineGenerator": "lra.synthesis.online",
}
"""The public names of this package and their modules: the same as imported above for type checkers."""

__getattr__, __dir__ = offered(__name__, PUBLIC)
