"""Data-free knowledge distillation as continual learning.

The package has three layers, and imports go down only: ``lra.benchmarks`` (experiments and the
``lra-bench`` command) stands on ``lra.strategies`` (Avalanche strategies, plugins and methods), which
stands on the rest of ``lra`` (what data-free distillation is: no Avalanche, no files, no terminal).
Importing this package imports none of them, so that ``lra-bench --help`` stays quick.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lra-distill")
except PackageNotFoundError:  # A folder on Python's path that was never installed.
    __version__ = "0+unknown"
