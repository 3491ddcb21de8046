"""``python -m lra.benchmarks``: the ``lra-bench`` command, for launchers that start modules, such as torchrun."""

from lra.benchmarks.cli import main

main()
